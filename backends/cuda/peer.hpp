// SPDX-License-Identifier: Apache-2.0
// peer.hpp - GPU memory of other processes and other GPUs: how a device comes to address it.
#pragma once

#include <string>

#include "device.hpp"

namespace cuda_backend {

// What to do where a handle is missing or does not work.
inline constexpr char kNoHandleRemedy[] =
    "Memory from expandable segments or virtual memory management has no handle that works: start the client with "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False";

// Gives `region` the memory that an inter-process handle names, `offset` bytes into its allocation; `owner` is its GPU, or null
// when nobody knows. A handle is opened once and closed with its last region. OK; INVALID (no handle), REGION_LOST,
// UNSUPPORTED (the GPUs have no peer access; logged). The device's mutex is held, the context current.
pega_status open_handle(pega_device& device, pega_region& region, const std::string& handle, std::uint64_t offset,
                        const Uuid* owner);
// The mutex is held, the context current.
void close_handle(pega_device& device, pega_region& region);

// Whether this device may address memory of the GPU `other`: peer access is there, and on. OK, UNSUPPORTED (logged). As above.
pega_status reach(pega_device& device, Device other);
// Gives up what `reach` took.
void leave_peers(pega_device& device);

}  // namespace cuda_backend
