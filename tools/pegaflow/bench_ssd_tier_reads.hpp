// SPDX-License-Identifier: Apache-2.0
// bench_ssd_tier_reads.hpp - the readers of the SSD tier's benchmark: what the engine's prefetcher does, without queries.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "engine/read_pace.hpp"
#include "engine/tier/file_tier.hpp"
#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {

// The name of a block of the benchmark. [any]
engine::BlockKey key_of(std::uint64_t block_bytes, std::uint64_t number);

// What readers and writers of one run share.
struct Phase {
    std::atomic<bool> stop{false}, measuring{false};
    std::atomic<std::uint64_t> read_bytes{0};
};

// Keeps `depth` reads under way until the phase stops; a few threads check what landed and begin the next ones.
class ReadLoop {
public:
    // Reads blocks `first` to `first + blocks` at random. What is borrowed outlives it.
    ReadLoop(engine::tier::FileTier& files, const Load& load, std::uint64_t first, std::uint64_t blocks, std::uint64_t seed,
             Phase& phase);
    // Returns when the phase has stopped and nothing is under way any more.
    Result<void> run(Run& out);

private:
    using Clock = std::chrono::steady_clock;
    // A read under way, of several blocks when they are small: from its submission to the end of its check.
    struct Slot {
        Clock::time_point begun;
        std::vector<engine::BlockKey> keys;
        std::vector<engine::BlockRef> blocks;
        std::unique_ptr<engine::TierRead> read;
    };

    void work();
    void check_landed(std::unique_lock<std::mutex>& lock);
    void check(Slot& slot, std::unique_lock<std::mutex>& lock);
    void landed(Slot& slot);
    bool prepare(std::unique_lock<std::mutex>& lock, engine::Wait wait);
    Slot* take_prepared();
    void start(Slot& slot);
    bool may_prepare() const { return !phase_.stop.load() && !idle_.empty() && pace_.room_ahead(); }
    bool should_prepare() const;
    bool over() const;

    engine::tier::FileTier& files_;
    const Load load_;
    const std::uint64_t first_, blocks_;
    std::uint64_t together_ = 1, most_ = 1;  // blocks a read, and reads under way
    Phase& phase_;
    std::mutex mutex_;
    std::condition_variable changed_;
    // All guarded by mutex_; a slot belongs to whoever took it from one of the queues.
    std::deque<Slot*> idle_, prepared_, landed_;
    std::vector<std::unique_ptr<Slot>> slots_;
    std::uint64_t preparing_ = 0, checking_ = 0;  // reads
    engine::ReadPace pace_;
    bool patient_ = false, replacing_ = false;  // as of the prefetcher
    std::mt19937_64 random_;
    std::uint64_t checked_ = 0, wrong_ = 0;
    Histogram latency_;
    Error error_;
};

}  // namespace pegaflow::cli::ssd
