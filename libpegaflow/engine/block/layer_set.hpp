// SPDX-License-Identifier: Apache-2.0
// layer_set.hpp - a set of layer numbers; up to 64 layers take no memory of their own.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace pegaflow::engine {

class LayerSet {
public:
    LayerSet() noexcept = default;
    explicit LayerSet(std::span<const std::uint32_t> numbers) {
        for (const std::uint32_t number : numbers) add(number);
    }

    void add(std::uint32_t number) { word(number / 64) |= std::uint64_t{1} << (number % 64); }
    bool has(std::uint32_t number) const noexcept {
        const std::size_t at = number / 64;
        const std::uint64_t bits = at == 0 ? first_ : at <= rest_.size() ? rest_[at - 1] : 0;
        return (bits >> (number % 64) & 1) != 0;
    }
    bool empty() const noexcept {
        return first_ == 0 && std::all_of(rest_.begin(), rest_.end(), [](std::uint64_t bits) { return bits == 0; });
    }
    std::uint32_t size() const noexcept {
        int count = std::popcount(first_);
        for (const std::uint64_t bits : rest_) count += std::popcount(bits);
        return static_cast<std::uint32_t>(count);
    }

    LayerSet& operator|=(const LayerSet& other) {
        first_ |= other.first_;
        if (rest_.size() < other.rest_.size()) rest_.resize(other.rest_.size());
        for (std::size_t i = 0; i < other.rest_.size(); ++i) rest_[i] |= other.rest_[i];
        return *this;
    }
    // Without what is in `other`.
    LayerSet& operator-=(const LayerSet& other) noexcept {
        first_ &= ~other.first_;
        for (std::size_t i = 0; i < std::min(rest_.size(), other.rest_.size()); ++i) rest_[i] &= ~other.rest_[i];
        return *this;
    }
    friend bool operator==(const LayerSet& a, const LayerSet& b) noexcept {
        const std::size_t both = std::min(a.rest_.size(), b.rest_.size());
        const auto zero = [](std::uint64_t bits) { return bits == 0; };
        return a.first_ == b.first_ &&
               std::equal(a.rest_.begin(), a.rest_.begin() + static_cast<std::ptrdiff_t>(both), b.rest_.begin()) &&
               std::all_of(a.rest_.begin() + static_cast<std::ptrdiff_t>(both), a.rest_.end(), zero) &&
               std::all_of(b.rest_.begin() + static_cast<std::ptrdiff_t>(both), b.rest_.end(), zero);
    }

private:
    std::uint64_t& word(std::size_t at) {
        if (at == 0) return first_;
        if (rest_.size() < at) rest_.resize(at);
        return rest_[at - 1];
    }

    std::uint64_t first_ = 0;          // layers 0 to 63
    std::vector<std::uint64_t> rest_;  // 64 and on
};

}  // namespace pegaflow::engine
