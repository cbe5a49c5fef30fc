// SPDX-License-Identifier: Apache-2.0
// What a save copies: the lists of its request, and the blocks of them that nobody has yet.
#include <fmt/format.h>

#include <algorithm>
#include <compare>
#include <map>
#include <set>
#include <utility>

#include "engine/save.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::size_t kClaimedAtOnce = 128;
constexpr std::size_t kMostParts = 4096;  // of one save; each is a batch of its own

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

// The order of lists is of no meaning, but one: equal are those of the same blocks.
std::strong_ordering compare_blocks(const SaveList& list, std::uint32_t group, const SaveLayer& save) {
    auto order = list.group <=> group;
    if (order == 0) order = list.block_ids.size() <=> save.block_ids.size();
    for (std::size_t i = 0; order == 0 && i < save.block_ids.size(); ++i) {
        const std::string_view a = list.hashes[i], b = save.hashes[i];
        order = list.block_ids[i] <=> save.block_ids[i];
        if (order == 0 && (a.data() != b.data() || a.size() != b.size())) order = a <=> b;
    }
    return order;
}

// Finds the list of a layer's blocks, or begins one. `sorted` are the numbers of the lists in their order.
SaveList& list_of(std::vector<SaveList>& lists, std::vector<std::size_t>& sorted, const Layout::Place& place,
                  const SaveLayer& save) {
    std::size_t from = 0;
    for (std::size_t end = sorted.size(); from < end;) {
        const std::size_t middle = from + (end - from) / 2;
        const auto order = compare_blocks(lists[sorted[middle]], place.group, save);
        if (order == 0) return lists[sorted[middle]];
        (order < 0 ? from : end) = order < 0 ? middle + 1 : middle;
    }
    sorted.insert(sorted.begin() + static_cast<std::ptrdiff_t>(from), lists.size());
    lists.push_back({place.group, place.shard, save.block_ids, save.hashes, {}, {}});
    return lists.back();
}

// Claims the blocks of lists, and gives the claims to parts.
class Claimer {
public:
    Claimer(SaveOperation& op, const Instance& instance) : op_(op), instance_(instance), state_(op.state) {}

    Result<void> claim(const SaveList& list);

private:
    // Claims with equal layers and in one slice of the pool come together.
    struct PartKey {
        const SaveList* list;
        std::size_t slice;
        LayerSet layers;
        auto operator<=>(const PartKey&) const = default;
    };

    Result<void> claim_some(const SaveList& list, std::size_t first, std::size_t end);
    Result<FillClaim> claim_one(const SaveList& list, const KeyView& key, const LayerSet& wanted, std::uint64_t asked);
    Result<void> take(const SaveList& list, std::size_t number, FillClaim claim);
    SavePart* part_of(const SaveList& list, const FillClaim& claim, std::size_t slice, std::size_t at_most);

    SaveOperation& op_;
    const Instance& instance_;
    Engine::State& state_;
    std::map<PartKey, SavePart*> parts_;
    SavePart* last_ = nullptr;          // the part of the last claim, which the next one is most often for
    std::vector<BlockRef> held_;        // what is there must not be evicted for what comes later in the list
    std::vector<std::uint64_t> pages_;  // for the blocks that are claimed next
};

// Null when the save has too many already.
SavePart* Claimer::part_of(const SaveList& list, const FillClaim& claim, std::size_t slice, std::size_t at_most) {
    if (last_ != nullptr && last_->list == &list && last_->slice == slice && last_->claims.front().layers == claim.layers)
        return last_;
    SavePart*& part = parts_[{&list, slice, claim.layers}];
    if (part == nullptr) {
        if (op_.parts.size() == kMostParts) return nullptr;
        const bool first = op_.parts.empty() || op_.parts.back()->list != &list;
        part = op_.parts.emplace_back(std::make_unique<SavePart>()).get();
        part->list = &list;
        part->slice = slice;
        if (first) part->reserve(at_most);  // most lists have one part
    }
    return last_ = part;
}

// A claim of the layers of a block that nobody has; `asked` is how many pages were asked for with this one's.
Result<FillClaim> Claimer::claim_one(const SaveList& list, const KeyView& key, const LayerSet& wanted, std::uint64_t asked) {
    const GroupShape& shape = instance_.layout.shapes[list.group];
    const std::uint64_t page_bytes = shape.shards[list.shard].page_bytes;
    for (;;) {
        FillClaim claim = state_.index->claim(key, shape, list.shard, wanted, pages_.empty() ? kNoPage : pages_.back(),
                                              op_.started.time_since_epoch().count());
        if (claim.used_page) pages_.pop_back();
        if (claim.misfit) {
            return fail(Code::kInvalid,
                        fmt::format("a stored block does not have the shape of storage group {} of instance {}: "
                                    "namespace is shared by incompatible KV layouts",
                                    list.group, instance_.id));
        }
        if (!claim.lacks_page) return claim;
        // It went, or was evicted, since the pages were counted.
        if (state_.allocate_pages(page_bytes, 1, op_.worker, pages_) != 0) continue;
        ++state_.counters.alloc_failures;
        return fail(Code::kNoMemory,
                    fmt::format("storage error: pinned pool exhausted while allocating {} pages of {} bytes: {} of {} bytes "
                                "are in use and pinned",
                                asked, page_bytes, state_.pool->used(), state_.pool->capacity()));
    }
}

Result<void> Claimer::take(const SaveList& list, std::size_t number, FillClaim claim) {
    if (claim.layers.empty()) {
        ++op_.outcome.duplicate_blocks;
        held_.push_back(std::move(claim.block));
        return {};
    }
    const std::uint64_t offset = claim.block->pages[list.shard].offset;
    const std::size_t slice = state_.pool->slice_of(offset);
    SavePart* const part = part_of(list, claim, slice, list.hashes.size() - number);
    if (part == nullptr) {
        state_.index->unclaim(claim, list.shard);
        return fail(Code::kInvalid, fmt::format("a save of more than {} batches: the blocks lack too many different sets of "
                                                "layers; save fewer at once",
                                                kMostParts));
    }
    ++op_.outcome.saved_blocks;
    part->local_index.push_back(list.block_ids[number]);
    part->remote_index.push_back(offset - state_.pool->slice(slice).offset);
    part->claims.push_back(std::move(claim));
    return {};
}

Result<void> Claimer::claim_some(const SaveList& list, std::size_t first, std::size_t end) {
    const LayerSet wanted(list.numbers);
    std::vector<KeyView> keys;
    keys.reserve(end - first);
    for (std::size_t i = first; i < end; ++i) {
        keys.emplace_back(instance_.scope, list.group, list.hashes[i]);
        state_.index->expect_claim(keys.back());
    }
    std::uint64_t missing = 0;
    for (const KeyView& key : keys) missing += state_.index->needs_page(key, list.shard) ? 1 : 0;
    pages_.reserve(missing);
    state_.allocate_pages(instance_.layout.shapes[list.group].shards[list.shard].page_bytes, missing, op_.worker, pages_);
    for (std::size_t i = first; i < end; ++i) {
        PEGA_ASSIGN(FillClaim claim, claim_one(list, keys[i - first], wanted, missing));
        PEGA_TRY(take(list, i, std::move(claim)));
    }
    return {};
}

// A few at a time, so that what eviction and a look at the index bring into the cache is still there when a block is made of
// it.
Result<void> Claimer::claim(const SaveList& list) {
    held_.clear();
    Result<void> result;
    for (std::size_t first = 0; first < list.hashes.size() && result; first += kClaimedAtOnce) {
        if (op_.given_up())
            return fail(Code::kDeadlineExceeded, "the deadline of the save passed before all its blocks had pages");
        result = claim_some(list, first, std::min(first + kClaimedAtOnce, list.hashes.size()));
        for (const std::uint64_t page : pages_)
            state_.pool->free_page(page, instance_.layout.shapes[list.group].shards[list.shard].page_bytes);
        pages_.clear();
    }
    return result;
}

// What is more than the pool could hold if it were empty would only drive out everything else. All blocks of a save count, also
// those that are there: they stay while the others are claimed.
Result<void> check_room(const SaveOperation& op, const Instance& instance) {
    const auto page_bytes = [&](const SaveList& list) {
        return instance.layout.shapes[list.group].shards[list.shard].page_bytes;
    };
    const auto share = [&](const SaveList& list, std::size_t blocks) {  // of the pool
        const auto most = static_cast<double>(op.state.pool->most_pages(page_bytes(list)));
        return blocks == 0 ? 0 : static_cast<double>(blocks) / most;
    };
    double taken = 0;
    for (const SaveList& list : op.lists) taken += share(list, list.hashes.size());
    if (taken <= 1) return {};
    // Lists may have blocks in common, and name one several times.
    std::map<std::uint32_t, std::set<std::string_view>> blocks;  // by group
    for (const SaveList& list : op.lists) blocks[list.group].insert(list.hashes.begin(), list.hashes.end());
    taken = 0;
    std::uint64_t bytes = 0;
    for (const SaveList& list : op.lists) {
        const std::size_t count = std::exchange(blocks[list.group], {}).size();
        taken += share(list, count);
        bytes += count * page_bytes(list);
    }
    if (taken <= 1) return {};
    ++op.state.counters.alloc_failures;
    return fail(Code::kNoMemory,
                fmt::format("storage error: pinned pool exhausted: a save of {} bytes is more than the pool of {} "
                            "bytes holds; save fewer blocks at once",
                            bytes, op.state.pool->capacity()));
}

}  // namespace

Result<std::vector<SaveList>> make_save_lists(const Instance& instance, const Worker& worker, const SaveRequest& request) {
    const WorkerRegistration& who = worker.registration();
    if (request.tp_rank != who.tp_rank || request.pp_rank != who.pp_rank) {
        return fail(Code::kInvalid,
                    fmt::format("device {} registered as tp_rank {}, pp_rank {}; the save names tp_rank {}, pp_rank {}",
                                who.device_id, who.tp_rank, who.pp_rank, request.tp_rank, request.pp_rank));
    }
    std::vector<SaveList> lists;
    std::vector<std::size_t> sorted;
    std::vector<LayerSet> named(instance.layout.groups.size());
    for (const SaveLayer& save : request.layers) {
        const WorkerLayer* layer = worker.layer(save.layer);
        PEGA_TRY(check_layer(save, layer, who.device_id));
        const Layout::Place& place = *instance.layout.find(who.tp_rank, who.pp_rank, save.layer);
        if (named[place.group].has(place.layer))
            return fail(Code::kInvalid, fmt::format("layer {} is named twice in one save", save.layer));
        named[place.group].add(place.layer);
        SaveList& list = list_of(lists, sorted, place, save);
        list.layers.push_back(layer);
        list.numbers.push_back(place.layer);
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

Result<void> claim_lists(SaveOperation& op, const Instance& instance) {
    PEGA_TRY(check_room(op, instance));
    Claimer claimer(op, instance);
    for (const SaveList& list : op.lists) PEGA_TRY(claimer.claim(list));
    return {};
}

}  // namespace pegaflow::engine
