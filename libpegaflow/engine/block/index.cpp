// SPDX-License-Identifier: Apache-2.0
#include "engine/block/index.hpp"

#include <algorithm>
#include <bit>

namespace pegaflow::engine {
namespace {

constexpr std::size_t kNotThere = SIZE_MAX;
constexpr std::size_t kAhead = 16;  // lookups prepared at once

constexpr std::uint64_t marked(std::uint64_t hash) noexcept { return hash | 1; }

bool idle_and_unpinned(const Block& block) noexcept { return block.refs.load(std::memory_order_acquire) == 1; }

}  // namespace

BlockIndex::BlockIndex(const PolicyFactory& policy, AdmissionPolicy& admission, PageOwner& pages)
    : admission_(admission), pages_(pages) {
    for (Shard& shard : shards_) shard.policy = policy();
}

BlockIndex::~BlockIndex() {
    for (Shard& shard : shards_) {
        for (const Slot& slot : shard.slots) {
            if (slot.block == nullptr) continue;
            slot.block->state = BlockState::kGone;
            BlockRef last(slot.block);
            slot.block->refs.fetch_sub(1, std::memory_order_acq_rel);  // the index's own
        }
    }
}

std::size_t BlockIndex::find(const Shard& shard, std::uint64_t hash, std::uint64_t scope, std::uint32_t group,
                             std::string_view text) {
    const std::size_t mask = shard.slots.size() - 1;
    for (std::size_t at = hash & mask; shard.slots[at].hash != 0; at = (at + 1) & mask) {
        if (shard.slots[at].hash == marked(hash) && same_key(shard.slots[at].block->key, scope, group, text)) return at;
    }
    return kNotThere;
}

void BlockIndex::insert(Shard& shard, Block* block) {
    if ((shard.used + 1) * 2 > shard.slots.size()) {
        std::vector<Slot> old(shard.slots.size() * 2);
        old.swap(shard.slots);
        shard.used = 0;
        for (const Slot& slot : old) {
            if (slot.block != nullptr) insert(shard, slot.block);
        }
    }
    const std::size_t mask = shard.slots.size() - 1;
    std::size_t at = block->hash & mask;
    while (shard.slots[at].hash != 0) at = (at + 1) & mask;
    shard.slots[at] = {marked(block->hash), block};
    ++shard.used;
}

void BlockIndex::erase_slot(Shard& shard, std::size_t at) {
    const std::size_t mask = shard.slots.size() - 1;
    std::size_t hole = at;
    for (std::size_t next = (at + 1) & mask; shard.slots[next].hash != 0; next = (next + 1) & mask) {
        const std::size_t home = shard.slots[next].block->hash & mask;
        // An entry may fill the hole unless its home lies cyclically between the hole and itself.
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            shard.slots[hole] = shard.slots[next];
            hole = next;
        }
    }
    shard.slots[hole] = {};
    --shard.used;
}

template <class Visit>
void BlockIndex::lookup(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Visit visit) {
    const std::uint64_t stamp = clock_.fetch_add(1, std::memory_order_relaxed);
    std::uint64_t ahead[kAhead];
    for (std::size_t first = 0; first < hashes.size(); first += kAhead) {
        const std::size_t count = std::min(kAhead, hashes.size() - first);
        for (std::size_t i = 0; i < count; ++i) {
            ahead[i] = table_hash(scope, group, hashes[first + i]);
            admission_.record(ahead[i]);
        }
        for (std::size_t i = 0; i < count; ++i) {
            Shard& shard = shard_of(ahead[i]);
            BlockRef found;
            {
                const std::lock_guard lock(shard.mutex);
                const std::size_t at = find(shard, ahead[i], scope, group, hashes[first + i]);
                if (at != kNotThere && shard.slots[at].block->state == BlockState::kResident) {
                    found = BlockRef(shard.slots[at].block);
                    // Only a use of the oldest block can change which one that is; to ask costs a cache miss.
                    const bool was_oldest = found->stamp == shard.oldest.load(std::memory_order_relaxed);
                    shard.policy->touch(*found, stamp);
                    if (was_oldest) shard.oldest.store(shard.policy->oldest(), std::memory_order_relaxed);
                }
            }
            if (!visit(first + i, std::move(found))) return;
        }
    }
}

void BlockIndex::lookup_prefix(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes,
                               std::vector<BlockRef>& out) {
    out.reserve(out.size() + hashes.size());
    lookup(scope, group, hashes, [&](std::size_t, BlockRef block) {
        if (!block) return false;
        out.push_back(std::move(block));
        return true;
    });
}

void BlockIndex::lookup_each(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes,
                             std::vector<BlockRef>& out, std::vector<std::uint32_t>& positions) {
    lookup(scope, group, hashes, [&](std::size_t i, BlockRef block) {
        if (block) {
            out.push_back(std::move(block));
            positions.push_back(static_cast<std::uint32_t>(i));
        }
        return true;
    });
}

bool BlockIndex::contains(std::uint64_t scope, std::uint32_t group, std::string_view hash) const {
    const std::uint64_t table = table_hash(scope, group, hash);
    const Shard& shard = shard_of(table);
    const std::lock_guard lock(shard.mutex);
    const std::size_t at = find(shard, table, scope, group, hash);
    return at != kNotThere && shard.slots[at].block->state == BlockState::kResident;
}

BlockRef BlockIndex::peek(std::uint64_t scope, std::uint32_t group, std::string_view hash) const {
    const std::uint64_t table = table_hash(scope, group, hash);
    const Shard& shard = shard_of(table);
    const std::lock_guard lock(shard.mutex);
    const std::size_t at = find(shard, table, scope, group, hash);
    return at != kNotThere && shard.slots[at].block->state == BlockState::kResident ? BlockRef(shard.slots[at].block)
                                                                                    : BlockRef();
}

bool BlockIndex::needs_page(std::uint64_t scope, std::uint32_t group, std::string_view hash, std::uint32_t shard_number) const {
    const std::uint64_t table = table_hash(scope, group, hash);
    const Shard& shard = shard_of(table);
    const std::lock_guard lock(shard.mutex);
    const std::size_t at = find(shard, table, scope, group, hash);
    return at == kNotThere || shard.slots[at].block->pages[shard_number].offset == kNoPage;
}

bool BlockIndex::make_resident(Shard& shard, Block& block, bool wanted) {
    block.fill.reset();
    admission_.record(block.hash);
    if (pressure_.load(std::memory_order_relaxed) && !wanted) {
        const Block* victim = shard.policy->victim(idle_and_unpinned);
        if (victim != nullptr && !admission_.admit(block.hash, victim->hash)) return false;
    }
    block.state = BlockState::kResident;
    shard.policy->insert(block, clock_.fetch_add(1, std::memory_order_relaxed));
    shard.oldest.store(shard.policy->oldest(), std::memory_order_relaxed);
    resident_.fetch_add(1, std::memory_order_relaxed);
    resident_bytes_.fetch_add(block.footprint(), std::memory_order_relaxed);
    return true;
}

void BlockIndex::take_out(Shard& shard, Block& block) {
    if (block.state == BlockState::kResident) {
        shard.policy->remove(block);
        shard.oldest.store(shard.policy->oldest(), std::memory_order_relaxed);
        resident_.fetch_sub(1, std::memory_order_relaxed);
        resident_bytes_.fetch_sub(block.footprint(), std::memory_order_relaxed);
    } else {
        incomplete_.fetch_sub(1, std::memory_order_relaxed);
    }
    block.state = BlockState::kGone;
    erase_slot(shard, find(shard, block.hash, block.key.scope, block.key.group, block.key.hash()));
    block.refs.fetch_sub(1, std::memory_order_acq_rel);  // the index's own; the caller holds another
}

FillClaim BlockIndex::claim(const BlockKey& key, const GroupShape& shape, std::uint32_t shard_number,
                            std::span<const std::uint64_t> wanted, std::uint64_t page, std::int64_t now_ns) {
    const std::uint64_t table = table_hash(key.scope, key.group, key.hash());
    Shard& shard = shard_of(table);
    FillClaim claim;
    const std::lock_guard lock(shard.mutex);
    const std::size_t at = find(shard, table, key.scope, key.group, key.hash());
    Block* block = at == kNotThere ? nullptr : shard.slots[at].block;
    if (block != nullptr && block->state == BlockState::kResident) return claim;
    if (block == nullptr) {
        if (page == kNoPage) return claim;
        block = new Block(key, table, pages_);
        block->pages.resize(shape.shards.size());
        block->fill = std::make_unique<std::vector<ShardFill>>(shape.shards.size());
        for (std::size_t i = 0; i < shape.shards.size(); ++i) {
            ShardFill& fill = (*block->fill)[i];
            fill.missing = shape.shards[i].layers;
            fill.claimed.resize((shape.shards[i].layers + 63) / 64);
            fill.filled.resize(fill.claimed.size());
        }
        block->shards_missing = static_cast<std::uint32_t>(shape.shards.size());
        block->birth_ns = now_ns;
        block->refs.store(1, std::memory_order_relaxed);
        insert(shard, block);
        incomplete_.fetch_add(1, std::memory_order_relaxed);
    }
    claim.block = BlockRef(block);
    Page& place = block->pages[shard_number];
    if (place.offset == kNoPage) {
        if (page == kNoPage) return claim;
        place = {page, shape.shards[shard_number].page_bytes};
        claim.used_page = true;
    }
    ShardFill& fill = (*block->fill)[shard_number];
    std::uint64_t any = 0;
    claim.layers.resize(fill.claimed.size());
    for (std::size_t word = 0; word < fill.claimed.size(); ++word) {
        claim.layers[word] = wanted[word] & ~fill.claimed[word];
        fill.claimed[word] |= claim.layers[word];
        any |= claim.layers[word];
    }
    if (any == 0) claim.layers.clear();
    return claim;
}

bool BlockIndex::filled(const FillClaim& claim, std::uint32_t shard_number, bool* admitted) {
    Block& block = *claim.block;
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    *admitted = true;
    if (block.state != BlockState::kFilling) return false;
    ShardFill& fill = (*block.fill)[shard_number];
    for (std::size_t word = 0; word < claim.layers.size(); ++word) {
        fill.filled[word] |= claim.layers[word];
        fill.missing -= static_cast<std::uint32_t>(std::popcount(claim.layers[word]));
    }
    if (fill.missing != 0 || --block.shards_missing != 0) return false;
    *admitted = make_resident(shard, block);
    if (*admitted) {
        incomplete_.fetch_sub(1, std::memory_order_relaxed);
    } else {
        take_out(shard, block);
    }
    return true;
}

void BlockIndex::unclaim(const FillClaim& claim, std::uint32_t shard_number) {
    Block& block = *claim.block;
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    if (block.state != BlockState::kFilling) return;
    ShardFill& fill = (*block.fill)[shard_number];
    for (std::size_t word = 0; word < claim.layers.size(); ++word) fill.claimed[word] &= ~claim.layers[word];
    const bool empty = std::all_of(block.fill->begin(), block.fill->end(), [](const ShardFill& f) {
        return std::all_of(f.claimed.begin(), f.claimed.end(), [](std::uint64_t bits) { return bits == 0; });
    });
    if (empty) take_out(shard, block);
}

bool BlockIndex::insert_resident(BlockRef block, bool* admitted, bool wanted) {
    Shard& shard = shard_of(block->hash);
    const std::lock_guard lock(shard.mutex);
    *admitted = false;
    if (find(shard, block->hash, block->key.scope, block->key.group, block->key.hash()) != kNotThere) return false;
    *admitted = make_resident(shard, *block, wanted);
    if (!*admitted) return true;
    block->refs.fetch_add(1, std::memory_order_relaxed);
    insert(shard, block.get());
    return true;
}

BlockRef BlockIndex::evict_one() {
    // A shard whose oldest block is pinned gives its next one; after that the other shards are asked in order of age.
    std::array<bool, kShards> asked{};
    for (std::size_t round = 0; round < kShards; ++round) {
        std::size_t best = kShards;
        for (std::size_t i = 0; i < kShards; ++i) {
            if (asked[i]) continue;
            const std::uint64_t age = shards_[i].oldest.load(std::memory_order_relaxed);
            if (age != UINT64_MAX && (best == kShards || age < shards_[best].oldest.load(std::memory_order_relaxed))) best = i;
        }
        if (best == kShards) return {};
        asked[best] = true;
        Shard& shard = shards_[best];
        const std::lock_guard lock(shard.mutex);
        if (Block* victim = shard.policy->victim(idle_and_unpinned)) {
            BlockRef out(victim);
            take_out(shard, *victim);
            return out;
        }
    }
    return {};
}

bool BlockIndex::erase(Block& block) {
    const BlockRef hold(&block);
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    if (block.state != BlockState::kResident) return false;
    take_out(shard, block);
    return true;
}

void BlockIndex::erase_all(const std::function<void(BlockRef)>& visit) {
    for (Shard& shard : shards_) {
        std::vector<BlockRef> out;
        {
            const std::lock_guard lock(shard.mutex);
            for (const Slot& slot : shard.slots) {
                if (slot.block != nullptr && slot.block->state == BlockState::kResident) out.emplace_back(slot.block);
            }
            for (const BlockRef& block : out) take_out(shard, *block);
        }
        for (BlockRef& block : out) visit(std::move(block));
    }
}

std::uint64_t BlockIndex::drop_incomplete(std::int64_t before_ns, std::uint64_t scope) {
    const auto being_copied = [](const Block& block) {
        return std::any_of(block.fill->begin(), block.fill->end(), [](const ShardFill& f) { return f.claimed != f.filled; });
    };
    std::uint64_t dropped = 0;
    for (Shard& shard : shards_) {
        std::vector<BlockRef> out;
        const std::lock_guard lock(shard.mutex);
        for (const Slot& slot : shard.slots) {
            const Block* block = slot.block;
            if (block == nullptr || block->state != BlockState::kFilling) continue;
            if ((block->birth_ns < before_ns || block->key.scope == scope) && !being_copied(*block))
                out.emplace_back(slot.block);
        }
        for (const BlockRef& block : out) take_out(shard, *block);
        dropped += out.size();
    }
    return dropped;
}

}  // namespace pegaflow::engine
