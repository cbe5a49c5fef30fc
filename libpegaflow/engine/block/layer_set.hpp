// SPDX-License-Identifier: Apache-2.0
// layer_set.hpp - a set of layer numbers, in two words; up to 64 layers take no memory of their own.
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace pegaflow::engine {

class LayerSet {
public:
    LayerSet() noexcept = default;
    LayerSet(const LayerSet& other)
        : first_(other.first_), rest_(other.rest_ ? std::make_unique<Words>(*other.rest_) : nullptr) {}
    LayerSet(LayerSet&& other) noexcept = default;
    LayerSet& operator=(LayerSet other) noexcept {
        std::swap(first_, other.first_);
        std::swap(rest_, other.rest_);
        return *this;
    }
    ~LayerSet() = default;
    explicit LayerSet(std::span<const std::uint32_t> numbers) {
        for (const std::uint32_t number : numbers) add(number);
    }

    void add(std::uint32_t number) { word(number / 64) |= std::uint64_t{1} << (number % 64); }
    bool has(std::uint32_t number) const noexcept {
        const std::size_t at = number / 64;
        const auto words = rest();
        const std::uint64_t bits = at == 0 ? first_ : at <= words.size() ? words[at - 1] : 0;
        return (bits >> (number % 64) & 1) != 0;
    }
    bool empty() const noexcept {
        return first_ == 0 && std::ranges::all_of(rest(), [](std::uint64_t bits) { return bits == 0; });
    }
    std::uint32_t size() const noexcept {
        int count = std::popcount(first_);
        for (const std::uint64_t bits : rest()) count += std::popcount(bits);
        return static_cast<std::uint32_t>(count);
    }

    LayerSet& operator|=(const LayerSet& other) {
        first_ |= other.first_;
        const auto words = other.rest();
        for (std::size_t i = 0; i < words.size(); ++i) word(i + 1) |= words[i];
        return *this;
    }
    // Without what is in `other`.
    LayerSet& operator-=(const LayerSet& other) noexcept {
        first_ &= ~other.first_;
        const auto words = other.rest();
        for (std::size_t i = 0; i < std::min(rest().size(), words.size()); ++i) (*rest_)[i] &= ~words[i];
        return *this;
    }
    friend bool operator==(const LayerSet& a, const LayerSet& b) noexcept {
        const auto left = a.rest(), right = b.rest();
        const std::size_t both = std::min(left.size(), right.size());
        const auto zero = [](std::uint64_t bits) { return bits == 0; };
        return a.first_ == b.first_ && std::ranges::equal(left.first(both), right.first(both)) &&
               std::ranges::all_of(left.subspan(both), zero) && std::ranges::all_of(right.subspan(both), zero);
    }

    // Some order, in which equal sets are equal.
    friend std::strong_ordering operator<=>(const LayerSet& a, const LayerSet& b) noexcept {
        if (a.first_ != b.first_) return a.first_ <=> b.first_;
        const auto left = a.rest(), right = b.rest();
        for (std::size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
            const std::uint64_t x = i < left.size() ? left[i] : 0, y = i < right.size() ? right[i] : 0;
            if (x != y) return x <=> y;
        }
        return std::strong_ordering::equal;
    }

private:
    using Words = std::vector<std::uint64_t>;

    std::span<const std::uint64_t> rest() const noexcept { return rest_ ? std::span(*rest_) : std::span<std::uint64_t>(); }
    std::uint64_t& word(std::size_t at) {
        if (at == 0) return first_;
        if (!rest_) rest_ = std::make_unique<Words>();
        if (rest_->size() < at) rest_->resize(at);
        return (*rest_)[at - 1];
    }

    std::uint64_t first_ = 0;      // layers 0 to 63
    std::unique_ptr<Words> rest_;  // 64 and on
};

}  // namespace pegaflow::engine
