// SPDX-License-Identifier: Apache-2.0
// read_pace.hpp - how far ahead reads of a tier are prepared, which thread does what to them, and when one is woken for it. Not
// synchronised.
//
// A read is prepared, started, lands, is taken to be checked, and ends. Waking a thread costs more than checking a small block:
// - As long as reads land much more slowly than they can be checked, the thread on which a small one landed checks it, and
//   prepares another one. Its next requests go to the device after that, so what takes long is left to others earlier.
// - Others wait until they are many or large, until nothing else is under way, or until the first of them has waited for a part
//   of what a read takes of late. That is seen when the next one lands, because a timer costs as much as waking; a thread that
//   looks by itself now and then is there for reads that lag.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace pegaflow::engine {

class ReadPace {
public:
    using Clock = std::chrono::steady_clock;

    static constexpr std::size_t kMostAhead = 16;  // reads

    explicit ReadPace(std::size_t most_ahead = kMostAhead) : most_ahead_(most_ahead) {}

    // A read is being prepared, or is already.
    void prepare(std::uint64_t bytes) noexcept {
        ++ahead_;
        ahead_bytes_ += bytes;
    }
    // It is begun, or given up.
    void unprepare(std::uint64_t bytes) noexcept {
        --ahead_;
        ahead_bytes_ -= bytes;
    }
    void started() noexcept { ++under_way_; }
    void landed(std::uint64_t bytes, Clock::time_point begun, Clock::time_point now) noexcept {
        --under_way_;
        took_ += (now - begun - took_) / kSmoothing;
        between_ += (std::min<Clock::duration>(now - last_landed_, kLongNap) - between_) / kLongSmoothing;
        last_landed_ = now;
        if (landed_++ == 0) first_landed_ = now;
        landed_bytes_ += bytes;
        if (now - first_landed_ >= patience()) due_ = true;
    }
    void taken(std::uint64_t bytes) noexcept {
        if (--landed_ == 0) due_ = false;
        landed_bytes_ -= bytes;
        checking_bytes_ += bytes;
    }
    void ended(std::uint64_t bytes) noexcept { checking_bytes_ -= bytes; }
    // What landed last was checked where it landed, and another one prepared, which took so long.
    void done_here(Clock::duration took) noexcept {
        // One that took many times as long had lost its processor meanwhile: it says nothing of the work.
        here_ += (std::min<Clock::duration>(took, kUsual * here_ + kShortWork) - here_) / kLongSmoothing;
    }
    // A thread of those that can be woken is at work; it sleeps.
    void at_work() noexcept { ++at_work_; }
    void asleep() noexcept { --at_work_; }
    // Whether to wake one more thread for what those at work would not come to soon: what landed, or reads to `prepare`. Until
    // it has `looked`, no other is.
    bool should_wake(bool prepare) noexcept {
        if (told_ || !(due() || prepare)) return false;
        if (at_work_ != 0 && !piles_up()) return false;
        told_ = true;
        return true;
    }
    void looked() noexcept { told_ = false; }

    std::uint64_t under_way() const noexcept { return under_way_; }
    std::size_t ahead() const noexcept { return ahead_; }
    // There may be more reads in preparation; few bytes of them, unless single reads are large.
    bool room_ahead() const noexcept { return fits(ahead_, ahead_bytes_); }
    // The device may soon want for reads that are prepared.
    bool short_ahead() const noexcept { return ahead_ == 0 || fits(ahead_ * 2 - 1, ahead_bytes_ * 2 - 1); }
    // The thread on which this many bytes landed may do what follows: the reads behind them hardly wait for it.
    // Asked once for each that landed.
    bool here(std::uint64_t bytes) noexcept {
        if (bytes > kMostBytesHere) return false;
        if (here_ * (bytes <= kFewBytes ? kHereShare : kLargeHereShare) <= between_) return true;
        here_ -= here_ / kForget;  // what it takes is seen only when it is done
        return false;
    }
    // What landed is worth waking a thread.
    bool due() const noexcept {
        return landed_ >= kAtOnce || landed_bytes_ >= kBytesAtOnce || (landed_ != 0 && (due_ || under_way_ == 0));
    }
    // What landed is worth a thread beside one that is at work already.
    bool piles_up() const noexcept { return landed_bytes_ + checking_bytes_ >= kBytesForTwo; }
    // How long the thread that looks by itself sleeps.
    Clock::duration nap() const noexcept { return std::clamp<Clock::duration>(took_, kShortNap, kLongNap); }
    Clock::duration patience() const noexcept { return std::clamp<Clock::duration>(took_ / 2, kLeastPatience, kMostPatience); }

private:
    // Some disks end what they have in bursts of 32: the share of a thread's time is that of several bursts.
    static constexpr int kSmoothing = 8, kLongSmoothing = 128;
    static constexpr int kHereShare = 4, kLargeHereShare = 16;
    static constexpr int kUsual = 4;  // times what it takes of late
    static constexpr int kForget = 512;
    static constexpr std::size_t kFew = 4, kAtOnce = 8;  // reads
    static constexpr std::uint64_t kBytesAhead = std::uint64_t{1} << 20, kBytesAtOnce = std::uint64_t{512} << 10,
                                   kBytesForTwo = std::uint64_t{2} << 20, kFewBytes = std::uint64_t{32} << 10,
                                   kMostBytesHere = std::uint64_t{64} << 10;
    static constexpr std::chrono::microseconds kShortWork{20}, kLeastPatience{500}, kMostPatience{4000}, kShortNap{1000},
        kLongNap{5000};

    bool fits(std::size_t reads, std::uint64_t bytes) const noexcept {
        return reads < std::min(kFew, most_ahead_) || (reads < most_ahead_ && bytes < kBytesAhead);
    }

    const std::size_t most_ahead_;
    std::size_t ahead_ = 0, landed_ = 0;
    std::uint64_t ahead_bytes_ = 0, under_way_ = 0, landed_bytes_ = 0, checking_bytes_ = 0;
    Clock::duration took_{};              // a read, of late
    Clock::duration between_{}, here_{};  // over several bursts: from landing to landing, the work where it landed
    Clock::time_point first_landed_{};    // of those that wait
    Clock::time_point last_landed_{};
    std::size_t at_work_ = 0;  // threads
    bool due_ = false;
    bool told_ = false;  // a thread that sleeps was, and has not looked yet
};

}  // namespace pegaflow::engine
