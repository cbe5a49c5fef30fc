// SPDX-License-Identifier: Apache-2.0
// cost_model.hpp - how long a tier will take, from what it took lately: moving averages of latency and bandwidth. Not
// synchronised.
//
// Bandwidth counts only time in which reads were under way, so that an idle tier does not look slow. Reads one after another
// say how fast the tier answers, not how much it could bring: they raise the bandwidth when it was more than expected, and
// lower it only as far as they took longer than its latency explains.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace pegaflow::engine::tier {

class CostModel {
public:
    using Clock = std::chrono::steady_clock;

    // What the back end says of itself, which what is measured moves step by step.
    CostModel(std::uint64_t latency_ns, std::uint64_t bytes_per_second)
        : latency_seconds_(static_cast<double>(latency_ns) * 1e-9), bytes_per_second_(static_cast<double>(bytes_per_second)) {}

    void started(Clock::time_point now) {
        if (in_flight_++ == 0) busy_since_ = now;
    }
    // One read of `bytes` that began at `begun` has ended.
    void ended(std::uint64_t bytes, Clock::time_point begun, Clock::time_point now) {
        const double took = seconds_between(begun, now);
        // The fastest of late is the latency of a device that is not busy; it forgets slowly.
        latency_seconds_ = took < latency_seconds_ ? took : latency_seconds_ * 0.99 + took * 0.01;
        bytes_ += bytes;
        over(took, now);
    }
    // One that failed: it took its time, and brought nothing.
    void failed(Clock::time_point begun, Clock::time_point now) { over(seconds_between(begun, now), now); }

    double latency_seconds() const noexcept { return latency_seconds_; }
    double bytes_per_second() const noexcept { return bytes_per_second_; }
    // Until `bytes` are there that come after `ahead` others.
    double seconds(std::uint64_t bytes, std::uint64_t ahead) const noexcept {
        if (bytes_per_second_ <= 0) return latency_seconds_;
        return latency_seconds_ + static_cast<double>(bytes + ahead) / bytes_per_second_;
    }

private:
    static constexpr double kWindowSeconds = 0.02;
    static constexpr std::uint64_t kWindowBytes = std::uint64_t{16} << 20;
    static constexpr auto kOldWindow = std::chrono::seconds(1);
    // How far one window moves the bandwidth. It has proven what it moved; that it could not have moved more is a guess.
    static constexpr double kUpWeight = 0.5, kDownWeight = 0.25;
    static constexpr double kDeep = 3;         // reads at one time with which a device shows what it can do
    static constexpr double kUnexplained = 2;  // times its latency, and more, is not only how a device answers

    static double seconds_between(Clock::time_point from, Clock::time_point to) {
        return std::chrono::duration<double>(to - from).count();
    }
    void over(double took, Clock::time_point now) {
        took_seconds_ += took;
        ++reads_;
        busy_seconds_ += seconds_between(busy_since_, now);
        busy_since_ = now;
        --in_flight_;
        if (busy_seconds_ < kWindowSeconds && bytes_ < kWindowBytes && now - window_began_ < kOldWindow) return;
        if (bytes_ != 0) learn();
        window_began_ = now;
        bytes_ = reads_ = 0;
        busy_seconds_ = took_seconds_ = 0;
    }
    void learn() {
        const double moved = static_cast<double>(bytes_) / std::max(busy_seconds_, 1e-9);
        if (bytes_per_second_ <= 0) bytes_per_second_ = moved;
        const double before = bytes_per_second_;
        // Of each read's time, the share in which it waited for others, or for a device that is slower than it was.
        const double mean = took_seconds_ / static_cast<double>(reads_);
        const double waited = took_seconds_ >= kDeep * busy_seconds_   ? 1
                              : mean > kUnexplained * latency_seconds_ ? 1 - latency_seconds_ / mean
                                                                       : 0;
        const double target = moved >= before ? moved : std::min(before, waited > 0 ? moved / waited : before);
        // A window that was cut short says less of what could not have been moved.
        const double evidence = std::max(busy_seconds_ / kWindowSeconds, static_cast<double>(bytes_) / kWindowBytes);
        const double weight = target > before ? kUpWeight : kDownWeight * std::min(1.0, evidence);
        bytes_per_second_ = before * std::pow(target / before, weight);
    }

    double latency_seconds_;
    double bytes_per_second_;
    std::uint64_t in_flight_ = 0;
    Clock::time_point busy_since_{};
    // Of the window.
    Clock::time_point window_began_{};
    std::uint64_t bytes_ = 0, reads_ = 0;
    double busy_seconds_ = 0, took_seconds_ = 0;  // with any read under way; of all reads
};

}  // namespace pegaflow::engine::tier
