// SPDX-License-Identifier: Apache-2.0
// Registration: workers come, the last one seals; instances go when nothing of theirs moves any more. And what there is, in
// numbers.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "engine/state.hpp"

namespace pegaflow {
namespace {

using engine::Clock;
using engine::Instance;
using engine::Worker;

constexpr auto kDrainTime = std::chrono::seconds(2);  // for copies of an instance that leaves
constexpr auto kDrainStep = std::chrono::milliseconds(20);
constexpr double kSilence = 10;  // seconds after which a thread counts as stuck

Result<void> check_worker(const WorkerRegistration& w) {
    if (w.instance_id.empty()) return fail(Code::kInvalid, "instance_id must not be empty");
    if (w.tp_size == 0 || w.world_size == 0)
        return fail(Code::kInvalid, fmt::format("tp_size {} and world_size {} must be positive", w.tp_size, w.world_size));
    if (w.tp_rank >= w.tp_size)
        return fail(Code::kInvalid, fmt::format("tp_rank {} must be less than tp_size {}", w.tp_rank, w.tp_size));
    if (w.device_id < 0) return fail(Code::kInvalid, fmt::format("device_id {} must not be negative", w.device_id));
    if (w.layers.empty()) return fail(Code::kInvalid, fmt::format("device {} registered no KV cache layers", w.device_id));
    for (const LayerRegistration& layer : w.layers) PEGA_TRY(engine::layer_geometry(layer));
    return {};
}

// One worker's layers must be reachable through one device.
Result<Device*> common_device(Engine::State& state, const WorkerRegistration& w) {
    Device* device = nullptr;
    for (const LayerRegistration& layer : w.layers) {
        PEGA_ASSIGN(Device* const here, state.device_for(layer.memory));
        if (device != nullptr && device != here) {
            return fail(Code::kInvalid, fmt::format("layer \"{}\" lives on {}, the worker's other layers on {}", layer.name,
                                                    here->info().name, device->info().name));
        }
        device = here;
    }
    return device;
}

std::shared_ptr<Instance> find_or_make(Engine::State& state, const WorkerRegistration& w) {
    const std::unique_lock lock(state.instances_mutex);
    std::shared_ptr<Instance>& slot = state.instances[w.instance_id];
    if (!slot) {
        slot = std::make_shared<Instance>();
        slot->number = ++state.instance_count;
        state.leases.add_instance(slot->number);
        slot->id = w.instance_id;
        slot->name_space = w.name_space;
        slot->tp_size = w.tp_size;
        slot->world_size = w.world_size;
        slot->page_first = w.page_first;
        slot->dtype = w.dtype;
        slot->publish();
    }
    return slot;
}

// Checks against the instance that is there. Its mutex is held.
Result<void> check_fits(const Instance& instance, const WorkerRegistration& w) {
    if (instance.tp_size != w.tp_size || instance.world_size != w.world_size || instance.page_first != w.page_first) {
        return fail(
            Code::kNotReady,
            fmt::format("topology mismatch: instance {} exists with tp={}, world={}, page_first={}; requested tp={}, world={}, "
                        "page_first={}",
                        instance.id, instance.tp_size, instance.world_size, instance.page_first, w.tp_size, w.world_size,
                        w.page_first));
    }
    if (instance.name_space != w.name_space) {
        return fail(Code::kNotReady, fmt::format("topology mismatch: instance {} exists in namespace \"{}\"; requested \"{}\"",
                                                 instance.id, instance.name_space, w.name_space));
    }
    if (instance.dtype != w.dtype) {
        return fail(Code::kNotReady, fmt::format("topology mismatch: instance {} exists with dtype \"{}\"; requested \"{}\"",
                                                 instance.id, instance.dtype, w.dtype));
    }
    if (instance.workers.contains(w.device_id)) {
        return fail(Code::kExists,
                    fmt::format("GPU context for device {} already exists in instance {}", w.device_id, instance.id));
    }
    if (instance.sealed.load(std::memory_order_acquire)) {
        return fail(Code::kNotReady, fmt::format("instance {} is already fully registered ({} workers); device {} cannot join",
                                                 instance.id, instance.workers.size(), w.device_id));
    }
    return {};
}

// A page that no slice can hold would be asked for in vain, and all others be evicted for it.
Result<void> check_pages(const engine::Pool& pool, const engine::Layout& layout) {
    for (std::size_t group = 0; group < layout.shapes.size(); ++group) {
        for (const engine::GroupShape::Shard& shard : layout.shapes[group].shards) {
            if (pool.most_pages(shard.page_bytes) != 0) continue;
            return fail(
                Code::kInvalid,
                fmt::format("a block page of storage group {} has {} bytes, more than any slice of the pool of {} bytes: "
                            "no such block can be stored",
                            group, shard.page_bytes, pool.capacity()));
        }
    }
    return {};
}

Result<void> seal(Engine::State& state, Instance& instance) {
    std::vector<const WorkerRegistration*> all;
    for (const auto& [device, worker] : instance.workers) all.push_back(&worker->registration());
    PEGA_ASSIGN(instance.layout, engine::seal_layout(all));
    PEGA_TRY(check_pages(*state.pool, instance.layout));
    instance.scope = state.scopes.number_of(instance.name_space, instance.layout.fingerprint);
    instance.sealed.store(true, std::memory_order_release);
    base::log_info("engine", "instance {} sealed: {} workers, layout {}", instance.id, instance.workers.size(),
                   instance.layout.fingerprint);
    return {};
}

// Adds the worker, and seals when it is the last one. The instance's mutex is held.
Result<void> join(Engine::State& state, Instance& instance, const WorkerRegistration& worker) {
    PEGA_TRY(check_fits(instance, worker));
    PEGA_ASSIGN(Device* const device, common_device(state, worker));
    PEGA_ASSIGN(engine::DeviceSlices* const pool, state.pool_regions->open(*device));
    PEGA_ASSIGN(auto opened, Worker::open(worker, *device, *pool, state.options.max_queued_transfers));
    instance.workers.emplace(worker.device_id, std::move(opened));
    Result<void> sealed;
    if (instance.workers.size() == instance.world_size) sealed = seal(state, instance);
    if (!sealed) instance.workers.erase(worker.device_id);
    instance.publish();
    return sealed;
}

// Its mutex is held; the order is always an instance's mutex before the table's.
void forget_if_empty(Engine::State& state, Instance& instance) {
    if (!instance.workers.empty()) return;
    instance.closed = true;
    state.leases.drop_instance(instance.number);
    const std::unique_lock lock(state.instances_mutex);
    const auto it = state.instances.find(instance.id);
    if (it != state.instances.end() && it->second.get() == &instance) state.instances.erase(it);
}

// Lets copies end by themselves for a while; then what still waits, for an event of a client that died perhaps, is cancelled.
void drain(Engine::State& state, Instance& instance) {
    for (const auto& [device, worker] : instance.workers) worker->refuse();
    const Clock::time_point patient = Clock::now() + kDrainTime;
    for (const auto& [device, worker] : instance.workers) {
        if (worker->wait_idle(patient)) continue;
        do {
            for (const auto& operation : state.operations.of(&instance)) operation->cancel();
        } while (!worker->wait_idle(Clock::now() + kDrainStep));
    }
}

}  // namespace

Result<void> Engine::register_worker(const WorkerRegistration& worker) {
    State& s = *state_;
    const auto pass = s.gate.enter();
    if (!pass) return fail(Code::kCanceled, "the engine is closing");
    PEGA_TRY(check_worker(worker));
    for (;;) {
        const std::shared_ptr<Instance> instance = find_or_make(s, worker);
        const std::lock_guard lock(instance->mutex);
        if (instance->closed) continue;  // it went since it was found
        auto joined = join(s, *instance, worker);
        if (!joined) forget_if_empty(s, *instance);
        return joined;
    }
}

Result<void> Engine::unregister_instance(std::string_view instance_id) {
    State& s = *state_;
    const auto pass = s.gate.enter();
    if (!pass) return fail(Code::kCanceled, "the engine is closing");
    PEGA_ASSIGN(const auto instance, s.instance(instance_id));
    {
        const std::unique_lock lock(s.instances_mutex);
        const auto it = s.instances.find(instance_id);
        if (it == s.instances.end() || it->second != instance)
            return fail(Code::kNotFound, fmt::format("instance {} not found", instance_id));
        s.instances.erase(it);
    }
    {
        const std::lock_guard lock(instance->mutex);
        instance->closed = true;
        drain(s, *instance);
        for (const auto& [device, worker] : instance->workers) worker->close();
    }
    if (s.prefetcher) s.prefetcher->drop_instance(instance->id);
    s.leases.drop_instance(instance->number);
    bool shared = false;
    {
        const std::shared_lock lock(s.instances_mutex);
        shared = std::any_of(s.instances.begin(), s.instances.end(), [&](const auto& other) {
            return other.second->sealed.load(std::memory_order_acquire) && other.second->scope == instance->scope;
        });
    }
    if (!shared && instance->scope != 0) s.counters.incomplete_dropped += s.index->drop_incomplete(INT64_MIN, instance->scope);
    base::log_info("engine", "instance {} unregistered", instance_id);
    return {};
}

std::vector<InstanceInfo> Engine::instances() const {
    std::vector<InstanceInfo> out;
    const std::shared_lock lock(state_->instances_mutex);
    for (const auto& [id, instance] : state_->instances) out.push_back(instance->info());
    return out;
}

EngineHealth Engine::health() const {
    EngineHealth out;
    const auto pass = state_->gate.enter();
    if (!pass) return out;
    out.devices = state_->fabric.health();
    out.limits = state_->pool_regions->problems();
    const auto watch = [&](const base::Heartbeat& heartbeat, const char* name) {
        if (const double silence = heartbeat.silence(); silence > kSilence)
            out.problems.push_back(fmt::format("the {} thread has not run for {:.0f} s", name, silence));
    };
    watch(state_->digest_heartbeat, "digest");
    watch(state_->watch_heartbeat, "watch");
    const std::shared_lock lock(state_->instances_mutex);
    for (const auto& [id, instance] : state_->instances) {
        if (!instance->sealed.load(std::memory_order_acquire)) continue;
        const std::unique_lock stays(instance->mutex, std::try_to_lock);
        if (!stays || instance->closed) continue;  // it is being closed
        for (const auto& [device, worker] : instance->workers) {
            for (const pega_status status : {worker->saves().state(), worker->loads().state()}) {
                if (status == PEGA_OK || status == PEGA_PENDING) continue;
                out.problems.push_back(fmt::format("the channel of device {} of instance {} on {} broke: {}", device, id,
                                                   worker->device().info().name, to_string(static_cast<Code>(status))));
                break;
            }
        }
    }
    return out;
}

std::vector<DistinctWindow> Engine::distinct_windows() const {
    return state_->distinct ? state_->distinct->read() : std::vector<DistinctWindow>();
}

EngineStats Engine::stats() const {
    const State& s = *state_;
    const auto pass = state_->gate.enter();
    const engine::Counters& c = s.counters;
    EngineStats out;
    if (pass) {
        out.pool_capacity_bytes = s.pool->capacity();
        out.pool_ready_bytes = s.pool_regions->ready_bytes();
        out.pool_used_bytes = s.pool->used();
        out.pool_largest_free_bytes = s.pool->largest_free();
        out.resident_blocks = s.index->resident();
        out.resident_bytes = s.index->resident_bytes();
        out.incomplete_blocks = s.index->incomplete();
        out.incomplete_bytes = s.index->incomplete_bytes();
        const std::uint64_t held = out.resident_bytes + out.incomplete_bytes;
        out.staging_bytes = out.pool_used_bytes > held ? out.pool_used_bytes - held : 0;
    }
    out.pool_alloc_failures = c.alloc_failures;
    out.incomplete_dropped = c.incomplete_dropped;
    // Each of the two only grows, whatever queries do between the reads; their difference would not.
    const std::uint64_t tier_hits = c.tier_hits;
    out.memory_hits = c.memory_hits;
    out.block_hits = out.memory_hits + tier_hits;
    out.block_misses = c.misses;
    out.insertions = c.insertions;
    out.admission_rejections = c.rejections;
    out.evictions = c.evictions;
    out.evicted_bytes = c.evicted_bytes;
    out.evictions_offered = c.evictions_offered;
    out.evicted_residence = c.evicted_residence.read();
    out.erased_residence = c.erased_residence.read();
    out.quarantined_blocks = c.quarantined;
    out.digest_mismatches = c.mismatches;
    out.save_requests = c.save_requests;
    out.save_failures = c.save_failures;
    out.saved_blocks = c.saved_blocks;
    out.duplicate_blocks = c.duplicates;
    out.save_bytes = c.save_bytes;
    out.load_requests = c.load_requests;
    out.load_failures = c.load_failures;
    out.load_bytes = c.load_bytes;
    out.loads_in_flight = c.loads_in_flight;
    out.saves_in_flight = c.saves_in_flight;
    out.leases = s.leases.size();
    out.leases_expired = c.leases_expired;
    out.queries = c.queries;
    out.queue_full = c.queue_full;
    out.canceled = c.canceled;
    if (pass && s.tier) {
        s.tier->add_stats(out);
        s.prefetcher->add_stats(out.tier);
        out.tier.hits = tier_hits;
    }
    for (const InstanceInfo& instance : instances()) {
        ++out.instances;
        out.workers += instance.workers.size();
    }
    return out;
}

}  // namespace pegaflow
