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


class Called(CudaIPCWrapper):
    def __reduce__(self):
        return (CudaIPCWrapper, (), self.__dict__)


class Load:
    def __reduce__(self):
        return "load"  # a function of torch that runs what it reads


torch.load = Load()
torch.load.__module__ = "torch"
raw = bytes(range(64))


def fields(memory=raw):
    return (0, memory, 1 << 20, 4096, b"/refcounter", 3, bytes(64), True)


def make(protocol=5, without=(), cls=CudaIPCWrapper, **changes):
    item = cls()
    item.handle = fields()
    item.dtype = torch.bfloat16
    item.shape = Size((2, 16, 128))
    item.stride = (2048, 128, 1)
    item.storage_offset = 0
    item.device_uuid = "01234567-89ab-cdef-0123-456789abcdef"
    for name in without:
        delattr(item, name)
    for name, value in changes.items():
        setattr(item, name, value)
    return pickle.dumps(item, protocol)


class Evil:
    def __reduce__(self):
        import os

        return (os.system, ("true",))


def other_field(number, value=None):
    return make(handle=(*fields()[:number], value, *fields()[number + 1 :]))


cases = {f"kProtocol{p}": make(p) for p in (2, 3, 4, 5)}
cases["kVersioned"] = make(handle=fields(b"\x01c" + raw))
cases["kExpandable"] = make(handle=fields(b"\x01e" + raw + raw))
cases["kOldClient"] = make(without=("stride", "storage_offset"))
cases["kShifted"] = make(storage_offset=8)
cases["kOtherClass"] = pickle.dumps({"handle": raw}, 5)
cases["kEvil"] = pickle.dumps(Evil(), 5)
cases["kTorchLoad"] = make(dtype=torch.load)
cases["kCalled"] = make(cls=Called)
cases["kNoState"] = pickle.dumps(CudaIPCWrapper(), 5)
cases["kMoreAttributes"] = make(requires_grad=False)
cases["kTwoHandles"] = make(handlX=0).replace(b"handlX", b"handle")
for missing in ("handle", "dtype", "shape", "device_uuid"):
    cases["kNo" + missing.title().replace("_", "")] = make(without=(missing,))
cases["kHandleList"] = make(handle=7)
cases["kHandleOfSeven"] = make(handle=fields()[:7])
for number in range(8):
    cases[f"kField{number}"] = other_field(number)
cases["kDevice"] = other_field(0, -1)
cases["kStorageSize"] = other_field(2, 0)
cases["kStorageEnd"] = other_field(3, (1 << 63) - 1)
cases["kShortEvent"] = other_field(6, bytes(63))
cases["kLaterHandle"] = make(handle=fields(b"\x04c" + raw))
cases["kDTypeText"] = make(dtype="bfloat16")
cases["kDTypeSize"] = make(dtype=Size)
cases["kShapeTuple"] = make(shape=(2, 16, 128))
cases["kShapeZero"] = make(shape=Size((2, 0, 128)))
cases["kShapeTexts"] = make(shape=Size(("2", 16, 128)))
cases["kShortStride"] = make(stride=(2048, 128))
cases["kNegativeStride"] = make(stride=(2048, -128, 1))
cases["kTooLarge"] = make(shape=Size((257, 16, 128)))
cases["kTooLargeOld"] = make(shape=Size((257, 16, 128)), without=("stride",))
cases["kOverflow"] = make(shape=Size((1 << 40, 1 << 40, 2)))
cases["kUuidBytes"] = make(device_uuid=b"01234567-89ab-cdef-0123-456789abcdef")
cases["kUuidShort"] = make(device_uuid="01234567-89ab-cdef-0123-456789abcde")
cases["kUuidOther"] = make(device_uuid="01234567-89ab-cdef-0123-456789abcdeg")

print("// SPDX-License-Identifier: Apache-2.0")
print("// pickles.hpp - made by make_pickles.py: what clients send as wrapper_bytes, and what nobody should.")
print("#pragma once\n\n#include <cstdint>\n\nnamespace pegaflow::server::testing {\n\n// clang-format off")
for name, data in cases.items():
    print(f"inline constexpr std::uint8_t {name}[] = {{{', '.join(str(b) for b in data)}}};")
print("// clang-format on\n\n}  // namespace pegaflow::server::testing")
