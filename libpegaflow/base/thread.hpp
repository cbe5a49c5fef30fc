// SPDX-License-Identifier: Apache-2.0
// thread.hpp - a sign of life of a thread that runs a loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>

namespace pegaflow::base {

// The loop beats at least once a second, also when it has nothing to do; whoever asks sees how long ago that was. A beat costs
// a few nanoseconds: the coarse clock is read, which is right to some milliseconds.
class Heartbeat {
public:
    void beat() noexcept { last_ms_.store(now_ms(), std::memory_order_relaxed); }
    // Seconds since the last beat; since construction before the first. [any]
    double silence() const noexcept { return static_cast<double>(now_ms() - last_ms_.load(std::memory_order_relaxed)) / 1e3; }

private:
    static std::int64_t now_ms() noexcept {
        timespec now{};
        ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
    }
    std::atomic<std::int64_t> last_ms_{now_ms()};
};

}  // namespace pegaflow::base
