// SPDX-License-Identifier: Apache-2.0
// Saving: what was claimed is copied in one batch a part, and complete blocks become visible.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "engine/save.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::size_t kExpected = 8;  // blocks that the end of a copy looks ahead

}  // namespace

void SaveOperation::part_done(SavePart& part, pega_status status, std::uint64_t moved) {
    bytes.fetch_add(moved, std::memory_order_relaxed);
    // A copy that could not be stopped may have read what the user wrote after it had given the save up: that is no block.
    if (status == PEGA_OK && given_up()) status = PEGA_CANCELED;
    if (status == PEGA_OK) {
        seal(part);
    } else {
        for (const FillClaim& claim : part.claims) state.index->unclaim(claim, part.list->shard);
        part.claims.clear();
        failure.store(status, std::memory_order_relaxed);
    }
    release_share();
}

void SaveOperation::seal(SavePart& part) {
    const auto sums = part.digested != nullptr ? part.transfer.digest_sums() : std::span<const std::uint64_t>();
    std::vector<BlockRef> unfinished;
    if (sums.empty() || state.tier) unfinished.reserve(part.claims.size());
    std::uint64_t inserted = 0, rejected = 0;
    // From the end of the prefix to its start: what comes last counts as the newest, and a block must go before those it
    // continues. A claim goes at once: its block may be what another save has to evict.
    for (std::size_t left = part.claims.size(); left-- > 0; part.claims.pop_back()) {
        if (left >= kExpected) state.index->expect_filled(*part.claims[left - kExpected].block);
        FillClaim& claim = part.claims[left];
        bool admitted = false;
        const auto digest = sums.empty() ? std::nullopt : std::optional(whole_digest(part, left, sums[left]));
        if (!state.index->filled(claim, part.list->shard, &admitted, digest)) continue;
        ++(admitted ? inserted : rejected);
        if (admitted && state.is_unfinished(*claim.block)) unfinished.push_back(std::move(claim.block));
    }
    state.counters.insertions += inserted;
    state.counters.rejections += rejected;
    state.finish_later(std::move(unfinished));
}

// Of the page of a claim, of which the copy moved all but the gaps.
std::uint64_t SaveOperation::whole_digest(const SavePart& part, std::size_t number, std::uint64_t copied) const noexcept {
    return copied + state.digest_gaps(*part.digested, part.claims[number].block->pages[part.list->shard]);
}

void SaveOperation::release_share() {
    if (remaining.fetch_sub(1, std::memory_order_acq_rel) == 1) finish();
}

void SaveOperation::finish() {
    Counters& c = state.counters;
    outcome.bytes = bytes.load(std::memory_order_relaxed);
    const pega_status status = failure.load(std::memory_order_relaxed);
    const std::chrono::duration<double> seconds = Clock::now() - started;
    c.save_bytes += outcome.bytes;
    c.duplicates += outcome.duplicate_blocks;
    if (status == PEGA_OK) c.saved_blocks += outcome.saved_blocks;
    --c.saves_in_flight;
    if (status != PEGA_OK) ++c.save_failures;
    if (status == PEGA_CANCELED) ++c.canceled;
    if (state.observer.on_save) state.observer.on_save(seconds.count(), outcome.bytes);
    state.operations.remove(id);
    const auto callback = std::move(done);
    const Code code = code_of(status);
    // The passes go before the callback: whoever waits for the answer may unregister right after it.
    passes[0] = {};
    passes[1] = {};
    if (status == PEGA_OK) return callback(outcome);
    callback(fail(code, fmt::format("storage error: the copy of a save ended as {}", to_string(code))));
}

namespace {

Result<void> build_transfer(SavePart& part, const Instance& instance, const Worker& worker, const SaveRequest& request,
                            bool digests, pega_event* event) {
    PEGA_ASSIGN(const Region* const pool, worker.pool().get(part.slice));
    const SaveList& list = *part.list;
    const Shard& shard = instance.layout.groups[list.group][list.shard];
    part.transfer.clear().write().indices(part.local_index, part.remote_index).deadline(request.deadline);
    if (event != nullptr) part.transfer.wait_event(event);
    if (digests && part.claims.front().layers.size() == shard.layers.size()) {
        part.transfer.digests();
        part.digested = &shard;
    }
    for (std::size_t i = 0; i < list.layers.size(); ++i) {
        const std::uint32_t number = list.numbers[i];
        if (!part.claims.front().layers.has(number)) continue;
        const LayerGeometry& g = list.layers[i]->geometry;
        part.transfer.span({list.layers[i]->region->handle(), pool->handle(), list.layers[i]->base, g.block_stride,
                            g.segment_stride, shard.layers[number].offset, 1, g.segment_bytes, g.segment_bytes, g.segments, 0});
    }
    return {};
}

// Claims, builds and submits; an error means that nothing of it remains.
Result<void> launch(const std::shared_ptr<SaveOperation>& op, const Instance& instance, const SaveRequest& request) {
    pega_event* event = request.local_event;
    if (!request.wait_event.empty()) {
        PEGA_ASSIGN(event, op->worker.event(request.wait_event));
    }
    PEGA_ASSIGN(op->lists, make_save_lists(instance, op->worker, request));
    // Most lists are one batch each: a queue without room for them is told before anything is evicted for them.
    Lane& lane = op->worker.saves();
    std::size_t reserved = op->lists.size();
    PEGA_TRY(lane.reserve(reserved));
    Result<void> result = claim_lists(*op, instance);
    if (result && op->parts.size() > reserved) result = lane.reserve(op->parts.size() - reserved, reserved);
    if (result && op->parts.size() < reserved) lane.unreserve(reserved - op->parts.size());
    if (result) reserved = op->parts.size();
    std::size_t submitted = 0;
    op->remaining.store(op->parts.size() + 1, std::memory_order_relaxed);
    for (const auto& part : op->parts) {
        if (!result) break;
        result = build_transfer(*part, instance, op->worker, request, op->state.options.digests, event);
        if (!result) break;
        result = lane.submit(part->transfer, [op, raw = part.get()](pega_status status, std::uint64_t bytes) {
            op->part_done(*raw, status, bytes);
        });
        if (result) ++submitted;
    }
    if (result) return {};
    lane.unreserve(reserved - submitted);
    for (std::size_t i = submitted; i < op->parts.size(); ++i) {
        for (const FillClaim& claim : op->parts[i]->claims) op->state.index->unclaim(claim, op->parts[i]->list->shard);
        op->parts[i]->claims.clear();
    }
    if (submitted == 0) return result;
    // Some batches run already: their ends decide when the answer may be given; the answer is that it failed.
    op->failure.store(static_cast<pega_status>(result.error().code), std::memory_order_relaxed);
    op->remaining.fetch_sub(op->parts.size() - submitted, std::memory_order_acq_rel);
    return {};
}

}  // namespace

SaveId start_save(Engine::State& state, const SaveRequest& request, std::function<void(Result<SaveOutcome>)> done) {
    const auto refuse = [&](Error error) {
        done(fail(std::move(error)));
        return kNoSave;
    };
    auto engine_pass = state.gate.enter();
    if (!engine_pass) return refuse({Code::kCanceled, "the engine is closing"});
    auto instance = state.instance(request.instance_id);
    if (!instance) return refuse(std::move(instance).error());
    auto worker = (*instance)->worker(request.device_id);
    if (!worker) return refuse(std::move(worker).error());
    auto worker_pass = (*worker)->enter();
    if (!worker_pass) return refuse({Code::kCanceled, fmt::format("instance {} is being unregistered", request.instance_id)});
    ++state.counters.save_requests;
    ++state.counters.saves_in_flight;
    auto op = std::make_shared<SaveOperation>(state, *instance, **worker, std::move(engine_pass), std::move(worker_pass),
                                              request.deadline, std::move(done));
    auto launched = launch(op, **instance, request);
    if (launched) {
        const SaveId id = op->id = state.operations.add(op);  // complete now: it may be cancelled
        op->release_share();
        return id;
    }
    if (launched.error().code == Code::kQueueFull) ++state.counters.queue_full;
    ++state.counters.save_failures;
    --state.counters.saves_in_flight;
    const auto callback = std::move(op->done);
    op->passes[0] = {};
    op->passes[1] = {};
    callback(fail(std::move(launched).error()));
    return kNoSave;
}

}  // namespace pegaflow::engine
