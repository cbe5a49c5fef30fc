// SPDX-License-Identifier: Apache-2.0
// event.hpp - how a Device makes Events: points in its work, or in another process's, that batches wait for or record.
#pragma once

#include "fabric.hpp"

namespace pegaflow::python {

EventPtr create_event(const DeviceHandle& device, bool shared);
EventPtr wrap_event(const DeviceHandle& device, std::uintptr_t native);  // CUDA: a CUevent; it stays the caller's
EventPtr import_event(const DeviceHandle& device, const std::string& exported);

}  // namespace pegaflow::python
