// SPDX-License-Identifier: Apache-2.0
// wire.hpp - little-endian numbers in and out of byte ranges, one by one: nothing on a device depends on how a struct is laid
// out.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace pegaflow::engine::tier {

template <class T>
T load_le(const std::byte* at) noexcept {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(static_cast<T>(std::to_integer<T>(at[i])) << (8 * i));
    return value;
}

template <class T>
void store_le(std::byte* at, T value) noexcept {
    for (std::size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<std::byte>((value >> (8 * i)) & 0xff);
}

// Appends to a fixed range; once something did not fit, `ok` stays false and nothing more is written.
class Encoder {
public:
    explicit Encoder(std::span<std::byte> out) noexcept : out_(out) {}

    template <class T>
    Encoder& number(T value) noexcept {
        if (room(sizeof(T))) store_le(out_.data() + at_ - sizeof(T), value);
        return *this;
    }
    Encoder& bytes(std::string_view text) noexcept {
        if (room(text.size())) std::memcpy(out_.data() + at_ - text.size(), text.data(), text.size());
        return *this;
    }
    bool ok() const noexcept { return ok_; }
    std::size_t size() const noexcept { return at_; }

private:
    bool room(std::size_t length) noexcept {
        ok_ = ok_ && length <= out_.size() - at_;
        if (ok_) at_ += length;
        return ok_;
    }
    std::span<std::byte> out_;
    std::size_t at_ = 0;
    bool ok_ = true;
};

// Takes from a range; once something was missing, `ok` stays false and zeros come.
class Decoder {
public:
    explicit Decoder(std::span<const std::byte> in) noexcept : in_(in) {}

    template <class T>
    T number() noexcept {
        return room(sizeof(T)) ? load_le<T>(in_.data() + at_ - sizeof(T)) : T{0};
    }
    std::string_view bytes(std::size_t length) noexcept {
        if (!room(length)) return {};
        return {reinterpret_cast<const char*>(in_.data() + at_ - length), length};
    }
    bool ok() const noexcept { return ok_; }
    std::size_t left() const noexcept { return in_.size() - at_; }

private:
    bool room(std::size_t length) noexcept {
        ok_ = ok_ && length <= in_.size() - at_;
        if (ok_) at_ += length;
        return ok_;
    }
    std::span<const std::byte> in_;
    std::size_t at_ = 0;
    bool ok_ = true;
};

}  // namespace pegaflow::engine::tier
