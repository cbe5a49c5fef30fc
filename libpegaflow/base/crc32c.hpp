// SPDX-License-Identifier: Apache-2.0
// crc32c.hpp - CRC-32C (Castagnoli, RFC 3720 appendix B.4), the digest of stored bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pegaflow::base {

// The digest of `length` bytes; `previous` continues a digest over the bytes before. [data]
std::uint32_t crc32c(const void* data, std::size_t length, std::uint32_t previous = 0) noexcept;

}  // namespace pegaflow::base
