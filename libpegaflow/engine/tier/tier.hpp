// SPDX-License-Identifier: Apache-2.0
// tier.hpp - a slower place for blocks than the pool: what it offers the engine, and what it needs of it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/block/block.hpp"
#include "pegaflow/engine.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

// How long transfers that were cancelled at the end are waited for, when one may take `io_time`.
inline std::chrono::nanoseconds give_up_time(std::chrono::nanoseconds io_time) {
    return std::min<std::chrono::nanoseconds>(io_time, std::chrono::seconds(5));
}

// Whether whoever wants pages of the pool may be kept until some are free.
enum class Wait : bool { kNo, kYes };

// What a tier needs of the engine.
class TierHost {
public:
    // The block when it is in the pool, pinned; else an empty reference. Changes nothing about recency. [any]
    virtual BlockRef resident(const BlockKey& key) = 0;
    // A block that nobody else knows, with pages of these sizes; empty when the pool has no room, or would only after a while.
    // [any]
    virtual BlockRef make_block(const BlockKey& key, std::span<const std::uint64_t> page_bytes, Wait wait) = 0;
    virtual const std::byte* pool_base() const = 0;

protected:
    ~TierHost() = default;
};

// Blocks on their way from a tier to pages of the pool, read together.
class TierRead {
public:
    virtual ~TierRead() = default;
    // Begins the transfer, without waiting for anything. `landed` runs once, on a thread that must not be blocked, perhaps
    // before this returns; it may start other reads. Once. [any]
    virtual void start(std::function<void()> landed) = 0;
    // Checks the bytes that landed for one of the blocks and gives it its digests. kCorrupt: the bytes are wrong, and will not
    // be found again; else what the transfer ended with, which may be another block's fault. Takes as long as reading the
    // pages. Once a block, after `landed`. [any]
    virtual Result<void> finish(std::size_t number) = 0;
};

class Tier {
public:
    virtual ~Tier() = default;

    // Takes a sealed block with digests to be written in the background; it stays pinned until then. Whether it does is the
    // tier's business: room in its queue, write budget, known already. [any]
    virtual void offer(BlockRef block) = 0;
    // Gives up what waits to be written, so that the pool can have its pages. False when nothing waits. [any]
    virtual bool shed() = 0;
    virtual bool contains(const BlockKey& key) const = 0;
    // Makes the blocks of `keys`, whose pages must have the sizes of `page_bytes`, for one transfer. `blocks` gets one for each
    // key: empty when it is not there (any more) or the pool has no room, as of `make_block`. Null when all are. [any]
    virtual std::unique_ptr<TierRead> prepare(std::span<const BlockKey> keys, std::span<const std::uint64_t> page_bytes,
                                              std::vector<BlockRef>& blocks, Wait wait) = 0;
    // Seconds until this many bytes would be there, going by what it did lately. [any]
    virtual double estimate_seconds(std::uint64_t bytes, std::uint64_t ahead) const = 0;

    // Called every few milliseconds. [serial]
    virtual void tick(std::chrono::steady_clock::time_point now) = 0;
    // Waits until everything offered so far is stored or given up. kDeadlineExceeded. [any]
    virtual Result<void> flush(std::chrono::steady_clock::time_point deadline) = 0;
    // Asks for all reads that are under way to end early. [any]
    virtual void cancel_reads() = 0;
    // Stores what it can until `deadline`, and cancels the rest. True when no byte moves any more. False when something has
    // not ended some seconds later: the tier, and all memory that it was given, must stay as long as the process. Idempotent.
    // [serial]
    virtual bool close(std::chrono::steady_clock::time_point deadline) = 0;

    virtual void add_stats(EngineStats& stats) const = 0;
    virtual std::vector<TierDeviceInfo> devices() const = 0;
};

}  // namespace pegaflow::engine
