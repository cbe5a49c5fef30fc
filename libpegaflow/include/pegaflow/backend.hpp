// SPDX-License-Identifier: Apache-2.0
// backend.hpp - header-only helpers for authors of back ends: checks every back end needs, written once.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "pegaflow/abi/backend.h"

namespace pegaflow::backend {

// Writes a formatted line to the host's log, at most 511 characters. [any]
[[gnu::format(printf, 4, 5)]] inline void log(const pega_host* host, std::uint32_t level, const char* module,
                                              const char* format, ...) {
    if (host == nullptr || host->log == nullptr) return;
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    host->log(host->context, level, module, line);
}

// The value of an option, or `fallback`. The result is borrowed from `options`. [any]
inline const char* option(const pega_option* options, std::uint32_t count, const char* key, const char* fallback) {
    for (std::uint32_t i = 0; i < count; ++i) {
        if (std::strcmp(options[i].key, key) == 0) return options[i].value;
    }
    return fallback;
}

// The size that a caller's struct has at least: that of 1.0, whose last member stands here. A back end that is compiled against
// larger headers still serves callers that were not.
// NOLINTBEGIN(bugprone-sizeof-expression): a member that is a pointer counts as one.
template <class T>
inline constexpr std::uint32_t kFirstSize = 0;
template <>
inline constexpr std::uint32_t kFirstSize<pega_open_params> = PEGA_SIZE_TO(pega_open_params, options);
template <>
inline constexpr std::uint32_t kFirstSize<pega_channel_params> = PEGA_SIZE_TO(pega_channel_params, reserved);
template <>
inline constexpr std::uint32_t kFirstSize<pega_memory> = PEGA_SIZE_TO(pega_memory, handle_length);
template <>
inline constexpr std::uint32_t kFirstSize<pega_batch> = PEGA_SIZE_TO(pega_batch, options);
template <>
inline constexpr std::uint32_t kFirstSize<pega_span> = PEGA_SIZE_TO(pega_span, reserved);
// NOLINTEND(bugprone-sizeof-expression)

// True when a struct that came in has all members of 1.0. [data]
template <class T>
bool whole(const T& in) noexcept {
    return in.size >= kFirstSize<T>;
}

// A copy of a struct that came in, as far as both sides know it: `size` says how far that is, and the rest is zero. [data]
template <class T>
T copy_in(const T& in) noexcept {
    T out{};
    const std::uint32_t size = in.size < sizeof(T) ? in.size : static_cast<std::uint32_t>(sizeof(T));
    std::memcpy(&out, &in, size);
    out.size = size;
    return out;
}

// Fills the caller's struct with as much of `value` as its size says it can take; for growing output structs. [any]
template <class T>
void copy_out(T* out, const T& value) {
    const std::uint32_t size = out->size < sizeof(T) ? out->size : static_cast<std::uint32_t>(sizeof(T));
    std::memcpy(out, &value, size);
    out->size = size;
}

// Gives `size` bytes to a caller who may have asked for their number only: how addresses and descriptors are told. OK, INVALID
// (no length, or no room for the bytes), NO_MEMORY (the capacity is too small). [any]
inline pega_status give_bytes(const void* from, std::uint64_t size, void* bytes, std::uint64_t capacity,
                              std::uint64_t* length) noexcept {
    if (length == nullptr || (bytes == nullptr && capacity != 0)) return PEGA_INVALID;
    *length = size;
    if (capacity < size) return PEGA_NO_MEMORY;
    std::memcpy(bytes, from, size);
    return PEGA_OK;
}

// True when [offset, offset + length) lies within `limit` bytes, without overflow. [any]
inline bool in_range(std::uint64_t offset, std::uint64_t length, std::uint64_t limit) noexcept {
    return length <= limit && offset <= limit - length;
}

// Element i of an array whose elements have the caller's size, not ours. [any]
inline const pega_span& span_at(const pega_batch& batch, std::uint64_t i) noexcept {
    const auto* bytes = reinterpret_cast<const unsigned char*>(batch.spans);
    return *reinterpret_cast<const pega_span*>(bytes + i * batch.span_size);
}

// The option of this kind in the batch's chain, or null. [data]
inline const pega_batch_option* find_option(const pega_batch& batch, std::uint32_t kind) noexcept {
    for (const pega_batch_option* o = batch.options; o != nullptr; o = o->next) {
        if (o->kind == kind) return o;
    }
    return nullptr;
}

// One side of a span: base + index * stride + segment * segment_stride, with the largest index used.
struct SpanSide {
    std::uint64_t base, stride, segment_stride;
};

// True when every page that a side of a span can address lies within `limit` bytes. Overflow counts as outside. [data]
inline bool side_in_range(const SpanSide& side, std::uint64_t max_index, std::uint32_t segments, std::uint64_t page_bytes,
                          std::uint64_t limit) noexcept {
    std::uint64_t pages = 0;
    std::uint64_t within = 0;
    std::uint64_t end = 0;
    if (__builtin_mul_overflow(max_index, side.stride, &pages)) return false;
    if (__builtin_mul_overflow(static_cast<std::uint64_t>(segments - 1), side.segment_stride, &within)) return false;
    if (__builtin_add_overflow(side.base, pages, &end)) return false;
    if (__builtin_add_overflow(end, within, &end)) return false;
    return in_range(end, page_bytes, limit);
}

}  // namespace pegaflow::backend
