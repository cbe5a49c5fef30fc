// SPDX-License-Identifier: Apache-2.0
// copy.hpp - memory copies: ordinary, and with stores that pass by the caches for destinations that nobody reads soon.
#pragma once

#include <cstddef>

namespace host_backend {

// Like memcpy. Streaming stores are visible to other threads when the call returns. [data]
void copy(void* destination, const void* source, std::size_t length, bool streaming) noexcept;

}  // namespace host_backend
