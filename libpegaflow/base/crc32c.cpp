// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.hpp"

#include <isa-l/crc.h>

#include <algorithm>

namespace pegaflow::base {

std::uint32_t crc32c(const void* data, std::size_t length, std::uint32_t previous) noexcept {
    constexpr std::size_t kMaxCall = 1 << 30;  // the library takes an int
    // isa-l leaves the inversions of the standard to its caller, and does not change the bytes it takes as non-const.
    auto* bytes = const_cast<unsigned char*>(static_cast<const unsigned char*>(data));
    std::uint32_t crc = ~previous;
    while (length != 0) {
        const std::size_t step = std::min(length, kMaxCall);
        crc = ::crc32_iscsi(bytes, static_cast<int>(step), crc);
        bytes += step;
        length -= step;
    }
    return ~crc;
}

}  // namespace pegaflow::base
