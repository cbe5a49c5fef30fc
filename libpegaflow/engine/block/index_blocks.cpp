// SPDX-License-Identifier: Apache-2.0
// How blocks come into the index and go: claims of savers, residency, eviction, clean-up. Looking up is in index.cpp.
#include <algorithm>

#include "engine/block/index.hpp"

namespace pegaflow::engine {
namespace {

bool unused(const Block& block) noexcept { return block.refs.load(std::memory_order_acquire) == 1; }

}  // namespace

PolicyTime BlockIndex::time() const noexcept {
    return {clock_.load(std::memory_order_relaxed),
            std::max<std::uint64_t>(1, resident_.load(std::memory_order_relaxed)) * kTicksPerInsert};
}

void BlockIndex::publish(const Shard& shard) noexcept {
    lowest_[static_cast<std::size_t>(&shard - shards_.data())].store(shard.order.lowest(), std::memory_order_relaxed);
}

bool BlockIndex::make_resident(Shard& shard, Block& block, bool wanted) {
    block.fill.clear();
    block.came = clock_.fetch_add(kTicksPerInsert, std::memory_order_relaxed);
    block.last_use.store(block.came, std::memory_order_relaxed);
    block.uses.store(1, std::memory_order_relaxed);
    block.came_at = hundredths_.load(std::memory_order_relaxed);
    if (!wanted && admission_.selective() && pressure_.load(std::memory_order_relaxed)) {
        const Block* victim = shard.order.victim(time());
        if (victim != nullptr && !admission_.admit(block, *victim, time())) return false;
    }
    block.state = BlockState::kResident;
    shard.order.insert(block, time());
    publish(shard);
    resident_.fetch_add(1, std::memory_order_relaxed);
    resident_bytes_.fetch_add(block.footprint(), std::memory_order_relaxed);
    return true;
}

void BlockIndex::take_out(Shard& shard, Block& block, Leaves why) {
    if (block.state == BlockState::kResident) {
        if (why != Leaves::kWithMany) shard.order.remove(block, why == Leaves::kEvicted);
        publish(shard);
        resident_.fetch_sub(1, std::memory_order_relaxed);
        resident_bytes_.fetch_sub(block.footprint(), std::memory_order_relaxed);
    } else {
        incomplete_.fetch_sub(1, std::memory_order_relaxed);
        incomplete_bytes_.fetch_sub(block.footprint(), std::memory_order_relaxed);
    }
    if (block.doomed) {
        std::erase(shard.doomed, &block);
        doomed_.fetch_sub(1, std::memory_order_relaxed);
    }
    block.state = BlockState::kGone;
    erase_slot(shard, &block);
    block.refs.fetch_sub(1, std::memory_order_acq_rel);  // the index's own; the caller holds another
}

FillClaim BlockIndex::claim(const KeyView& key, const GroupShape& shape, std::uint32_t shard_number, const LayerSet& wanted,
                            std::uint64_t page, std::int64_t now_ns) {
    Shard& shard = shard_of(key.hash);
    FillClaim claim;
    const std::lock_guard lock(shard.mutex);
    Block* block = find(shard, key.hash, key.scope, key.group, key.text);
    if (block != nullptr && block->state == BlockState::kResident) {
        claim.block = BlockRef(block);
        return claim;
    }
    if (block == nullptr) {
        if (page == kNoPage) return claim;
        block = new Block(BlockKey(key.scope, key.group, key.text), key.hash, pages_);
        block->pages.resize(shape.shards.size());
        block->fill.resize(shape.shards.size());
        for (std::size_t i = 0; i < shape.shards.size(); ++i) block->fill[i].missing = shape.shards[i].layers;
        block->shards_missing = static_cast<std::uint32_t>(shape.shards.size());
        block->came = static_cast<std::uint64_t>(now_ns);
        block->refs.store(1, std::memory_order_relaxed);
        insert(shard, block);
        incomplete_.fetch_add(1, std::memory_order_relaxed);
    }
    claim.block = BlockRef(block);
    Page& place = block->pages[shard_number];
    if (place.offset == kNoPage) {
        if (page == kNoPage) return claim;
        place = {page, shape.shards[shard_number].page_bytes, shape.shards[shard_number].content_bytes};
        claim.used_page = true;
        incomplete_bytes_.fetch_add(place.bytes, std::memory_order_relaxed);
    }
    ShardFill& fill = block->fill[shard_number];
    claim.layers = wanted;
    claim.layers -= fill.claimed;
    fill.claimed |= claim.layers;
    return claim;
}

bool BlockIndex::filled(const FillClaim& claim, std::uint32_t shard_number, bool* admitted,
                        std::optional<std::uint64_t> digest) {
    Block& block = *claim.block;
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    *admitted = true;
    if (block.state != BlockState::kFilling) return false;
    ShardFill& fill = block.fill[shard_number];
    if (digest) {
        block.pages[shard_number].digest = *digest;
        block.pages[shard_number].has_digest = true;
    }
    fill.filled |= claim.layers;
    fill.missing -= claim.layers.size();
    if (fill.missing != 0 || --block.shards_missing != 0) return false;
    const bool digested = std::all_of(block.pages.begin(), block.pages.end(), [](const Page& p) { return p.has_digest; });
    block.digested.store(digested, std::memory_order_release);
    *admitted = make_resident(shard, block);
    if (*admitted) {
        incomplete_.fetch_sub(1, std::memory_order_relaxed);
        incomplete_bytes_.fetch_sub(block.footprint(), std::memory_order_relaxed);
    } else {
        take_out(shard, block, Leaves::kAlone);
    }
    return true;
}

void BlockIndex::unclaim(const FillClaim& claim, std::uint32_t shard_number) {
    Block& block = *claim.block;
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    if (block.state != BlockState::kFilling) return;
    block.fill[shard_number].claimed -= claim.layers;
    const bool empty = std::all_of(block.fill.begin(), block.fill.end(), [](const ShardFill& f) { return f.claimed.empty(); });
    if (empty) take_out(shard, block, Leaves::kAlone);
}

bool BlockIndex::insert_resident(const BlockRef& block, bool* admitted, bool wanted) {
    Shard& shard = shard_of(block->hash);
    const std::lock_guard lock(shard.mutex);
    *admitted = false;
    if (find(shard, block->hash, block->key.scope, block->key.group, block->key.hash()) != nullptr) return false;
    *admitted = make_resident(shard, *block, wanted);
    if (!*admitted) return true;
    block->refs.fetch_add(1, std::memory_order_relaxed);
    insert(shard, block.get());
    return true;
}

BlockIndex::LowestShard BlockIndex::lowest_shard(const std::array<bool, kShards>& empty) const noexcept {
    LowestShard found;
    std::uint64_t rank = UINT64_MAX;
    for (std::size_t i = 0; i < kShards; ++i) {
        const std::uint64_t lowest = empty[i] ? UINT64_MAX : lowest_[i].load(std::memory_order_relaxed);
        if (lowest < rank) {
            found.others = std::exchange(rank, lowest);
            found.number = i;
        } else {
            found.others = std::min(found.others, lowest);
        }
    }
    return found;
}

void BlockIndex::evict(std::uint64_t bytes, std::size_t most, std::vector<BlockRef>& out) {
    std::array<bool, kShards> empty{};  // of blocks that could go
    std::uint64_t taken_bytes = 0;
    const std::size_t end = out.size() + most;
    while (taken_bytes < bytes && out.size() < end) {
        // lowest_ says too little, never too much: the shard that seems to have the lowest rank is asked, and asked again after
        // the others when what it has turns out to rank higher than theirs may.
        const LowestShard lowest = lowest_shard(empty);
        if (lowest.number == kShards) return;
        Shard& shard = shards_[lowest.number];
        const std::lock_guard lock(shard.mutex);
        const PolicyTime now = time();
        const std::uint64_t slack = most == 1 ? 0 : now.turnover / kShards;
        const std::uint64_t highest = lowest.others > UINT64_MAX - slack ? UINT64_MAX : lowest.others + slack;
        while (taken_bytes < bytes && out.size() < end) {
            Block* victim = shard.order.victim(now);
            if (victim == nullptr) empty[lowest.number] = true;
            if (victim == nullptr || shard.order.lowest() > highest) break;
            taken_bytes += victim->footprint();
            out.emplace_back(victim);
            shard.order.prefetch_next();
            take_out(shard, *victim, Leaves::kEvicted);
            if (const Block* next = shard.order.next()) {
                prefetch_slot(shard, next->hash);
                shard.order.expect(next->hash);
            }
        }
        publish(shard);
    }
}

BlockRef BlockIndex::evict_one() {
    std::vector<BlockRef> one;
    evict(UINT64_MAX, 1, one);
    return one.empty() ? BlockRef() : std::move(one.front());
}

bool BlockIndex::erase(Block& block) {
    const BlockRef hold(&block);
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    if (block.state != BlockState::kResident) return false;
    take_out(shard, block, Leaves::kAlone);
    return true;
}

std::uint64_t BlockIndex::erase_all(const std::function<void(BlockRef)>& visit) {
    std::uint64_t left = 0;
    for (Shard& shard : shards_) {
        std::vector<BlockRef> out;
        {
            const std::lock_guard lock(shard.mutex);
            each_block(shard, [&](Block* block) {
                if (block->state != BlockState::kResident) return;
                if (unused(*block)) {
                    out.emplace_back(block);
                    return;
                }
                ++left;
                if (std::exchange(block->doomed, true)) return;
                shard.doomed.push_back(block);
                doomed_.fetch_add(1, std::memory_order_relaxed);
            });
            shard.order.remove_all(out);
            for (const BlockRef& block : out) take_out(shard, *block, Leaves::kWithMany);
        }
        for (BlockRef& block : out) visit(std::move(block));
    }
    return left;
}

void BlockIndex::erase_doomed(const std::function<void(BlockRef)>& visit) {
    if (doomed_.load(std::memory_order_relaxed) == 0) return;
    for (Shard& shard : shards_) {
        std::vector<BlockRef> out;
        {
            const std::lock_guard lock(shard.mutex);
            for (Block* block : shard.doomed) {
                if (unused(*block)) out.emplace_back(block);
            }
            shard.order.remove_all(out);
            for (const BlockRef& block : out) take_out(shard, *block, Leaves::kWithMany);
        }
        for (BlockRef& block : out) visit(std::move(block));
    }
}

std::uint64_t BlockIndex::drop_incomplete(std::int64_t before_ns, std::uint64_t scope) {
    const auto being_copied = [](const Block& block) {
        return std::any_of(block.fill.begin(), block.fill.end(), [](const ShardFill& f) { return !(f.claimed == f.filled); });
    };
    std::uint64_t dropped = 0;
    for (Shard& shard : shards_) {
        std::vector<BlockRef> out;
        const std::lock_guard lock(shard.mutex);
        each_block(shard, [&](Block* block) {
            if (block->state != BlockState::kFilling) return;
            if ((static_cast<std::int64_t>(block->came) < before_ns || block->key.scope == scope) && !being_copied(*block))
                out.emplace_back(block);
        });
        for (const BlockRef& block : out) take_out(shard, *block, Leaves::kAlone);
        dropped += out.size();
    }
    return dropped;
}

}  // namespace pegaflow::engine
