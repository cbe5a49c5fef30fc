// SPDX-License-Identifier: Apache-2.0
// Loading: check everything, take the worker's shares of the leases, then one batch a layer group
// and slice of the pool, reporting layers as they
// land.
#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <set>

#include "engine/state.hpp"

namespace pegaflow::engine {
namespace {

// Blocks of a group whose pages lie in one slice of the pool.
struct LoadBatch {
    std::size_t slice = 0;
    std::vector<std::uint64_t> local_index, remote_index;
    Transfer transfer;
    std::uint64_t landed = 0;  // layers; written by the progress thread of the device alone
};

struct LoadGroup {
    std::uint32_t group = 0;
    std::uint32_t shard = 0;
    std::vector<const WorkerLayer*> layers;
    std::vector<std::uint64_t> offsets;               // of the layers in the page
    std::vector<std::unique_ptr<LoadBatch>> batches;  // none: nothing to move

    // Leading layers that are there for all blocks.
    std::uint64_t landed() const {
        std::uint64_t least = layers.size();
        for (const auto& batch : batches) least = std::min(least, batch->landed);
        return least;
    }
    LoadBatch& batch_in(std::size_t slice) {
        const auto it = std::find_if(batches.begin(), batches.end(), [&](const auto& b) { return b->slice == slice; });
        if (it != batches.end()) return **it;
        batches.push_back(std::make_unique<LoadBatch>());
        batches.back()->slice = slice;
        return *batches.back();
    }
};

class LoadOperation final : public Operation {
public:
    LoadOperation(Engine::State& s, std::shared_ptr<Instance> owner, Worker& w, base::Gate::Pass engine_pass,
                  base::Gate::Pass worker_pass, Clock::time_point when, LoadCallbacks user)
        : Operation(std::move(owner), when),
          state(s),
          worker(w),
          passes{std::move(engine_pass), std::move(worker_pass)},
          callbacks(std::move(user)) {}

    void cancel() override {
        for (const auto& group : groups) {
            for (const auto& batch : group->batches) worker.loads().cancel(batch->transfer);
        }
    }
    void layers_landed(LoadBatch& batch, std::uint64_t layers);
    // Tells how many leading layers are there when that is news.
    void report();
    void batch_done(const LoadGroup& group, LoadBatch& batch, pega_status status, std::uint64_t bytes);
    void release_share();

    Engine::State& state;
    Worker& worker;
    base::Gate::Pass passes[2];
    LoadCallbacks callbacks;
    const Clock::time_point started = Clock::now();
    std::vector<std::unique_ptr<LoadGroup>> groups;
    std::vector<LeasedBlocks> blocks;  // pinned until no byte moves
    std::atomic<std::size_t> remaining{1};
    std::atomic<pega_status> failure{PEGA_OK};
    std::atomic<std::uint64_t> bytes{0};
    std::uint64_t id = 0;

private:
    void finish();
    std::uint64_t reported_ = 0;  // batches of a device report on one thread
};

void LoadOperation::layers_landed(LoadBatch& batch, std::uint64_t layers) {
    batch.landed = layers;
    report();
}

void LoadOperation::report() {
    if (!callbacks.on_layers) return;
    std::uint64_t leading = 0;
    for (const auto& g : groups) {
        const std::uint64_t landed = g->landed();
        leading += landed;
        if (landed < g->layers.size()) break;
    }
    if (leading > reported_) callbacks.on_layers(reported_ = leading);
}

void LoadOperation::batch_done(const LoadGroup& group, LoadBatch& batch, pega_status status, std::uint64_t moved) {
    bytes.fetch_add(moved, std::memory_order_relaxed);
    if (status == PEGA_OK) {
        layers_landed(batch, group.layers.size());
    } else {
        failure.store(status, std::memory_order_relaxed);
    }
    release_share();
}

void LoadOperation::release_share() {
    if (remaining.fetch_sub(1, std::memory_order_acq_rel) == 1) finish();
}

void LoadOperation::finish() {
    Counters& c = state.counters;
    const pega_status status = failure.load(std::memory_order_relaxed);
    const std::uint64_t moved = bytes.load(std::memory_order_relaxed);
    const std::chrono::duration<double> seconds = Clock::now() - started;
    c.load_bytes += moved;
    --c.loads_in_flight;
    if (status != PEGA_OK) ++c.load_failures;
    if (status == PEGA_CANCELED) ++c.canceled;
    if (state.observer.on_load) state.observer.on_load(seconds.count(), moved, status == PEGA_OK);
    state.operations.remove(id);
    blocks.clear();
    const auto on_done = std::move(callbacks.on_done);
    const Code code = code_of(status);
    passes[0] = {};
    passes[1] = {};
    if (!on_done) return;
    if (status == PEGA_OK) return on_done({});
    on_done(fail(code, fmt::format("storage error: the copy of a load ended as {}", to_string(code))));
}

Result<void> make_groups(LoadOperation& op, const Instance& instance, const LoadRequest& request) {
    const WorkerRegistration& who = op.worker.registration();
    if (request.layer_groups.empty()) return fail(Code::kInvalid, "a load needs at least one layer group");
    std::set<std::string_view> seen;
    for (const auto& names : request.layer_groups) {
        auto group = std::make_unique<LoadGroup>();
        if (names.empty()) return fail(Code::kInvalid, "a layer group of a load is empty");
        for (const std::string_view name : names) {
            const WorkerLayer* layer = op.worker.layer(name);
            if (layer == nullptr)
                return fail(Code::kInvalid, fmt::format("layer {} is not registered on device {}", name, who.device_id));
            if (!seen.insert(name).second)
                return fail(Code::kInvalid, fmt::format("layer {} is named twice in one load", name));
            const Layout::Place* place = instance.layout.find(who.tp_rank, who.pp_rank, name);
            if (!group->layers.empty() && place->group != group->group) {
                return fail(Code::kInvalid, fmt::format("layer {} is of storage group {}, its load group began with {}", name,
                                                        place->group, group->group));
            }
            group->group = place->group;
            group->shard = place->shard;
            group->layers.push_back(layer);
            group->offsets.push_back(instance.layout.groups[place->group][place->shard].layers[place->layer].offset);
        }
        op.groups.push_back(std::move(group));
    }
    return {};
}

// Pairs the blocks of one lease with their destinations.
Result<void> place_lease(LoadOperation& op, const Instance& instance, const LeaseLoad& load, LeasedBlocks leased) {
    const std::vector<BlockRef>& blocks = *leased;
    if (load.block_ids_by_group.size() != op.groups.size()) {
        return fail(Code::kInvalid, fmt::format("load group count {} does not match layer group count {}",
                                                load.block_ids_by_group.size(), op.groups.size()));
    }
    for (std::size_t g = 0; g < op.groups.size(); ++g) {
        LoadGroup& group = *op.groups[g];
        const auto& targets = load.block_ids_by_group[g];
        if (targets.size() != blocks.size()) {
            return fail(Code::kInvalid,
                        fmt::format("query lease block count {} does not match destination block count {} for group {}",
                                    blocks.size(), targets.size(), g));
        }
        std::uint64_t limit = UINT64_MAX;
        for (const WorkerLayer* layer : group.layers) limit = std::min(limit, layer->geometry.num_blocks);
        for (std::size_t i = 0; i < targets.size(); ++i) {
            if (targets[i] == kNoBlock) continue;
            const Block& block = *blocks[i];
            if (block.key.scope != instance.scope || block.key.group != group.group ||
                !instance.layout.shapes[group.group].fits(block, group.shard)) {
                return fail(
                    Code::kInvalid,
                    fmt::format(
                        "stored block has {} slots but storage group {} of instance {} expects {}: namespace is shared by "
                        "incompatible KV layouts",
                        block.pages.size(), group.group, instance.id, instance.layout.groups[group.group].size()));
            }
            if (targets[i] >= limit) {
                return fail(Code::kInvalid,
                            fmt::format("destination block {} of group {} is out of range, its layers have {} blocks",
                                        targets[i], g, limit));
            }
            const std::uint64_t offset = block.pages[group.shard].offset;
            LoadBatch& batch = group.batch_in(op.state.pool->slice_of(offset));
            batch.local_index.push_back(targets[i]);
            batch.remote_index.push_back(offset - op.state.pool->slice(batch.slice).offset);
        }
    }
    op.blocks.push_back(std::move(leased));
    return {};
}

Result<void> build_transfer(LoadOperation& op, const LoadGroup& group, LoadBatch& batch, const LoadRequest& request,
                            pega_event* event) {
    PEGA_ASSIGN(const Region* const pool, op.worker.pool().get(batch.slice));
    batch.transfer.clear()
        .read()
        .indices(batch.local_index, batch.remote_index)
        .mark_every(1)
        .deadline(request.deadline)
        .priority(2);
    if (event != nullptr) batch.transfer.wait_event(event);
    for (std::size_t i = 0; i < group.layers.size(); ++i) {
        const LayerGeometry& g = group.layers[i]->geometry;
        batch.transfer.span({group.layers[i]->region->handle(), pool->handle(), group.layers[i]->base, g.block_stride,
                             g.segment_stride, group.offsets[i], 1, g.segment_bytes, g.segment_bytes, g.segments, 0});
    }
    batch.transfer.on_mark([&op, &batch](std::uint64_t landed) { op.layers_landed(batch, landed); });
    return {};
}

Result<void> check(LoadOperation& op, const Instance& instance, const LoadRequest& request) {
    PEGA_TRY(make_groups(op, instance, request));
    std::set<LeaseId> named;
    for (const LeaseLoad& load : request.loads) {
        if (!named.insert(load.lease).second) return fail(Code::kInvalid, "a lease is named twice in one load");
        PEGA_ASSIGN(auto blocks, op.state.leases.peek(load.lease, {instance.number, instance.id}, request.device_id));
        PEGA_TRY(place_lease(op, instance, load, std::move(blocks)));
    }
    if (op.state.options.verify_on_load) {
        for (const LeasedBlocks& leased : op.blocks) {
            for (const BlockRef& block : *leased) {
                if (!op.state.verify(*block))
                    return fail(Code::kCorrupt, "storage error: a block does not have its digest any more; it was dropped");
            }
        }
    }
    return {};
}

Result<void> launch(const std::shared_ptr<LoadOperation>& op, const Instance& instance, const LoadRequest& request) {
    pega_event* event = request.local_event;
    if (!request.wait_event.empty()) {
        PEGA_ASSIGN(event, op->worker.event(request.wait_event));
    }
    PEGA_TRY(check(*op, instance, request));
    std::vector<std::pair<const LoadGroup*, LoadBatch*>> moving;
    for (const auto& group : op->groups) {
        for (const auto& batch : group->batches) {
            PEGA_TRY(build_transfer(*op, *group, *batch, request, event));
            moving.emplace_back(group.get(), batch.get());
        }
    }
    Lane& lane = op->worker.loads();
    PEGA_TRY(lane.reserve(moving.size()));
    // Nothing can be wrong with the request any more, and there is room for it: only now the shares go.
    std::vector<LeaseId> leases;
    for (const LeaseLoad& load : request.loads) leases.push_back(load.lease);
    if (auto taken = op->state.leases.consume(leases, {instance.number, instance.id}, request.device_id); !taken) {
        lane.unreserve(moving.size());
        return taken;
    }
    if (moving.empty()) op->report();
    op->remaining.store(moving.size() + 1, std::memory_order_relaxed);
    for (std::size_t i = 0; i < moving.size(); ++i) {
        const auto [group, batch] = moving[i];
        auto started =
            lane.submit(batch->transfer, [op, group = group, batch = batch](pega_status status, std::uint64_t bytes) {
                op->batch_done(*group, *batch, status, bytes);
            });
        if (started) continue;
        // The shares are gone, and some batches may run already: the load has begun, and ends as failed when they have ended.
        lane.unreserve(moving.size() - i);
        op->failure.store(static_cast<pega_status>(started.error().code), std::memory_order_relaxed);
        op->remaining.fetch_sub(moving.size() - i, std::memory_order_acq_rel);
        break;
    }
    return {};
}

}  // namespace

Result<LoadId> start_load(Engine::State& state, const LoadRequest& request, LoadCallbacks callbacks) {
    auto engine_pass = state.gate.enter();
    if (!engine_pass) return fail(Code::kCanceled, "the engine is closing");
    PEGA_ASSIGN(const auto instance, state.instance(request.instance_id));
    PEGA_ASSIGN(Worker* const worker, instance->worker(request.device_id));
    auto worker_pass = worker->enter();
    if (!worker_pass) return fail(Code::kCanceled, fmt::format("instance {} is being unregistered", request.instance_id));
    ++state.counters.load_requests;
    ++state.counters.loads_in_flight;
    auto op = std::make_shared<LoadOperation>(state, instance, *worker, std::move(engine_pass), std::move(worker_pass),
                                              request.deadline, std::move(callbacks));
    auto launched = launch(op, *instance, request);
    if (launched) {
        const LoadId id = op->id = state.operations.add(op);  // complete now: it may be cancelled
        op->release_share();
        return id;
    }
    if (launched.error().code == Code::kQueueFull) ++state.counters.queue_full;
    ++state.counters.load_failures;
    --state.counters.loads_in_flight;
    op->blocks.clear();
    return fail(std::move(launched).error());
}

}  // namespace pegaflow::engine

namespace pegaflow {

Result<LoadId> Engine::load_async(const LoadRequest& request, LoadCallbacks callbacks) {
    return engine::start_load(*state_, request, std::move(callbacks));
}

Result<void> Engine::load(const LoadRequest& request) {
    auto promise = std::make_shared<std::promise<Result<void>>>();
    auto outcome = promise->get_future();
    PEGA_TRY(load_async(request, {nullptr, [promise](Result<void> result) { promise->set_value(std::move(result)); }}));
    return outcome.get();
}

Result<void> Engine::cancel_load(LoadId load) {
    const auto operation = state_->operations.find(load);
    if (operation == nullptr) return fail(Code::kNotFound, fmt::format("load {} is over or never was", load));
    operation->abandon();
    return {};
}

}  // namespace pegaflow
