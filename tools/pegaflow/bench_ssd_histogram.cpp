// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>

#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {

void Histogram::add(std::uint64_t value) noexcept {
    const auto high = static_cast<unsigned>(std::bit_width(value | ((1U << kStepBits) - 1))) - 1;
    const unsigned shift = high < kStepBits ? 0 : high - kStepBits + 1;
    const std::size_t index = (static_cast<std::size_t>(shift) << (kStepBits - 1)) + (value >> shift);
    ++counts_[std::min(index, counts_.size() - 1)];
    ++count_;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
    sum_ += static_cast<double>(value);
    squares_ += static_cast<double>(value) * static_cast<double>(value);
}

void Histogram::merge(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    min_ = std::min(min_, other.min_);
    max_ = std::max(max_, other.max_);
    sum_ += other.sum_;
    squares_ += other.squares_;
}

double Histogram::percentile_us(double p) const noexcept {
    const auto rank = static_cast<std::uint64_t>(p * static_cast<double>(count_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
        seen += counts_[i];
        if (seen <= rank && i + 1 < counts_.size()) continue;
        constexpr std::size_t kHalf = std::size_t{1} << (kStepBits - 1);
        const std::size_t shift = i < 2 * kHalf ? 0 : i / kHalf - 1;
        const std::uint64_t value = static_cast<std::uint64_t>(i - shift * kHalf) << shift;
        return static_cast<double>(std::clamp(value, min_, max_)) / 1e3;
    }
    return max_us();
}

double Histogram::mean_us() const noexcept { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_) / 1e3; }

double Histogram::stddev_us() const noexcept {
    if (count_ < 2) return 0;
    const double n = static_cast<double>(count_);
    return std::sqrt(std::max(0.0, squares_ / n - (sum_ / n) * (sum_ / n))) / 1e3;
}

}  // namespace pegaflow::cli::ssd
