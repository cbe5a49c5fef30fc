// SPDX-License-Identifier: Apache-2.0
#include "copy.hpp"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "pegaflow/digest.hpp"

namespace host_backend {
namespace {

constexpr std::size_t kDigestBytes = 16 << 10;  // digested, then copied, where one pass does not do both
[[maybe_unused]] constexpr std::size_t kGroup = 64;

// Below this a streaming copy loses more at its edges than it gains.
[[maybe_unused]] constexpr std::size_t kMinStreaming = 4096;

#if defined(__x86_64__)

template <std::size_t kWidth, class Store>
void stream_with(std::uint8_t* destination, const std::uint8_t* source, std::size_t length, Store store) {
    const std::size_t misaligned = (kWidth - reinterpret_cast<std::uintptr_t>(destination) % kWidth) % kWidth;
    std::memcpy(destination, source, misaligned);
    std::size_t i = misaligned;
    for (; i + kWidth <= length; i += kWidth) store(destination + i, source + i);
    std::memcpy(destination + i, source + i, length - i);
    _mm_sfence();
}

__attribute__((target("avx2"))) void stream_avx2(std::uint8_t* destination, const std::uint8_t* source, std::size_t length) {
    stream_with<32>(destination, source, length, [](std::uint8_t* d, const std::uint8_t* s) __attribute__((target("avx2"))) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(d), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(s)));
    });
}

__attribute__((target("avx512f"))) void stream_avx512(std::uint8_t* destination, const std::uint8_t* source,
                                                      std::size_t length) {
    stream_with<64>(destination, source, length, [](std::uint8_t* d, const std::uint8_t* s) __attribute__((target("avx512f"))) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(d), _mm512_loadu_si512(reinterpret_cast<const void*>(s)));
    });
}

// Copies and digests whole groups of 64 bytes in one pass: the arithmetic runs while memory is waited for.
template <class Store>
__attribute__((target("avx2"), always_inline)) inline std::uint64_t digested_groups(std::uint8_t* to, const std::uint8_t* from,
                                                                                    std::size_t groups, std::uint64_t place,
                                                                                    Store store) {
    constexpr std::uint64_t kG = PEGA_DIGEST_G;
    const __m256i step = _mm256_set1_epi64x(std::bit_cast<long long>(8 * kG));
    __m256i key_a = _mm256_add_epi64(
        _mm256_set1_epi64x(std::bit_cast<long long>((place / 8 + 1) * kG)),
        _mm256_set_epi64x(std::bit_cast<long long>(3 * kG), std::bit_cast<long long>(2 * kG), std::bit_cast<long long>(kG), 0));
    __m256i key_b = _mm256_add_epi64(key_a, _mm256_set1_epi64x(std::bit_cast<long long>(4 * kG)));
    __m256i sum_a = _mm256_setzero_si256();
    __m256i sum_b = sum_a;
    for (std::size_t i = 0; i < groups; ++i, from += kGroup, to += kGroup) {
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + 1);
        store(reinterpret_cast<__m256i*>(to), a);
        store(reinterpret_cast<__m256i*>(to) + 1, b);
        sum_a = _mm256_add_epi64(sum_a, pegaflow::detail::digest_terms(_mm256_add_epi64(a, key_a)));
        sum_b = _mm256_add_epi64(sum_b, pegaflow::detail::digest_terms(_mm256_add_epi64(b, key_b)));
        key_a = _mm256_add_epi64(key_a, step);
        key_b = _mm256_add_epi64(key_b, step);
    }
    alignas(32) std::uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(sum_a, sum_b));
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

__attribute__((target("avx2"))) std::uint64_t store_groups(std::uint8_t* to, const std::uint8_t* from, std::size_t groups,
                                                           std::uint64_t place) {
    return digested_groups(to, from, groups, place,
                           [](__m256i* at, __m256i v) __attribute__((target("avx2"))) { _mm256_storeu_si256(at, v); });
}

__attribute__((target("avx2"))) std::uint64_t stream_groups(std::uint8_t* to, const std::uint8_t* from, std::size_t groups,
                                                            std::uint64_t place) {
    const std::uint64_t sum = digested_groups(
        to, from, groups, place, [](__m256i* at, __m256i v) __attribute__((target("avx2"))) { _mm256_stream_si256(at, v); });
    _mm_sfence();
    return sum;
}

// From the start on what whole groups there are; returns how many bytes.
std::size_t copy_groups(std::uint8_t* to, const std::uint8_t* from, std::size_t length, std::uint64_t place, bool streaming,
                        std::uint64_t& sum) {
    static const bool avx2 = __builtin_cpu_supports("avx2");
    if (!avx2) return 0;
    std::size_t at = 0;
    streaming = streaming && length >= kMinStreaming && reinterpret_cast<std::uintptr_t>(to) % 8 == 0;
    if (streaming) {
        at = (kGroup - reinterpret_cast<std::uintptr_t>(to) % kGroup) % kGroup;
        sum += pegaflow::digest_part(from, at, place);
        std::memcpy(to, from, at);
    }
    const std::size_t groups = (length - at) / kGroup;
    sum += (streaming ? stream_groups : store_groups)(to + at, from + at, groups, place + at);
    return at + groups * kGroup;
}

using StreamFunction = void (*)(std::uint8_t*, const std::uint8_t*, std::size_t);

StreamFunction choose() noexcept {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return &stream_avx512;
    if (__builtin_cpu_supports("avx2")) return &stream_avx2;
    return nullptr;
}

#else

std::size_t copy_groups(std::uint8_t*, const std::uint8_t*, std::size_t, std::uint64_t, bool, std::uint64_t&) { return 0; }

#endif

}  // namespace

void copy(void* destination, const void* source, std::size_t length, bool streaming) noexcept {
#if defined(__x86_64__)
    static const StreamFunction stream = choose();
    if (streaming && length >= kMinStreaming && stream != nullptr) {
        return stream(static_cast<std::uint8_t*>(destination), static_cast<const std::uint8_t*>(source), length);
    }
#endif
    (void)streaming;
    std::memmove(destination, source, length);
}

std::uint64_t copy_digested(void* destination, const void* source, std::size_t length, std::uint64_t place,
                            bool streaming) noexcept {
    auto* to = static_cast<std::uint8_t*>(destination);
    const auto* from = static_cast<const std::uint8_t*>(source);
    std::uint64_t sum = 0;
    if (to + length > from && from + length > to) {  // a copy onto a part of itself is one move
        sum = pegaflow::digest_part(from, length, place);
        copy(to, from, length, streaming);
        return sum;
    }
    for (std::size_t at = copy_groups(to, from, length, place, streaming, sum); at < length; at += kDigestBytes) {
        const std::size_t part = std::min(kDigestBytes, length - at);
        sum += pegaflow::digest_part(from + at, part, place + at);
        std::memcpy(to + at, from + at, part);
    }
    return sum;
}

}  // namespace host_backend
