// SPDX-License-Identifier: Apache-2.0
// write_budget.hpp - how many bytes a day may be written to the devices, so that they last: a bucket that fills evenly.
//
// In any 24 hours at most `bytes_per_day` and one burst are granted. A burst is an hour's share, or 256 MiB when that is more,
// but never more than a day's share. What was granted and not written is given back. Not synchronised.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <utility>

#include "engine/tier/write_history.hpp"

namespace pegaflow::engine::tier {

class WriteBudget {
public:
    using Clock = std::chrono::steady_clock;

    // 0 bytes a day is no limit. The bucket is full at `now`.
    WriteBudget(std::uint64_t bytes_per_day, Clock::time_point now)
        : per_day_(bytes_per_day), burst_(std::min(bytes_per_day, std::max(bytes_per_day / 24, kLeastBurst))), then_(now) {
        available_ = static_cast<double>(burst_);
    }

    // What is left of the bucket after what was written before this program started: `written`, in order of time, of which
    // nothing came later than it says; `whole` when nothing was written before the first of it.
    void restore(std::span<const WriteHistory::Written> written, bool whole, std::uint64_t now_seconds) {
        if (written.empty()) return;
        available_ = whole ? static_cast<double>(burst_) : 0;
        std::uint64_t when = written.front().seconds;
        for (const WriteHistory::Written& part : written) {
            fill(static_cast<double>(part.seconds - std::exchange(when, part.seconds)));
            // It was never less than empty: some of this was written earlier, while the bucket filled.
            available_ = std::max(0.0, available_ - static_cast<double>(part.bytes));
        }
        fill(static_cast<double>(now_seconds - when));
    }

    std::uint64_t bytes_per_day() const noexcept { return per_day_; }
    std::uint64_t burst() const noexcept { return burst_; }
    // Takes `bytes` when they are there. A block larger than a burst is granted when the bucket is full.
    bool take(std::uint64_t bytes, Clock::time_point now) {
        if (per_day_ == 0) return true;
        fill(std::chrono::duration<double>(now - std::exchange(then_, now)).count());
        if (available_ < static_cast<double>(std::min(bytes, burst_))) return false;
        available_ -= static_cast<double>(bytes);
        return true;
    }

    // Of what was granted, so much will not be written.
    void give_back(std::uint64_t bytes) {
        available_ = std::min(static_cast<double>(burst_), available_ + static_cast<double>(bytes));
    }

private:
    static constexpr double kSecondsPerDay = 86'400;
    static constexpr std::uint64_t kLeastBurst = std::uint64_t{256} << 20;

    void fill(double seconds) {
        available_ =
            std::min(static_cast<double>(burst_), available_ + seconds * static_cast<double>(per_day_) / kSecondsPerDay);
    }

    std::uint64_t per_day_;
    std::uint64_t burst_;
    double available_ = 0;
    Clock::time_point then_;
};

}  // namespace pegaflow::engine::tier
