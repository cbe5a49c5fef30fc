// SPDX-License-Identifier: Apache-2.0
// pickle.hpp - decodes the one pickled class by which existing clients describe GPU memory. It executes nothing.
//
// Accepted: pickle protocols 3 to 5 of an instance of pegaflow.ipc_wrapper.CudaIPCWrapper with its plain attribute dictionary;
// the handle is the 8-tuple of torch's UntypedStorage._share_cuda_(). Any other opcode or global is refused with its position,
// any other attribute, field or type by its name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pegaflow/result.hpp"

namespace pegaflow::server {

struct CudaWrapper {
    std::string device_uuid;          // as torch prints it
    std::string ipc_handle;           // the 64 bytes of a CUipcMemHandle
    std::uint64_t storage_bytes = 0;  // of the tensor's storage
    std::uint64_t offset = 0;         // bytes from the start of the allocation to the storage
};

// kInvalid on anything that is not exactly that; expandable segments are refused with the remedy. [any]
Result<CudaWrapper> read_cuda_wrapper(std::string_view bytes);

}  // namespace pegaflow::server
