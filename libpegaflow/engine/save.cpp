// SPDX-License-Identifier: Apache-2.0
// Saving: claim what nobody has, give it pages, copy it in one batch a claim pattern, and make complete blocks visible.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "engine/state.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::size_t kExpected = 8;  // blocks that the end of a copy looks ahead
constexpr std::size_t kClaimedAtOnce = 128;

// Layers of one request that were given the same blocks: they are claimed and copied together.
struct SaveList {
    std::uint32_t group = 0;
    std::uint32_t shard = 0;
    std::span<const std::uint32_t> block_ids;
    std::span<const std::string_view> hashes;
    std::vector<const WorkerLayer*> layers;
    std::vector<std::uint32_t> numbers;  // of the layers, in the shard
};

// Blocks of a list whose claims cover the same layers and whose pages lie in one slice of the pool: one batch.
struct SavePart {
    const SaveList* list = nullptr;
    std::size_t slice = 0;  // of the pool
    std::vector<FillClaim> claims;
    std::vector<std::uint64_t> local_index, remote_index;
    Transfer transfer;
    const Shard* digested = nullptr;  // the copy is asked for digests: it fills whole pages of this shard
};

class SaveOperation final : public Operation {
public:
    SaveOperation(Engine::State& s, std::shared_ptr<Instance> owner, Worker& w, base::Gate::Pass engine_pass,
                  base::Gate::Pass worker_pass, Clock::time_point when, std::function<void(Result<SaveOutcome>)> callback)
        : Operation(std::move(owner), when),
          state(s),
          worker(w),
          passes{std::move(engine_pass), std::move(worker_pass)},
          done(std::move(callback)) {}

    void cancel() override {
        for (const auto& part : parts) worker.saves().cancel(part->transfer);
    }
    void part_done(SavePart& part, pega_status status, std::uint64_t bytes);
    // One of `remaining` is over; the last one ends the operation.
    void release_share();

    Engine::State& state;
    Worker& worker;
    base::Gate::Pass passes[2];
    std::function<void(Result<SaveOutcome>)> done;
    const Clock::time_point started = Clock::now();
    std::vector<SaveList> lists;
    std::vector<std::unique_ptr<SavePart>> parts;
    std::atomic<std::size_t> remaining{1};  // parts, and the submitter itself
    std::atomic<pega_status> failure{PEGA_OK};
    SaveOutcome outcome;
    std::atomic<std::uint64_t> bytes{0};
    std::uint64_t id = 0;

private:
    void seal(SavePart& part);
    std::uint64_t whole_digest(const SavePart& part, std::size_t number, std::uint64_t copied) const noexcept;
    void finish();
};

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

Result<void> check_layer(const SaveLayer& save, const WorkerLayer* layer, std::int32_t device_id) {
    if (save.block_ids.size() != save.hashes.size()) {
        return fail(Code::kInvalid, fmt::format("block_ids length {} does not match block_hashes {} for layer {}",
                                                save.block_ids.size(), save.hashes.size(), save.layer));
    }
    if (layer == nullptr)
        return fail(Code::kInvalid, fmt::format("layer {} is not registered on device {}", save.layer, device_id));
    for (std::size_t i = 0; i < save.block_ids.size(); ++i) {
        if (save.block_ids[i] >= layer->geometry.num_blocks) {
            return fail(Code::kInvalid, fmt::format("block_id {} of layer {} is out of range, it has {} blocks",
                                                    save.block_ids[i], save.layer, layer->geometry.num_blocks));
        }
        if (save.hashes[i].empty() || save.hashes[i].size() > kMaxHashBytes) {
            return fail(Code::kInvalid, fmt::format("block hash {} of layer {} has {} bytes, expected 1 to {}", i, save.layer,
                                                    save.hashes[i].size(), kMaxHashBytes));
        }
    }
    return {};
}

bool same_blocks(const SaveList& list, const SaveLayer& save) {
    return std::ranges::equal(list.block_ids, save.block_ids) &&
           std::ranges::equal(list.hashes, save.hashes, [](std::string_view a, std::string_view b) {
               return a.size() == b.size() && (a.data() == b.data() || a == b);
           });
}

Result<std::vector<SaveList>> make_lists(const Instance& instance, const Worker& worker, const SaveRequest& request) {
    const WorkerRegistration& who = worker.registration();
    if (request.tp_rank != who.tp_rank || request.pp_rank != who.pp_rank) {
        return fail(Code::kInvalid,
                    fmt::format("device {} registered as tp_rank {}, pp_rank {}; the save names tp_rank {}, pp_rank {}",
                                who.device_id, who.tp_rank, who.pp_rank, request.tp_rank, request.pp_rank));
    }
    std::vector<SaveList> lists;
    for (const SaveLayer& save : request.layers) {
        const WorkerLayer* layer = worker.layer(save.layer);
        PEGA_TRY(check_layer(save, layer, who.device_id));
        const Layout::Place* place = instance.layout.find(who.tp_rank, who.pp_rank, save.layer);
        auto it = std::find_if(lists.begin(), lists.end(), [&](const SaveList& l) {
            return l.group == place->group && l.shard == place->shard && same_blocks(l, save);
        });
        if (it == lists.end())
            it = lists.insert(lists.end(), {place->group, place->shard, save.block_ids, save.hashes, {}, {}});
        if (std::ranges::find(it->numbers, place->layer) != it->numbers.end()) {
            return fail(Code::kInvalid, fmt::format("layer {} is named twice in one save", save.layer));
        }
        it->layers.push_back(layer);
        it->numbers.push_back(place->layer);
    }
    if (instance.page_first && !request.layers.empty()) {
        const std::size_t layers = who.layers.size();
        if (lists.size() != 1 || lists[0].layers.size() != layers) {
            return fail(Code::kInvalid, fmt::format("page-first save must cover all {} layers of shard {} with the same blocks",
                                                    layers, lists[0].shard));
        }
    }
    return lists;
}

// Which part of a save a claim goes to.
SavePart& part_of(SaveOperation& op, const SaveList& list, const FillClaim& claim, std::size_t slice, std::size_t at_most) {
    auto part = std::find_if(op.parts.begin(), op.parts.end(), [&](const auto& p) {
        return p->list == &list && p->slice == slice && p->claims.front().layers == claim.layers;
    });
    if (part != op.parts.end()) return **part;
    SavePart& made = *op.parts.emplace_back(std::make_unique<SavePart>());
    made.list = &list;
    made.slice = slice;
    made.claims.reserve(at_most);
    made.local_index.reserve(at_most);
    made.remote_index.reserve(at_most);
    return made;
}

// Claims blocks [first, end) of a list; claims with equal layers come together. Blocks that are there go to `held`. kNoMemory
// when there are no pages for the others.
Result<void> claim_some(SaveOperation& op, const Instance& instance, const SaveList& list, std::size_t first, std::size_t end,
                        std::vector<BlockRef>& held) {
    Engine::State& state = op.state;
    const GroupShape& shape = instance.layout.shapes[list.group];
    const GroupShape::Shard& shard = shape.shards[list.shard];
    const LayerSet wanted(list.numbers);
    const std::int64_t now = op.started.time_since_epoch().count();
    std::vector<KeyView> keys;
    keys.reserve(end - first);
    for (std::size_t i = first; i < end; ++i) {
        keys.emplace_back(instance.scope, list.group, list.hashes[i]);
        state.index->expect_claim(keys.back());
    }
    std::uint64_t missing = 0;
    for (const KeyView& key : keys) missing += state.index->needs_page(key, list.shard) ? 1 : 0;
    std::vector<std::uint64_t> pages;
    pages.reserve(missing);
    const std::uint64_t got = state.allocate_pages(shard.page_bytes, missing, op.worker, pages);
    bool short_of_pages = got < missing, misfit = false;
    for (std::size_t i = first; i < end && !short_of_pages && !misfit; ++i) {
        const KeyView& key = keys[i - first];
        if (pages.empty() && state.index->needs_page(key, list.shard)) {
            short_of_pages = state.allocate_pages(shard.page_bytes, 1, op.worker, pages) == 0;  // evicted since it was counted
            if (short_of_pages) break;
        }
        FillClaim claim = state.index->claim(key, shape, list.shard, wanted, pages.empty() ? kNoPage : pages.back(), now);
        if (claim.used_page) pages.pop_back();
        misfit = claim.misfit;
        if (misfit) break;
        if (claim.layers.empty()) {
            ++op.outcome.duplicate_blocks;
            if (claim.block) held.push_back(std::move(claim.block));
            continue;
        }
        ++op.outcome.saved_blocks;
        const std::uint64_t offset = claim.block->pages[list.shard].offset;
        const std::size_t slice = state.pool->slice_of(offset);
        SavePart& part = part_of(op, list, claim, slice, list.hashes.size() - i);
        part.local_index.push_back(list.block_ids[i]);
        part.remote_index.push_back(offset - state.pool->slice(slice).offset);
        part.claims.push_back(std::move(claim));
    }
    for (const std::uint64_t page : pages) state.pool->free_page(page, shard.page_bytes);
    if (misfit) {
        return fail(Code::kInvalid, fmt::format("a stored block does not have the shape of storage group {} of instance {}: "
                                                "namespace is shared by incompatible KV layouts",
                                                list.group, instance.id));
    }
    if (!short_of_pages) return {};
    ++state.counters.alloc_failures;
    return fail(
        Code::kNoMemory,
        fmt::format("storage error: pinned pool exhausted while allocating {} pages of {} bytes: {} of {} bytes are in use and "
                    "pinned",
                    missing, shard.page_bytes, state.pool->used(), state.pool->capacity()));
}

// A few at a time, so that what eviction and a look at the index bring into the cache is still there when a block is made of
// it. What is there already must not be evicted for what comes later in the list.
Result<void> claim_list(SaveOperation& op, const Instance& instance, const SaveList& list) {
    std::vector<BlockRef> held;
    for (std::size_t first = 0; first < list.hashes.size(); first += kClaimedAtOnce) {
        const std::size_t end = std::min(first + kClaimedAtOnce, list.hashes.size());
        PEGA_TRY(claim_some(op, instance, list, first, end, held));
    }
    return {};
}

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
    PEGA_ASSIGN(op->lists, make_lists(instance, op->worker, request));
    Result<void> result;
    for (const SaveList& list : op->lists) {
        if (result) result = claim_list(*op, instance, list);
    }
    if (result) result = op->worker.saves().reserve(op->parts.size());
    const std::size_t reserved = result ? op->parts.size() : 0;
    std::size_t submitted = 0;
    op->remaining.store(op->parts.size() + 1, std::memory_order_relaxed);
    for (const auto& part : op->parts) {
        if (!result) break;
        result = build_transfer(*part, instance, op->worker, request, op->state.options.digests, event);
        if (!result) break;
        result = op->worker.saves().submit(part->transfer, [op, raw = part.get()](pega_status status, std::uint64_t bytes) {
            op->part_done(*raw, status, bytes);
        });
        if (result) ++submitted;
    }
    if (result) return {};
    op->worker.saves().unreserve(reserved - submitted);
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
