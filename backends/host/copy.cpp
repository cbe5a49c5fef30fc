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

constexpr std::size_t kDigestBytes = 16 << 10;  // digested, then copied while the first-level cache has them

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

using StreamFunction = void (*)(std::uint8_t*, const std::uint8_t*, std::size_t);

StreamFunction choose() noexcept {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return &stream_avx512;
    if (__builtin_cpu_supports("avx2")) return &stream_avx2;
    return nullptr;
}

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
    // A copy onto a part of itself is one move.
    const bool apart = to + length <= from || from + length <= to;
    const std::size_t step = apart ? kDigestBytes : length;
    std::uint64_t sum = 0;
    for (std::size_t at = 0; at < length; at += step) {
        const std::size_t part = std::min(step, length - at);
        sum += pegaflow::digest_part(from + at, part, place + at);
        copy(to + at, from + at, part, streaming);
    }
    return sum;
}

}  // namespace host_backend
