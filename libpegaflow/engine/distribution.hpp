// SPDX-License-Identifier: Apache-2.0
// distribution.hpp - how many values fell below each of some bounds: added to from any thread, read at a scrape.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "pegaflow/engine.hpp"

namespace pegaflow::engine {

template <std::size_t kBounds>
class DistributionCounter {
public:
    // `bounds` ascend and live as long as this.
    explicit constexpr DistributionCounter(const std::array<double, kBounds>& bounds) noexcept : bounds_(bounds) {}

    // Values that come together cost the shared counters no more than one.
    class Batch {
    public:
        explicit Batch(DistributionCounter& to) noexcept : to_(to) {}
        Batch(const Batch&) = delete;
        ~Batch() {
            for (std::size_t i = 0; i <= kBounds; ++i) {
                if (counts_[i] != 0) to_.counts_[i].fetch_add(counts_[i], std::memory_order_relaxed);
            }
            if (sum_ != 0) to_.sum_.fetch_add(sum_, std::memory_order_relaxed);
        }
        void add(double value) noexcept {
            const auto bound = std::lower_bound(to_.bounds_.begin(), to_.bounds_.end(), value);
            ++counts_[static_cast<std::size_t>(bound - to_.bounds_.begin())];
            sum_ += value;
        }

    private:
        DistributionCounter& to_;
        std::array<std::uint64_t, kBounds + 1> counts_{};
        double sum_ = 0;
    };

    void add(double value) noexcept { Batch(*this).add(value); }
    Distribution read() const {
        Distribution out{bounds_, std::vector<std::uint64_t>(kBounds + 1), sum_.load(std::memory_order_relaxed)};
        for (std::size_t i = 0; i <= kBounds; ++i) out.counts[i] = counts_[i].load(std::memory_order_relaxed);
        return out;
    }

private:
    const std::array<double, kBounds>& bounds_;
    std::array<std::atomic<std::uint64_t>, kBounds + 1> counts_{};  // the last: above all bounds
    std::atomic<double> sum_{0};
};

// Seconds that a block stayed in the pool.
inline constexpr std::array<double, 14> kResidenceBounds = {1,   5,    10,   30,   60,    120,   300,
                                                            600, 1800, 3600, 7200, 21600, 43200, 86400};
// Bytes per second of one transfer of the tier.
inline constexpr std::array<double, 14> kRateBounds = {1e8, 2.5e8, 5e8, 1e9, 1.5e9, 2e9,  3e9,
                                                       4e9, 5e9,   6e9, 8e9, 10e9,  15e9, 20e9};

using ResidenceCounter = DistributionCounter<kResidenceBounds.size()>;
using RateCounter = DistributionCounter<kRateBounds.size()>;

}  // namespace pegaflow::engine
