// SPDX-License-Identifier: Apache-2.0
// small_array.hpp - an array that grows, whose first element takes no memory of its own: most blocks have one page.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace pegaflow::engine {

template <class T>
class SmallArray {
public:
    SmallArray() noexcept = default;
    SmallArray(SmallArray&& other) noexcept
        : one_(std::move(other.one_)),
          many_(std::move(other.many_)),
          size_(std::exchange(other.size_, 0)),
          capacity_(std::exchange(other.capacity_, 0)) {}
    SmallArray& operator=(SmallArray other) noexcept {
        std::swap(one_, other.one_);
        std::swap(many_, other.many_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    SmallArray(const SmallArray&) = delete;

    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T* begin() noexcept { return many_ ? many_.get() : &one_; }
    T* end() noexcept { return begin() + size_; }
    const T* begin() const noexcept { return many_ ? many_.get() : &one_; }
    const T* end() const noexcept { return begin() + size_; }
    T& operator[](std::size_t i) noexcept { return begin()[i]; }
    const T& operator[](std::size_t i) const noexcept { return begin()[i]; }

    void clear() noexcept {
        many_.reset();
        one_ = T();
        size_ = capacity_ = 0;
    }
    // New elements are T().
    void resize(std::size_t count) {
        reserve(count);
        for (; size_ < count; ++size_) (*this)[size_] = T();
        size_ = static_cast<std::uint32_t>(count);
    }
    void assign(std::span<const T> values) {
        resize(values.size());
        std::copy(values.begin(), values.end(), begin());
    }
    void push_back(T value) {
        if (size_ > 0 && size_ >= capacity_) reserve(size_ * 2);
        (*this)[size_++] = std::move(value);
    }

private:
    void reserve(std::size_t count) {
        if (count <= 1 || count <= capacity_) return;
        auto more = std::make_unique<T[]>(count);
        for (std::size_t i = 0; i < size_; ++i) more[i] = std::move((*this)[i]);
        many_ = std::move(more);
        capacity_ = static_cast<std::uint32_t>(count);
    }

    T one_{};
    std::unique_ptr<T[]> many_;  // instead of one_, when there have been more
    std::uint32_t size_ = 0;
    std::uint32_t capacity_ = 0;  // of many_
};

}  // namespace pegaflow::engine
