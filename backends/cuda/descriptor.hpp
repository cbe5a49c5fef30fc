// SPDX-License-Identifier: Apache-2.0
// descriptor.hpp - the bytes by which another process finds a region, both ways.
#pragma once

#include "device.hpp"

namespace cuda_backend {

constexpr std::uint32_t kHostRegionType = 3;  // of SharedObject; no other back end takes it

// As in region.h.
pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length);
pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out);
// The memory of `memory.handle`: the 64 bytes of a CUipcMemHandle, or a descriptor that this back end exported. The mutex is
// held, the context current.
pega_status take_handle(pega_device& device, pega_region& region, const pega_memory& memory);
// A region of shared host memory: pins it (region.cpp).
pega_status adopt_shared(pega_device* device, backend_common::SharedObject object, pega_region** out);

}  // namespace cuda_backend
