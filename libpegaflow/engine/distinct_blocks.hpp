// SPDX-License-Identifier: Apache-2.0
// distinct_blocks.hpp - how many different blocks queries missed lately: what a larger cache could have hit.
//
// A HyperLogLog sketch takes each missed hash, without a lock; every minute the watch thread merges it into the windows and
// starts another. A window is a ring of sketches of some minutes each, the oldest of which is given up.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "pegaflow/engine.hpp"

namespace pegaflow::engine {

// kInvalid unless all are a minute to 31 days long and no two are equal.
Result<void> check_windows(std::span<const std::chrono::nanoseconds> windows);

class DistinctBlocks {
public:
    using Clock = std::chrono::steady_clock;
    static constexpr unsigned kBits = 14;  // of the number of registers: the standard error is 0.8 %
    static constexpr std::size_t kRegisters = std::size_t{1} << kBits;

    DistinctBlocks(std::span<const std::chrono::nanoseconds> windows, Clock::time_point now);

    // A query asked for `asked` blocks and missed these. [data]
    void count(std::uint64_t scope, std::uint64_t asked, std::span<const std::string_view> missed) noexcept;
    // Takes what was counted into the windows when a minute is over. By one thread.
    void tick(Clock::time_point now);
    std::vector<DistinctWindow> read() const;

private:
    using Sketch = std::vector<std::uint8_t>;  // by register: the longest run of zeros, and one
    struct Slot {
        Sketch sketch = Sketch(kRegisters);
        std::uint64_t asked = 0;
    };
    struct Window {
        std::chrono::nanoseconds length{};
        std::chrono::nanoseconds step{};  // of a slot
        std::vector<Slot> slots;
        std::size_t newest = 0;
        Clock::time_point begun;  // the newest slot
    };
    struct Live {
        std::array<std::atomic<std::uint8_t>, kRegisters> registers{};
        std::atomic<std::uint64_t> asked{0};
    };

    void merge(Slot& into) const noexcept;
    static double estimate(const Sketch& sketch) noexcept;

    std::array<Live, 2> live_;
    std::atomic<unsigned> current_{0};  // of live_
    mutable std::mutex mutex_;
    Clock::time_point minute_;     // when the current one began; the watch thread's own
    std::vector<Window> windows_;  // guarded by mutex_
};

}  // namespace pegaflow::engine
