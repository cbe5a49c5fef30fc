// SPDX-License-Identifier: Apache-2.0
// write_queue.hpp - sealed blocks that wait to be written, pinned and bounded in bytes; every writer takes from it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "engine/block/block.hpp"

namespace pegaflow::engine::tier {

class WriteQueue {
public:
    using Clock = std::chrono::steady_clock;

    explicit WriteQueue(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}

    // True when `bytes` more would be taken now. One block is taken whatever its size. [any]
    bool has_room(std::uint64_t bytes) const;
    void push(BlockRef block);
    // Drops the block that waits longest; false when none waits. [any]
    bool drop_one(BlockRef* dropped);
    // Up to `most` bytes, at least one block when any is there. With `patient` it waits until `enough` bytes are there, or the
    // first one has waited for `linger`, or there is no point in waiting (flush, stop); when nothing comes, it returns nothing
    // now and then. What it returns counts as taken until `done`. [any]
    std::vector<BlockRef> take(std::uint64_t most, std::uint64_t enough, Clock::duration linger, bool patient);
    // `count` blocks that were taken are stored or given up. [any]
    void done(std::size_t count);
    // Waits until nothing waits and nothing is taken. [any]
    bool wait_empty(Clock::time_point deadline);
    void stop();  // no more waiting; what is there can still be taken
    bool stopped() const;

    std::uint64_t bytes() const;
    std::uint64_t blocks() const;
    std::uint64_t max_bytes() const noexcept { return max_bytes_; }

private:
    struct Waiting {
        BlockRef block;
        std::uint64_t bytes;
        Clock::time_point since;
    };
    const std::uint64_t max_bytes_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Waiting> waiting_;  // guarded by mutex_
    std::uint64_t bytes_ = 0;      // guarded by mutex_
    std::uint64_t taken_ = 0;      // guarded by mutex_
    std::uint64_t flushing_ = 0;   // guarded by mutex_
    bool stop_ = false;            // guarded by mutex_
};

}  // namespace pegaflow::engine::tier
