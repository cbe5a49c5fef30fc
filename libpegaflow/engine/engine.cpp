// SPDX-License-Identifier: Apache-2.0
// Joins the parts: instances, index, pool, leases, copies, and the two background threads.
#include "pegaflow/engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <mutex>
#include <vector>

#include "base/log.hpp"
#include "engine/policy/plugin_policy.hpp"
#include "engine/state.hpp"

namespace pegaflow {
namespace engine {

constexpr auto kWatchInterval = std::chrono::milliseconds(20);
constexpr std::size_t kEvictedAtOnce = 1024;
constexpr auto kCleanupPatience = std::chrono::seconds(1);
constexpr std::uint64_t kDefaultBlockBytes = std::uint64_t{2} << 20;
constexpr std::uint64_t kNoScope = UINT64_MAX;

// Of the index's time, modulo 2^32.
static std::uint32_t hundredths(Clock::time_point now) noexcept {
    return static_cast<std::uint32_t>(now.time_since_epoch() / std::chrono::milliseconds(10));
}

// What is evicted for want of room at one time: it reaches the counters at the end.
class EvictionTally {
public:
    explicit EvictionTally(Engine::State& state) noexcept : state_(state), residence_(state.counters.evicted_residence) {}
    EvictionTally(const EvictionTally&) = delete;
    ~EvictionTally() {
        state_.counters.evictions += blocks_;
        state_.counters.evicted_bytes += bytes_;
        state_.counters.evictions_offered += offered_;
    }
    void add(const Block& victim) noexcept {
        ++blocks_;
        bytes_ += victim.footprint();
        offered_ += victim.offered.load(std::memory_order_relaxed) ? 1 : 0;
        residence_.add(state_.index->residence_seconds(victim));
    }

private:
    Engine::State& state_;
    ResidenceCounter::Batch residence_;
    std::uint64_t blocks_ = 0, bytes_ = 0, offered_ = 0;
};

std::uint64_t OperationTable::add(std::shared_ptr<Operation> operation) {
    const std::lock_guard lock(mutex_);
    operations_.emplace(next_, std::move(operation));
    return next_++;
}

void OperationTable::remove(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    operations_.erase(id);
}

std::shared_ptr<Operation> OperationTable::find(std::uint64_t id) const {
    const std::lock_guard lock(mutex_);
    const auto it = operations_.find(id);
    return it == operations_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<Operation>> OperationTable::expired(Clock::time_point now) const {
    std::vector<std::shared_ptr<Operation>> out;
    const std::lock_guard lock(mutex_);
    for (const auto& [id, operation] : operations_) {
        if (operation->deadline <= now && !operation->timed_out.exchange(true)) out.push_back(operation);
    }
    return out;
}

std::vector<std::shared_ptr<Operation>> OperationTable::of(const Instance* instance) const {
    std::vector<std::shared_ptr<Operation>> out;
    const std::lock_guard lock(mutex_);
    for (const auto& [id, operation] : operations_) {
        if (instance == nullptr || operation->instance.get() == instance) out.push_back(operation);
    }
    return out;
}

}  // namespace engine

using engine::Block;
using engine::BlockRef;
using engine::Clock;
using engine::Instance;
using engine::Worker;

Result<std::shared_ptr<Instance>> Engine::State::instance(std::string_view id) const {
    const std::shared_lock lock(instances_mutex);
    const auto it = instances.find(id);
    if (it == instances.end()) return fail(Code::kNotFound, fmt::format("instance {} not found", id));
    return it->second;
}

std::uint64_t Engine::State::allocate_pages(std::uint64_t bytes, std::uint64_t count, Worker& worker,
                                            std::vector<std::uint64_t>& out) {
    return allocate_pages(bytes, count, worker.device().info().numa_node, &worker.pool(), out);
}

std::uint64_t Engine::State::allocate_pages(std::uint64_t bytes, std::uint64_t count, int node, engine::DeviceSlices* slices,
                                            std::vector<std::uint64_t>& out, engine::Wait wait) {
    if (pool->most_pages(bytes) == 0) return 0;  // whatever is evicted
    const auto usable = [&](std::size_t slice) { return slices->has(slice); };
    const auto allocate = [&](std::uint64_t wanted) {
        return pool->allocate_many(bytes, wanted, node, out, slices == nullptr ? engine::Pool::Usable() : usable);
    };
    const auto more_slices = [&] { return slices != nullptr && slices->get_next(); };
    std::uint64_t got = allocate(count);
    std::vector<BlockRef> victims;
    while (got < count) {
        index->set_pressure(true);
        index->evict((count - got) * bytes, engine::kEvictedAtOnce, victims);
        if (victims.empty() && more_slices()) {  // the device does not reach all of the pool yet
            got += allocate(count - got);
            continue;
        }
        // A block that waits for its digest cannot go yet, but soon.
        if (victims.empty() && wait == engine::Wait::kYes && wait_for_digest()) continue;
        if (victims.empty()) index->evict(bytes, 1, victims);  // the last digest may have come in between
        // Nor one that waits to be written to the tier: the pool comes first.
        if (victims.empty() && tier && tier->shed()) continue;
        if (victims.empty()) return got;
        engine::EvictionTally tally(*this);
        for (BlockRef& victim : victims) {
            tally.add(*victim);
            got += take_pages(*victim, bytes, count - got, slices, out);
        }
        victims.clear();
        if (got == count) break;
        const std::uint64_t more = allocate(count - got);
        // What went may lie where the device does not reach.
        got += more != 0 || !more_slices() ? more : allocate(count - got);
    }
    return got;
}

// Pages of a size go from an evicted block, which nobody else has, to the next one, past the pool.
std::uint64_t Engine::State::take_pages(Block& evicted, std::uint64_t bytes, std::uint64_t most,
                                        const engine::DeviceSlices* slices, std::vector<std::uint64_t>& out) const {
    std::uint64_t taken = 0;
    for (engine::Page& page : evicted.pages) {
        if (page.offset == engine::kNoPage || page.bytes != bytes || taken == most) continue;
        if (slices != nullptr && !slices->has(pool->slice_of(page.offset))) continue;
        out.push_back(std::exchange(page.offset, engine::kNoPage));
        ++taken;
    }
    return taken;
}

void Engine::State::note_erased(const Block& block) { counters.erased_residence.add(index->residence_seconds(block)); }

void Engine::State::run_watch() {
    // Looking for old incomplete blocks visits the whole index: often enough is a fraction of their time.
    const auto sweep_interval = std::clamp<std::chrono::nanoseconds>(options.incomplete_block_time / 8, engine::kWatchInterval,
                                                                     std::chrono::seconds(10));
    auto swept = Clock::now();
    std::unique_lock lock(background_mutex);
    while (!stop) {
        watch_stops.wait_for(lock, engine::kWatchInterval, [&] { return stop; });
        lock.unlock();
        watch_heartbeat.beat();
        const auto now = Clock::now();
        counters.leases_expired += leases.expire(now);
        for (const auto& operation : operations.expired(now)) operation->cancel();
        if (tier) tier->tick(now);
        if (prefetcher) prefetcher->tick(now);
        index->set_hundredths(engine::hundredths(now));
        if (distinct) distinct->tick(now);
        index->erase_doomed([&](const BlockRef& block) { note_erased(*block); });
        if (pool->used() < pool->ready_bytes() / 10 * 9) index->set_pressure(false);
        if (now - swept >= sweep_interval && index->incomplete() != 0) {
            swept = now;
            counters.incomplete_dropped +=
                index->drop_incomplete((now - options.incomplete_block_time).time_since_epoch().count(), engine::kNoScope);
        }
        lock.lock();
    }
}

void Engine::State::close(Clock::time_point deadline) {
    const std::lock_guard closing(close_mutex);
    if (closed) return;
    closed = true;
    gate.close();
    const Clock::time_point last = deadline;
    while (!gate.wait_empty_until(deadline)) {
        for (const auto& operation : operations.of(nullptr)) operation->cancel();
        deadline = Clock::now() + engine::kWatchInterval;  // for those that were being made
    }
    std::map<std::string, std::shared_ptr<Instance>, std::less<>> old;
    {
        const std::unique_lock lock(instances_mutex);
        old.swap(instances);
    }
    for (const auto& [id, instance] : old) {
        for (const auto& [device, worker] : instance->workers) worker->close();
    }
    // Nobody wants what is being read any more: half of the time is for what waits to be written.
    const auto begin = Clock::now();
    if (prefetcher && !prefetcher->close(begin + (std::max(last, begin) - begin) / 2)) {
        tier->cancel_reads();
        abandoned = !prefetcher->close(Clock::now() + engine::give_up_time(options.tier.io_time));
        if (abandoned) prefetcher->let_go();
    }
    if (tier) wait_for_digests(last);
    {
        const std::lock_guard lock(background_mutex);
        stop = true;
        digest_wanted.notify_all();
        digests_changed.notify_all();
        watch_stops.notify_all();
    }
    if (digest_thread.joinable()) digest_thread.join();
    if (watch_thread.joinable()) watch_thread.join();
    unfinished.clear();
    leases.expire(Clock::time_point::max());
    if (tier && !tier->close(last)) abandoned = true;
    if (abandoned) {
        // The device may still write into the pool or read it: nothing that a transfer could touch or call is freed.
        fabric.keep_open();
        base::log_error("engine",
                        "closed while transfers of the tier have not ended: the pool stays in memory until the "
                        "process ends");
        return;
    }
    prefetcher.reset();
    tier.reset();
    index.reset();
    admission.reset();
    pool_regions.reset();
    pool.reset();
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}

Engine::~Engine() {
    close();
    if (!state_->abandoned) return;
    // Named here, so that tools that look for leaks know that it is meant.
    static std::vector<State*>& kept = *new std::vector<State*>();
    static std::mutex& mutex = *new std::mutex();
    const std::lock_guard lock(mutex);
    kept.push_back(state_.release());
}

Result<std::unique_ptr<Engine>> Engine::create(EngineOptions options, Fabric& fabric, EngineObserver observer) {
    auto state = std::make_unique<State>(std::move(options), fabric, std::move(observer));
    const EngineOptions& o = state->options;
    if (o.max_queued_transfers == 0) return fail(Code::kInvalid, "max_queued_transfers is 0, expected at least 1");
    PEGA_TRY(state->check_leasing());
    PEGA_TRY(state->check_devices());
    PEGA_TRY(engine::check_windows(o.distinct_windows));
    const std::uint64_t block_bytes = o.block_bytes_hint != 0 ? o.block_bytes_hint : engine::kDefaultBlockBytes;
    const engine::PolicyScale scale{o.pool_bytes / block_bytes + 1, engine::BlockIndex::kShards};
    PEGA_ASSIGN(const auto eviction, engine::find_eviction_policy(fabric, o.eviction_policy, scale));
    PEGA_ASSIGN(state->admission, engine::find_admission_policy(fabric, o.admission_policy, scale));
    PEGA_ASSIGN(state->pool,
                engine::Pool::create({o.pool_bytes, o.hugepages, o.pool_file, o.numa_affinity, o.pool_slice_bytes}));
    state->pool_regions = std::make_unique<engine::PoolRegions>(*state->pool);
    state->index = std::make_unique<engine::BlockIndex>(eviction, *state->admission, *state->pool);
    state->index->set_hundredths(engine::hundredths(Clock::now()));
    if (!o.distinct_windows.empty())
        state->distinct = std::make_unique<engine::DistinctBlocks>(o.distinct_windows, Clock::now());
    State& s = *state;
    std::unique_ptr<Engine> engine(new Engine(std::move(state)));  // closes what has started when the rest does not
    if (!o.tier.paths.empty()) PEGA_TRY(s.open_tier());
    PEGA_ASSIGN(s.digest_thread, base::start_thread([&s] { s.run_digests(); }));
    PEGA_ASSIGN(s.watch_thread, base::start_thread([&s] { s.run_watch(); }));
    return engine;
}

SaveId Engine::save_async(const SaveRequest& request, std::function<void(Result<SaveOutcome>)> done) {
    return engine::start_save(*state_, request, std::move(done));
}

Result<void> Engine::cancel_save(SaveId save) {
    const auto operation = state_->operations.find(save);
    if (operation == nullptr) return fail(Code::kNotFound, fmt::format("save {} is over or never was", save));
    operation->abandon();
    return {};
}

Result<SaveOutcome> Engine::save(const SaveRequest& request) {
    auto promise = std::make_shared<std::promise<Result<SaveOutcome>>>();
    auto outcome = promise->get_future();
    save_async(request, [promise](Result<SaveOutcome> result) { promise->set_value(std::move(result)); });
    return outcome.get();
}

Result<QueryOutcome> Engine::query(const QueryRequest& request) {
    State& s = *state_;
    const auto pass = s.gate.enter();
    if (!pass) return fail(Code::kCanceled, "the engine is closing");
    if (request.request_id.empty()) return fail(Code::kInvalid, "req_id must not be empty");
    PEGA_ASSIGN(const auto expiry, s.lease_expiry(request.lease_time));
    PEGA_ASSIGN(const auto instance, s.instance(request.instance_id));
    for (const std::string_view hash : request.hashes) {
        if (hash.empty() || hash.size() > kMaxHashBytes) {
            return fail(Code::kInvalid, fmt::format("a block hash has {} bytes, expected 1 to {}", hash.size(), kMaxHashBytes));
        }
    }
    const bool sealed = instance->sealed.load(std::memory_order_acquire);
    if (request.group != 0) {
        if (!sealed) PEGA_TRY(instance->worker(0));
        if (request.group >= instance->layout.groups.size()) {
            return fail(Code::kInvalid, fmt::format("unknown storage group {}: instance {} has {}", request.group, instance->id,
                                                    instance->layout.groups.size()));
        }
    }
    QueryOutcome outcome;
    std::vector<BlockRef> blocks, held;
    const bool tiered = s.prefetcher && sealed && (request.group == 0 || request.whole_prefix_only);
    auto progress = engine::Prefetcher::Progress::kUnknown;
    engine::Prefetcher::Name name;
    std::uint64_t fetched = 0;
    if (tiered) {
        name = engine::prefetch_name(request);
        progress = s.prefetcher->poll(name, &held, &fetched);
        outcome.loading = progress == engine::Prefetcher::Progress::kLoading;
        if (outcome.loading) return outcome;
    }
    if (sealed && request.group == 0) {
        s.index->lookup_prefix(instance->scope, 0, request.hashes, blocks);
    } else if (sealed) {
        s.index->lookup_each(instance->scope, request.group, request.hashes, blocks, outcome.hit_positions);
    }
    if (tiered && progress == engine::Prefetcher::Progress::kUnknown && blocks.size() < request.hashes.size()) {
        PEGA_ASSIGN(const bool begun, s.begin_prefetch(request, *instance, name, blocks, outcome.hit_positions));
        if (begun) return QueryOutcome{.loading = true};
    }
    if (s.tier) s.offer_again(blocks);
    ++s.counters.queries;
    outcome.hit_blocks = blocks.size();
    const std::uint64_t from_tier = std::min<std::uint64_t>(fetched, blocks.size());
    s.counters.tier_hits += from_tier;
    s.counters.memory_hits += blocks.size() - from_tier;
    s.counters.misses += request.hashes.size() - blocks.size();
    if (s.distinct && sealed && request.group == 0)
        s.distinct->count(instance->scope, request.hashes.size(), request.hashes.subspan(blocks.size()));
    const bool partial = request.whole_prefix_only && request.group != 0 && blocks.size() < request.hashes.size();
    if (blocks.empty() || partial) return outcome;
    PEGA_ASSIGN(outcome.lease, s.make_lease(*instance, std::move(blocks), expiry));
    return outcome;
}

Result<void> Engine::flush() {
    State& s = *state_;
    std::unique_lock lock(s.background_mutex);
    s.digests_changed.wait(lock, [&] { return s.stop || (s.unfinished.empty() && s.finishing == 0); });
    return {};
}

MemoryCleanup Engine::cleanup_memory() {
    State& s = *state_;
    MemoryCleanup out;
    const auto pass = s.gate.enter();
    if (!pass) return out;
    // What was saved a moment ago is held by the digest thread; more may come all the time.
    s.wait_for_digests(Clock::now() + engine::kCleanupPatience);
    const std::uint64_t before = s.pool->used();
    out.still_referenced_blocks = s.index->erase_all([&](const BlockRef& block) {
        ++out.evicted_blocks;
        out.evicted_bytes += block->footprint();
        s.note_erased(*block);
    });
    const std::uint64_t after = s.pool->used();
    out.reclaimed_bytes = before > after ? before - after : 0;
    return out;
}

bool Engine::contains(std::string_view instance_id, std::string_view hash, std::uint32_t group) const {
    const auto pass = state_->gate.enter();
    const auto instance = state_->instance(instance_id);
    return pass && instance && (*instance)->sealed.load(std::memory_order_acquire) &&
           state_->index->contains((*instance)->scope, group, hash);
}

void Engine::close(Clock::time_point deadline) { state_->close(deadline); }

}  // namespace pegaflow
