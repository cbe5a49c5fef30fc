// SPDX-License-Identifier: Apache-2.0
// write_budget.hpp - how many bytes a day may be written to the devices, so that they last: a bucket that fills evenly.
//
// In any 24 hours at most `bytes_per_day` and one burst are granted. A burst is an hour's share, or 256 MiB when that is more,
// but never more than a day's share. Not synchronised.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace pegaflow::engine::tier {

class WriteBudget {
public:
    using Clock = std::chrono::steady_clock;

    // 0 bytes a day is no limit. The bucket is full at `now`.
    WriteBudget(std::uint64_t bytes_per_day, Clock::time_point now)
        : per_day_(bytes_per_day), burst_(std::min(bytes_per_day, std::max(bytes_per_day / 24, kLeastBurst))), then_(now) {
        available_ = static_cast<double>(burst_);
    }

    std::uint64_t bytes_per_day() const noexcept { return per_day_; }
    std::uint64_t burst() const noexcept { return burst_; }
    // Takes `bytes` when they are there. A block larger than a burst is granted when the bucket is full.
    bool take(std::uint64_t bytes, Clock::time_point now) {
        if (per_day_ == 0) return true;
        const std::chrono::duration<double> passed = now - then_;
        then_ = now;
        available_ =
            std::min(static_cast<double>(burst_), available_ + passed.count() * static_cast<double>(per_day_) / kSecondsPerDay);
        if (available_ < static_cast<double>(std::min(bytes, burst_))) return false;
        available_ -= static_cast<double>(bytes);
        return true;
    }

private:
    static constexpr double kSecondsPerDay = 86'400;
    static constexpr std::uint64_t kLeastBurst = std::uint64_t{256} << 20;

    std::uint64_t per_day_;
    std::uint64_t burst_;
    double available_ = 0;
    Clock::time_point then_;
};

}  // namespace pegaflow::engine::tier
