// SPDX-License-Identifier: Apache-2.0
// copy.hpp - memory copies: ordinary, with stores that pass by the caches for destinations that nobody reads soon, and
// digested.
#pragma once

#include <cstddef>
#include <cstdint>

namespace host_backend {

// Like memcpy. Streaming stores are visible to other threads when the call returns. [data]
void copy(void* destination, const void* source, std::size_t length, bool streaming) noexcept;

// The same; returns what the source's bytes add to the digest of a page in which they lie at `place`. They are read from memory
// once. Length and place are multiples of 8. [data]
std::uint64_t copy_digested(void* destination, const void* source, std::size_t length, std::uint64_t place,
                            bool streaming) noexcept;

}  // namespace host_backend
