// SPDX-License-Identifier: Apache-2.0
// file_tier.hpp - blocks on files and block devices, kept over restarts: containers, their writers, and one catalog.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/tier/catalog.hpp"
#include "engine/tier/container.hpp"
#include "engine/tier/cost_model.hpp"
#include "engine/tier/counters.hpp"
#include "engine/tier/fabric_io.hpp"
#include "engine/tier/tier.hpp"
#include "engine/tier/write_budget.hpp"
#include "engine/tier/write_history.hpp"
#include "engine/tier/write_queue.hpp"
#include "engine/tier/writer.hpp"

namespace pegaflow::engine::tier {

class FileTier final : public Tier {
public:
    struct Parts {
        Fabric& fabric;
        ScopeTable& scopes;
        TierHost& host;
        const Pool& pool;
        PoolRegions& regions;
    };
    // Opens all paths and reads what lies there. A path that cannot be used is one device less, with the reason; kInvalid only
    // for options that can never work.
    static Result<std::unique_ptr<FileTier>> open(const TierOptions& options, Parts parts);
    ~FileTier() override;

    void offer(BlockRef block) override;
    bool shed() override;
    bool contains(const BlockKey& key) const override { return catalog_.contains(key); }
    std::unique_ptr<TierRead> prepare(std::span<const BlockKey> keys, std::span<const std::uint64_t> page_bytes,
                                      std::vector<BlockRef>& blocks, Wait wait) override;
    double estimate_seconds(std::uint64_t bytes, std::uint64_t ahead) const override;
    void tick(std::chrono::steady_clock::time_point now) override;
    Result<void> flush(std::chrono::steady_clock::time_point deadline) override;
    void cancel_reads() override;
    bool close(std::chrono::steady_clock::time_point deadline) override;
    void add_stats(EngineStats& stats) const override;
    std::vector<TierDeviceInfo> devices() const override;

private:
    using Clock = std::chrono::steady_clock;
    class Read;
    struct Store {
        TierDeviceInfo info;  // what does not change
        std::unique_ptr<Container> container;
        std::unique_ptr<FabricIo> io;
        std::unique_ptr<Writer> writer;
        std::uint32_t number = 0;             // in the catalog
        WriteHistory history;                 // before the start
        std::uint32_t failures_in_a_row = 0;  // of reads; guarded by mutex_
        std::string read_problem;             // "" while reads work; guarded by mutex_
        Clock::time_point try_again{};        // guarded by mutex_
        std::string late_problem;             // "" while everything ends in time; guarded by mutex_
    };

    FileTier(const TierOptions& options, Parts parts);
    void open_store(Store& store, Device& device, std::uint64_t capacity);
    Result<void> try_open(Store& store, Device& device, std::uint64_t capacity);
    void recover(Store& store);
    void restore_budget();
    void give_back(std::uint64_t bytes);
    Store& store_of(std::uint32_t container);
    void prefetch_content(const Block& block) const noexcept;
    void end_late(Store& store, Clock::time_point now);
    static bool over(const Store& store);
    void read_ended(Store& store, std::uint64_t bytes, Clock::time_point begun, const Result<void>& result);
    bool writable() const;
    enum class Taken { kYes, kNo, kQueueFull };
    Taken take(const BlockRef& block);
    void offer_deferred();

    const TierOptions options_;
    Parts parts_;
    Counters counters_;
    Catalog catalog_;
    WriteQueue queue_;
    WriterOptions writer_options_;
    std::uint64_t largest_block_ = 0;
    std::vector<std::unique_ptr<Store>> stores_;
    mutable std::mutex deferred_mutex_;
    // Blocks for which the queue had no room: named, not pinned. Guarded by deferred_mutex_.
    std::deque<BlockKey> deferred_;
    mutable std::mutex mutex_;
    WriteBudget budget_;    // guarded by mutex_
    CostModel cost_{0, 0};  // guarded by mutex_
    bool closed_ = false, all_over_ = false;
};

}  // namespace pegaflow::engine::tier
