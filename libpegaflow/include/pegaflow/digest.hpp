// SPDX-License-Identifier: Apache-2.0
// digest.hpp - the digest of pages (abi/ext/digest.h) on a processor. Header-only: back ends and tools need no library for it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "pegaflow/abi/ext/digest.h"

namespace pegaflow {
namespace detail {

inline std::uint64_t digest_words(const unsigned char* bytes, std::size_t words, std::uint64_t key) noexcept {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < words; ++i, key += PEGA_DIGEST_G) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes + 8 * i, 8);
        const std::uint64_t x = word + key;
        const std::uint64_t y = (x & 0xffffffffU) * (x >> 32) + x;
        sum += y ^ (y >> 32);
    }
    return sum;
}

#if defined(__x86_64__)

// The terms of four words.
__attribute__((target("avx2"))) inline __m256i digest_terms(__m256i x) noexcept {
    const __m256i y = _mm256_add_epi64(_mm256_mul_epu32(x, _mm256_srli_epi64(x, 32)), x);
    return _mm256_xor_si256(y, _mm256_srli_epi64(y, 32));
}

// Eight words at a time.
__attribute__((target("avx2"))) inline std::uint64_t digest_avx2(const unsigned char* bytes, std::size_t words,
                                                                 std::uint64_t key) noexcept {
    constexpr std::uint64_t kG = PEGA_DIGEST_G;
    const __m256i step = _mm256_set1_epi64x(std::bit_cast<long long>(8 * kG));
    __m256i key_a = _mm256_add_epi64(
        _mm256_set1_epi64x(std::bit_cast<long long>(key)),
        _mm256_set_epi64x(std::bit_cast<long long>(3 * kG), std::bit_cast<long long>(2 * kG), std::bit_cast<long long>(kG), 0));
    __m256i key_b = _mm256_add_epi64(key_a, _mm256_set1_epi64x(std::bit_cast<long long>(4 * kG)));
    __m256i sum_a = _mm256_setzero_si256();
    __m256i sum_b = sum_a;
    std::size_t i = 0;
    for (; i + 8 <= words; i += 8) {
        const auto* from = reinterpret_cast<const __m256i*>(bytes + 8 * i);
        sum_a = _mm256_add_epi64(sum_a, digest_terms(_mm256_add_epi64(_mm256_loadu_si256(from), key_a)));
        sum_b = _mm256_add_epi64(sum_b, digest_terms(_mm256_add_epi64(_mm256_loadu_si256(from + 1), key_b)));
        key_a = _mm256_add_epi64(key_a, step);
        key_b = _mm256_add_epi64(key_b, step);
    }
    alignas(32) std::uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(sum_a, sum_b));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3] + digest_words(bytes + 8 * i, words - i, key + i * kG);
}

#endif

}  // namespace detail

// What `length` bytes that begin at byte `place` of a page add to the page's digest; both are multiples of 8. The digest of a
// page is the sum of its parts. The bytes may lie at any address. [data]
inline std::uint64_t digest_part(const void* data, std::size_t length, std::uint64_t place = 0) noexcept {
    const auto* bytes = static_cast<const unsigned char*>(data);
    const std::uint64_t key = (place / 8 + 1) * PEGA_DIGEST_G;
#if defined(__x86_64__)
    if (length >= 256 && __builtin_cpu_supports("avx2")) return detail::digest_avx2(bytes, length / 8, key);
#endif
    return detail::digest_words(bytes, length / 8, key);
}

}  // namespace pegaflow
