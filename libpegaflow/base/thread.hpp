// SPDX-License-Identifier: Apache-2.0
// thread.hpp - a sign of life of a thread that runs a loop, and a mutex for very short sections.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <mutex>

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

// For sections of some hundred nanoseconds that many threads enter: a sleep and a wake-up would cost more than a short wait.
class AdaptiveMutex {
public:
    void lock() {
        for (int turn = 0; turn < kTurns; ++turn) {
            if (mutex_.try_lock()) return;
            for (int i = 0; i <= turn; ++i) __builtin_ia32_pause();
        }
        mutex_.lock();
    }
    bool try_lock() { return mutex_.try_lock(); }
    void unlock() { mutex_.unlock(); }

private:
    static constexpr int kTurns = 16;  // a few microseconds in all
    std::mutex mutex_;
};

}  // namespace pegaflow::base
