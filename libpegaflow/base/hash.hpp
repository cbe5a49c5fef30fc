// SPDX-License-Identifier: Apache-2.0
// hash.hpp - a fast 64-bit hash of short byte strings for tables in memory; its values are never stored or sent.
//
// Content hashes come from clients, who must not be able to choose such that all land in one place: a word that makes a factor
// zero hides the other one. Every word is mixed with a random one of the process first, so that no client knows what it would
// be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pegaflow::base {

struct HashKey {
    std::uint64_t words[4];
};
extern const HashKey kHashKey;  // drawn before main

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

// Another one in every process. [data]
inline std::uint64_t hash_bytes(const void* data, std::size_t length, std::uint64_t seed) noexcept {
    const auto& [a, b, c, d] = kHashKey.words;
    const auto* bytes = static_cast<const unsigned char*>(data);
    if (length == 32) {  // of most content hashes: two halves side by side
        const std::uint64_t first = mix(load64(bytes) ^ a, load64(bytes + 8) ^ b ^ seed);
        const std::uint64_t second = mix(load64(bytes + 16) ^ c, load64(bytes + 24) ^ d ^ seed);
        return mix(first ^ c, second ^ a);
    }
    std::uint64_t state = mix(length ^ a, seed ^ b);
    std::size_t left = length;
    for (; left >= 16; left -= 16, bytes += 16) state = mix(load64(bytes) ^ c, load64(bytes + 8) ^ state);
    unsigned char tail[16] = {};
    std::memcpy(tail, bytes, left);
    // Numbers in a row times one random word would not always spread: the product is mixed once more.
    return mix(mix(load64(tail) ^ d ^ state, load64(tail + 8) ^ a ^ length) ^ b, c ^ length);
}

}  // namespace pegaflow::base
