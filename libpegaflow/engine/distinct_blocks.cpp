// SPDX-License-Identifier: Apache-2.0
#include "engine/distinct_blocks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/block/key.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::chrono::minutes kMinute{1};
constexpr std::chrono::hours kLongest{31 * 24};
constexpr int kSlots = 24;  // of a window, if its slots are neither shorter than a minute nor longer than an hour

}  // namespace

Result<void> check_windows(std::span<const std::chrono::nanoseconds> windows) {
    for (const auto window : windows) {
        if (window < kMinute || window > kLongest)
            return fail(Code::kInvalid, "a window of distinct blocks must be a minute to 31 days long");
        if (std::ranges::count(windows, window) > 1) return fail(Code::kInvalid, "a window of distinct blocks is named twice");
    }
    return {};
}

DistinctBlocks::DistinctBlocks(std::span<const std::chrono::nanoseconds> windows, Clock::time_point now) : minute_(now) {
    for (const auto length : windows) {
        const auto minutes =
            std::clamp<std::int64_t>((length / kSlots + kMinute - std::chrono::nanoseconds(1)) / kMinute, 1, 60);
        Window& window = windows_.emplace_back();
        window.length = length;
        window.step = minutes * kMinute;
        window.slots.resize(static_cast<std::size_t>((length + window.step - std::chrono::nanoseconds(1)) / window.step));
        window.begun = now;
    }
}

void DistinctBlocks::count(std::uint64_t scope, std::uint64_t asked, std::span<const std::string_view> missed) noexcept {
    // Who took the sketch just before its minute ended adds to it later on: that counts in the minute after the next.
    Live& live = live_[current_.load(std::memory_order_relaxed)];
    live.asked.fetch_add(asked, std::memory_order_relaxed);
    for (const std::string_view text : missed) {
        const std::uint64_t hash = table_hash(scope, 0, text);
        auto& place = live.registers[hash >> (64 - kBits)];
        // The other bits, and one behind them that ends every run.
        const std::uint64_t rest = (hash << kBits) | (std::uint64_t{1} << (kBits - 1));
        const auto run = static_cast<std::uint8_t>(std::countl_zero(rest) + 1);
        std::uint8_t before = place.load(std::memory_order_relaxed);
        while (before < run && !place.compare_exchange_weak(before, run, std::memory_order_relaxed)) {
        }
    }
}

void DistinctBlocks::tick(Clock::time_point now) {
    if (now - minute_ < kMinute) return;
    minute_ = now;
    const unsigned old = current_.load(std::memory_order_relaxed);
    current_.store(1 - old, std::memory_order_relaxed);
    Slot minute;
    for (std::size_t i = 0; i < kRegisters; ++i)
        minute.sketch[i] = live_[old].registers[i].exchange(0, std::memory_order_relaxed);
    minute.asked = live_[old].asked.exchange(0, std::memory_order_relaxed);
    const std::lock_guard lock(mutex_);
    for (Window& window : windows_) {
        Slot& newest = window.slots[window.newest];
        for (std::size_t i = 0; i < kRegisters; ++i) newest.sketch[i] = std::max(newest.sketch[i], minute.sketch[i]);
        newest.asked += minute.asked;
        if (now - window.begun < window.step) continue;
        window.begun = now;
        window.newest = (window.newest + 1) % window.slots.size();
        window.slots[window.newest] = Slot();
    }
}

// Adds the current minute.
void DistinctBlocks::merge(Slot& into) const noexcept {
    for (const Live& live : live_) {
        for (std::size_t i = 0; i < kRegisters; ++i)
            into.sketch[i] = std::max(into.sketch[i], live.registers[i].load(std::memory_order_relaxed));
        into.asked += live.asked.load(std::memory_order_relaxed);
    }
}

std::vector<DistinctWindow> DistinctBlocks::read() const {
    std::vector<DistinctWindow> out;
    const std::lock_guard lock(mutex_);
    for (const Window& window : windows_) {
        Slot all;
        merge(all);
        for (const Slot& slot : window.slots) {
            for (std::size_t i = 0; i < kRegisters; ++i) all.sketch[i] = std::max(all.sketch[i], slot.sketch[i]);
            all.asked += slot.asked;
        }
        out.push_back({window.length, all.asked, estimate(all.sketch)});
    }
    return out;
}

double DistinctBlocks::estimate(const Sketch& sketch) noexcept {
    constexpr double kCount = kRegisters;
    constexpr double kBias = 0.7213 / (1 + 1.079 / kCount);
    double sum = 0;
    std::size_t empty = 0;
    for (const std::uint8_t run : sketch) {
        sum += std::ldexp(1.0, -run);
        empty += run == 0 ? 1 : 0;
    }
    const double raw = kBias * kCount * kCount / sum;
    return raw <= 2.5 * kCount && empty != 0 ? kCount * std::log(kCount / static_cast<double>(empty)) : raw;
}

}  // namespace pegaflow::engine
