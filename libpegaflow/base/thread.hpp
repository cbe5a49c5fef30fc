// SPDX-License-Identifier: Apache-2.0
// thread.hpp - starting a thread, a sign of life of one that runs a loop, and a mutex for very short sections.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "pegaflow/result.hpp"

namespace pegaflow::base {

// A thread that runs `run`. kNoMemory when the system has none to give, of which std::thread throws. [any]
template <class Run>
Result<std::thread> start_thread(Run run) {
    try {
        return std::thread(std::move(run));
    } catch (const std::system_error& error) {
        return fail(Code::kNoMemory, "the system gives no more threads: " + error.code().message(), error.code().value());
    }
}

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

// For sections of some hundred nanoseconds that many threads enter: a sleep and a wake-up would cost more than a short wait,
// and a call of the library more than taking a mutex that is free.
class AdaptiveMutex {
public:
    void lock() noexcept {
        if (!try_lock()) lock_late();
    }
    bool try_lock() noexcept {
        std::uint32_t free = kFree;
        return state_.compare_exchange_strong(free, kHeld, std::memory_order_acquire, std::memory_order_relaxed);
    }
    void unlock() noexcept {
        if (state_.exchange(kFree, std::memory_order_release) == kAwaited) state_.notify_one();
    }

private:
    static constexpr std::uint32_t kFree = 0, kHeld = 1, kAwaited = 2;
    static constexpr int kTurns = 16;  // a few microseconds in all

    [[gnu::noinline]] void lock_late() noexcept {
        for (int turn = 0; turn < kTurns; ++turn) {
            for (int i = 0; i <= turn; ++i) __builtin_ia32_pause();
            if (state_.load(std::memory_order_relaxed) == kFree && try_lock()) return;
        }
        // Who has slept cannot know whether others do, and takes it as awaited: a wake-up too many, and none too few.
        while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree) state_.wait(kAwaited, std::memory_order_relaxed);
    }

    std::atomic<std::uint32_t> state_{kFree};
};

}  // namespace pegaflow::base
