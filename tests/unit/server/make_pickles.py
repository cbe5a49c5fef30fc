#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes pickles.hpp: what existing clients send, made by Python's own pickle with stand-ins of the classes' names."""

import pickle
import sys
import types

torch = types.ModuleType("torch")
wrapper = types.ModuleType("pegaflow.ipc_wrapper")


class Size(tuple):
    def __reduce__(self):
        return (Size, (tuple(self),))


class DType:
    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return self.name  # a global of the module torch, as torch does it


class CudaIPCWrapper:
    pass


for cls, module in ((Size, "torch"), (DType, "torch"), (CudaIPCWrapper, "pegaflow.ipc_wrapper")):
    cls.__module__ = module
    cls.__qualname__ = cls.__name__
torch.Size = Size
torch.bfloat16 = DType("bfloat16")
torch.bfloat16.__module__ = "torch"
wrapper.CudaIPCWrapper = CudaIPCWrapper
sys.modules.update({"torch": torch, "pegaflow": types.ModuleType("pegaflow"), "pegaflow.ipc_wrapper": wrapper})


def make(handle, protocol, storage_offset=0):
    item = CudaIPCWrapper()
    item.handle = (0, handle, 1 << 20, 4096, b"/refcounter", 3, bytes(64), True)
    item.dtype = torch.bfloat16
    item.shape = Size((2, 16, 128))
    item.stride = (2048, 128, 1)
    item.storage_offset = storage_offset
    item.device_uuid = "01234567-89ab-cdef-0123-456789abcdef"
    return pickle.dumps(item, protocol)


class Evil:
    def __reduce__(self):
        import os

        return (os.system, ("true",))


raw = bytes(range(64))
cases = {f"kProtocol{p}": make(raw, p) for p in (2, 3, 4, 5)}
cases["kVersioned"] = make(b"\x01c" + raw, 5)
cases["kExpandable"] = make(b"\x01e" + raw + raw, 5)
cases["kShifted"] = make(raw, 5, storage_offset=8)
cases["kOtherClass"] = pickle.dumps({"handle": raw}, 5)
cases["kEvil"] = pickle.dumps(Evil(), 5)

print("// SPDX-License-Identifier: Apache-2.0")
print("// pickles.hpp - made by make_pickles.py: what clients send as wrapper_bytes, and what nobody should.")
print("#pragma once\n\n#include <cstdint>\n\nnamespace pegaflow::server::testing {\n\n// clang-format off")
for name, data in cases.items():
    print(f"inline constexpr std::uint8_t {name}[] = {{{', '.join(str(b) for b in data)}}};")
print("// clang-format on\n\n}  // namespace pegaflow::server::testing")
