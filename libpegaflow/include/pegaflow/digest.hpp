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

// Bytes that no cache has are asked for ahead, across the bounds of pages, where the processor itself stops asking: memory
// then gives 1.3 to 1.6 times as much.
class DigestAhead {
public:
    DigestAhead(const unsigned char* bytes, std::size_t length) noexcept
        : bytes_(bytes), length_(length), ahead_(length / 2 < kMost ? length / 2 : kMost) {
        for (std::size_t at = 0; at < ahead_ && at < kAtOnce; at += kLine) __builtin_prefetch(bytes + at);
    }
    void passed(std::size_t at) const noexcept {
        if (at + ahead_ < length_) __builtin_prefetch(bytes_ + at + ahead_);
    }

    static constexpr std::size_t kLine = 64;  // bytes, as below

private:
    static constexpr std::size_t kAtOnce = 2048, kMost = 4096;
    const unsigned char* const bytes_;
    const std::size_t length_, ahead_;
};

// The terms of four words.
__attribute__((target("avx2"))) inline __m256i digest_terms(__m256i x) noexcept {
    const __m256i y = _mm256_add_epi64(_mm256_mul_epu32(x, _mm256_srli_epi64(x, 32)), x);
    return _mm256_xor_si256(y, _mm256_srli_epi64(y, 32));
}

// Eight words at a time, in halves.
__attribute__((target("avx2"))) inline std::uint64_t digest_avx2(const unsigned char* bytes, std::size_t words,
                                                                 std::uint64_t key) noexcept {
    constexpr std::uint64_t kG = PEGA_DIGEST_G;
    constexpr std::size_t kLine = DigestAhead::kLine;
    const __m256i step = _mm256_set1_epi64x(std::bit_cast<long long>(8 * kG));
    __m256i key_a = _mm256_add_epi64(
        _mm256_set1_epi64x(std::bit_cast<long long>(key)),
        _mm256_set_epi64x(std::bit_cast<long long>(3 * kG), std::bit_cast<long long>(2 * kG), std::bit_cast<long long>(kG), 0));
    __m256i key_b = _mm256_add_epi64(key_a, _mm256_set1_epi64x(std::bit_cast<long long>(4 * kG)));
    __m256i sum_a = _mm256_setzero_si256();
    __m256i sum_b = sum_a;
    const DigestAhead ahead(bytes, 8 * words);
    std::size_t at = 0;
    for (; at + kLine <= 8 * words; at += kLine) {
        ahead.passed(at);
        const auto* from = reinterpret_cast<const __m256i*>(bytes + at);
        sum_a = _mm256_add_epi64(sum_a, digest_terms(_mm256_add_epi64(_mm256_loadu_si256(from), key_a)));
        sum_b = _mm256_add_epi64(sum_b, digest_terms(_mm256_add_epi64(_mm256_loadu_si256(from + 1), key_b)));
        key_a = _mm256_add_epi64(key_a, step);
        key_b = _mm256_add_epi64(key_b, step);
    }
    alignas(32) std::uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(sum_a, sum_b));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3] + digest_words(bytes + at, words - at / 8, key + at / 8 * kG);
}

// Eight words at a time.
__attribute__((target("avx512f"))) inline std::uint64_t digest_avx512(const unsigned char* bytes, std::size_t words,
                                                                      std::uint64_t key) noexcept {
    constexpr std::uint64_t kG = PEGA_DIGEST_G;
    constexpr std::size_t kLine = DigestAhead::kLine;
    constexpr __mmask8 kAll = 0xFF;  // of some instructions without a mask GCC 12 believes that they read what nobody wrote
    alignas(kLine) static constexpr std::uint64_t kSteps[8] = {0, kG, 2 * kG, 3 * kG, 4 * kG, 5 * kG, 6 * kG, 7 * kG};
    const __m512i step = _mm512_set1_epi64(std::bit_cast<long long>(8 * kG));
    __m512i keys = _mm512_add_epi64(_mm512_set1_epi64(std::bit_cast<long long>(key)), _mm512_load_si512(kSteps));
    __m512i sums = _mm512_setzero_si512();
    const DigestAhead ahead(bytes, 8 * words);
    std::size_t at = 0;
    for (; at + kLine <= 8 * words; at += kLine) {
        ahead.passed(at);
        const __m512i x = _mm512_add_epi64(_mm512_loadu_si512(bytes + at), keys);
        const __m512i y = _mm512_add_epi64(_mm512_maskz_mul_epu32(kAll, x, _mm512_maskz_srli_epi64(kAll, x, 32)), x);
        sums = _mm512_add_epi64(sums, _mm512_xor_si512(y, _mm512_maskz_srli_epi64(kAll, y, 32)));
        keys = _mm512_add_epi64(keys, step);
    }
    alignas(kLine) std::uint64_t lanes[8];
    _mm512_store_si512(lanes, sums);
    std::uint64_t sum = digest_words(bytes + at, words - at / 8, key + at / 8 * kG);
    for (const std::uint64_t lane : lanes) sum += lane;
    return sum;
}

// Processors that have AVX-512 but not this part of it run slower for a while after its first use.
inline bool has_quick_avx512() noexcept { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vbmi2"); }

#endif

}  // namespace detail

// What `length` bytes that begin at byte `place` of a page add to the page's digest; both are multiples of 8. The digest of a
// page is the sum of its parts. The bytes may lie at any address. [data]
inline std::uint64_t digest_part(const void* data, std::size_t length, std::uint64_t place = 0) noexcept {
    const auto* bytes = static_cast<const unsigned char*>(data);
    const std::uint64_t key = (place / 8 + 1) * PEGA_DIGEST_G;
#if defined(__x86_64__)
    if (length >= 256 && detail::has_quick_avx512()) return detail::digest_avx512(bytes, length / 8, key);
    if (length >= 256 && __builtin_cpu_supports("avx2")) return detail::digest_avx2(bytes, length / 8, key);
#endif
    return detail::digest_words(bytes, length / 8, key);
}

}  // namespace pegaflow
