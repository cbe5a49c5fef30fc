// SPDX-License-Identifier: Apache-2.0
// hash.hpp - a fast 64-bit hash of short byte strings for tables in memory; its values are never stored or sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pegaflow::base {

// Multiplies to 128 bits and folds: the mixing step of the wyhash family (public domain, Wang Yi).
inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
    const auto product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t load64(const unsigned char* bytes) noexcept {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes, sizeof value);
    return value;
}

// [data]
inline std::uint64_t hash_bytes(const void* data, std::size_t length, std::uint64_t seed) noexcept {
    constexpr std::uint64_t kA = 0xa0761d6478bd642fULL;
    constexpr std::uint64_t kB = 0xe7037ed1a0b428dbULL;
    constexpr std::uint64_t kC = 0x8ebc6af09c88c6e3ULL;
    const auto* bytes = static_cast<const unsigned char*>(data);
    if (length == 32) {  // of most content hashes: two halves side by side
        const std::uint64_t first = mix(load64(bytes) ^ kA, load64(bytes + 8) ^ seed);
        const std::uint64_t second = mix(load64(bytes + 16) ^ kB, load64(bytes + 24) ^ seed);
        return mix(first ^ kC, second ^ kA);
    }
    std::uint64_t state = seed ^ mix(length ^ kA, kB);
    std::size_t left = length;
    for (; left >= 16; left -= 16, bytes += 16) state = mix(load64(bytes) ^ kA, load64(bytes + 8) ^ state);
    unsigned char tail[16] = {};
    std::memcpy(tail, bytes, left);
    return mix(load64(tail) ^ kB ^ state, load64(tail + 8) ^ kA ^ length);
}

}  // namespace pegaflow::base
