// SPDX-License-Identifier: Apache-2.0
// cost_model.hpp - how long a tier will take, from what it took lately: moving averages of latency and bandwidth. Not
// synchronised.
//
// Bandwidth counts only time in which reads were under way, so that an idle tier does not look slow.
#pragma once

#include <chrono>
#include <cstdint>

namespace pegaflow::engine::tier {

class CostModel {
public:
    using Clock = std::chrono::steady_clock;

    // What the back end says of itself, until something was measured.
    CostModel(std::uint64_t latency_ns, std::uint64_t bytes_per_second)
        : latency_seconds_(static_cast<double>(latency_ns) * 1e-9), bytes_per_second_(static_cast<double>(bytes_per_second)) {}

    void started(Clock::time_point now) {
        if (in_flight_++ == 0) busy_since_ = now;
    }
    // One read of `bytes` that began at `begun` has ended.
    void ended(std::uint64_t bytes, Clock::time_point begun, Clock::time_point now) {
        const std::chrono::duration<double> took = now - begun;
        // The fastest of late is the latency of a device that is not busy; it forgets slowly.
        latency_seconds_ = took.count() < latency_seconds_ ? took.count() : latency_seconds_ * 0.99 + took.count() * 0.01;
        busy_bytes_ += bytes;
        busy_seconds_ += std::chrono::duration<double>(now - busy_since_).count();
        busy_since_ = now;
        --in_flight_;
        if (busy_seconds_ < kWindowSeconds && busy_bytes_ < kWindowBytes) return;
        const double rate = static_cast<double>(busy_bytes_) / (busy_seconds_ > 0 ? busy_seconds_ : 1e-9);
        bytes_per_second_ = measured_ ? bytes_per_second_ * (1 - kWeight) + rate * kWeight : rate;
        measured_ = true;
        busy_bytes_ = 0;
        busy_seconds_ = 0;
    }

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
    static constexpr double kWeight = 0.25;

    double latency_seconds_;
    double bytes_per_second_;
    bool measured_ = false;
    std::uint64_t in_flight_ = 0;
    Clock::time_point busy_since_{};
    std::uint64_t busy_bytes_ = 0;
    double busy_seconds_ = 0;
};

}  // namespace pegaflow::engine::tier
