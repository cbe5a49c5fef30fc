// SPDX-License-Identifier: Apache-2.0
// state.hpp - what the parts of an engine share; engine.cpp makes it, save.cpp, load.cpp and digests.cpp work on it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/gate.hpp"
#include "base/thread.hpp"
#include "engine/block/index.hpp"
#include "engine/block/scope_table.hpp"
#include "engine/distinct_blocks.hpp"
#include "engine/distribution.hpp"
#include "engine/instance.hpp"
#include "engine/lease.hpp"
#include "engine/pool/pool.hpp"
#include "engine/pool/pool_regions.hpp"
#include "engine/prefetch.hpp"
#include "engine/tier/tier.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::engine {

using Clock = std::chrono::steady_clock;

// A save or load under way: what the deadline watch, cancel_save and cancel_load need of it. It keeps its instance, and with
// that its worker, in memory: someone may hold it still when the instance is gone.
class Operation {
public:
    Operation(std::shared_ptr<Instance> owner, Clock::time_point when) : instance(std::move(owner)), deadline(when) {}
    virtual ~Operation() = default;
    virtual void cancel() = 0;
    // Whoever asked for it does not wait any more.
    void abandon() {
        abandoned.store(true, std::memory_order_relaxed);
        cancel();
    }
    // Nobody may count on what it still moves: it was abandoned, or its deadline has passed.
    bool given_up() const noexcept {
        return abandoned.load(std::memory_order_relaxed) || timed_out.load(std::memory_order_relaxed) ||
               (deadline != Clock::time_point::max() && Clock::now() >= deadline);
    }
    // What the user is told about the end `status` of a copy.
    Code code_of(pega_status status) const noexcept {
        const bool late = status == PEGA_CANCELED && (timed_out.load(std::memory_order_relaxed) || Clock::now() >= deadline);
        return late ? Code::kDeadlineExceeded : static_cast<Code>(status);
    }

    const std::shared_ptr<Instance> instance;
    const Clock::time_point deadline;
    std::atomic<bool> timed_out{false}, abandoned{false};
};

// Operations by number, so that they can be cancelled while they run.
class OperationTable {
public:
    std::uint64_t add(std::shared_ptr<Operation> operation);
    void remove(std::uint64_t id);
    std::shared_ptr<Operation> find(std::uint64_t id) const;
    // Those whose deadline has passed and that were not told yet.
    std::vector<std::shared_ptr<Operation>> expired(Clock::time_point now) const;
    // All of an instance; of every instance when it is null.
    std::vector<std::shared_ptr<Operation>> of(const Instance* instance) const;

private:
    mutable std::mutex mutex_;
    std::uint64_t next_ = 1;
    std::map<std::uint64_t, std::shared_ptr<Operation>> operations_;  // guarded by mutex_
};

using Counter = std::atomic<std::uint64_t>;

struct Counters {
    Counter alloc_failures{0}, incomplete_dropped{0}, memory_hits{0}, misses{0}, insertions{0}, rejections{0}, evictions{0},
        evicted_bytes{0};
    Counter quarantined{0}, mismatches{0}, save_requests{0}, save_failures{0}, saved_blocks{0}, duplicates{0}, save_bytes{0};
    Counter load_requests{0}, load_failures{0}, load_bytes{0}, loads_in_flight{0}, saves_in_flight{0};
    Counter leases_expired{0}, queries{0}, queue_full{0}, canceled{0}, tier_hits{0}, evictions_offered{0};
    ResidenceCounter evicted_residence{kResidenceBounds}, erased_residence{kResidenceBounds};
};

}  // namespace pegaflow::engine

namespace pegaflow {

struct Engine::State final : engine::TierHost {
    State(EngineOptions engine_options, Fabric& engine_fabric, EngineObserver engine_observer)
        : options(std::move(engine_options)), fabric(engine_fabric), observer(std::move(engine_observer)) {}

    EngineOptions options;
    Fabric& fabric;
    EngineObserver observer;
    std::unique_ptr<engine::Pool> pool;
    std::unique_ptr<engine::PoolRegions> pool_regions;
    std::unique_ptr<engine::AdmissionPolicy> admission;
    std::unique_ptr<engine::BlockIndex> index;
    engine::LeaseTable leases{options.max_leases_per_instance};
    engine::OperationTable operations;
    engine::Counters counters;
    std::unique_ptr<engine::DistinctBlocks> distinct;  // null when nobody wants to know
    base::Gate gate;

    mutable std::shared_mutex instances_mutex;
    std::map<std::string, std::shared_ptr<engine::Instance>, std::less<>> instances;  // guarded by instances_mutex
    std::uint64_t instance_count = 0;                                                 // ever made; guarded by instances_mutex
    engine::ScopeTable scopes;
    // Null without a tier; both are set before the first request and stay until close.
    std::unique_ptr<engine::Tier> tier;
    std::unique_ptr<engine::Prefetcher> prefetcher;

    // Digests and time: two background threads.
    std::mutex background_mutex;
    std::condition_variable digest_wanted;    // for the digest thread: work, or the end
    std::condition_variable digests_changed;  // for those who wait for digests
    std::condition_variable watch_stops;
    // Complete blocks that lack digests, or that the tier was not offered yet; then those that are taken, and those that went.
    std::deque<engine::BlockRef> unfinished;  // guarded by background_mutex
    std::uint64_t finishing = 0;              // guarded by background_mutex
    std::uint64_t finished = 0;               // guarded by background_mutex
    bool stop = false;                        // guarded by background_mutex
    std::thread digest_thread, watch_thread;
    base::Heartbeat digest_heartbeat, watch_heartbeat;
    std::mutex close_mutex;
    bool closed = false;     // guarded by close_mutex
    bool abandoned = false;  // closed with transfers under way that never ended; set before close returns

    Result<std::shared_ptr<engine::Instance>> instance(std::string_view id) const;
    // Pages for blocks, evicting what must go, where the worker's device reaches them. Fewer than asked means that the pool is
    // full of pinned blocks. [any]
    std::uint64_t allocate_pages(std::uint64_t bytes, std::uint64_t count, engine::Worker& worker,
                                 std::vector<std::uint64_t>& out);
    // The same on a node, in slices that a device has (null = in any). Fewer are also what there is without waiting.
    std::uint64_t allocate_pages(std::uint64_t bytes, std::uint64_t count, int node, engine::DeviceSlices* slices,
                                 std::vector<std::uint64_t>& out, engine::Wait wait = engine::Wait::kYes);
    // Takes up to `most` pages of `bytes` from a block that only the caller has, where the device reaches them; how many.
    std::uint64_t take_pages(engine::Block& evicted, std::uint64_t bytes, std::uint64_t most,
                             const engine::DeviceSlices* slices, std::vector<std::uint64_t>& out) const;

    // leasing.cpp
    Result<void> check_leasing() const;
    // When a lease ends that begins now. kInvalid for a time that is not positive. [any]
    Result<engine::Clock::time_point> lease_expiry(std::optional<std::chrono::nanoseconds> asked) const;
    // As LeaseTable::create. [any]
    Result<LeaseId> make_lease(const engine::Instance& instance, std::vector<engine::BlockRef> blocks,
                               engine::Clock::time_point expiry);

    // Counts what was erased in a clean-up. [any]
    void note_erased(const engine::Block& block);

    // digests.cpp
    // What no layer of a shard wrote of a page's content adds to the page's digest.
    std::uint64_t digest_gaps(const engine::Shard& shard, const engine::Page& page) const noexcept;
    // True when a block that became resident has something to wait for: its digests, or to be offered to the tier. [any]
    bool is_unfinished(const engine::Block& block) const noexcept;
    // Queues such blocks for the digest thread. [any]
    void finish_later(std::vector<engine::BlockRef> blocks);
    // Waits until another digest is there, so that its block can be evicted. False when none is under way. [any]
    bool wait_for_digest();
    // True when every digested page of the block still has its digest; a block that has not goes out of the index.
    bool verify(engine::Block& block);
    // Waits until every block that is sealed now has its digest, and with that was offered to the tier.
    void wait_for_digests(engine::Clock::time_point deadline);
    void expect_digests(const engine::Block& block) const noexcept;
    void finish_digests(engine::Block& block) const noexcept;
    void run_digests();

    // devices.cpp
    // kNotFound when the options name a device that is not there.
    Result<void> check_devices() const;
    // True when workers may register memory of the device.
    bool allowed(const DeviceInfo& device) const;
    // The device that moves blocks between such memory and the pool. kInvalid when it is not allowed.
    Result<Device*> device_for(const MemoryDescription& memory);

    void run_watch();
    void close(engine::Clock::time_point deadline);

    // tiering.cpp
    Result<void> open_tier();
    // Begins to fetch what the tier has of a query's missing blocks; `found` are those in the pool. True: ask again.
    // kQueueFull.
    Result<bool> begin_prefetch(const QueryRequest& request, const engine::Instance& instance,
                                const engine::Prefetcher::Name& name, const std::vector<engine::BlockRef>& found,
                                const std::vector<std::uint32_t>& positions);
    // Blocks that the tier did not take before get another chance when they are used.
    void offer_again(const std::vector<engine::BlockRef>& blocks);
    engine::BlockRef resident(const engine::BlockKey& key) override;
    engine::BlockRef make_block(const engine::BlockKey& key, std::span<const std::uint64_t> page_bytes,
                                engine::Wait wait) override;
    const std::byte* pool_base() const override { return pool->base(); }
};

namespace engine {

// tiering.cpp
Prefetcher::Name prefetch_name(const QueryRequest& request);
// save.cpp, load.cpp
SaveId start_save(Engine::State& state, const SaveRequest& request, std::function<void(Result<SaveOutcome>)> done);
Result<LoadId> start_load(Engine::State& state, const LoadRequest& request, LoadCallbacks callbacks);

}  // namespace engine
}  // namespace pegaflow
