// SPDX-License-Identifier: Apache-2.0
#include "engine/block/index.hpp"

#include <algorithm>
#include <bit>

namespace pegaflow::engine {
namespace {

constexpr std::size_t kFirstSlots = 64;
constexpr std::size_t kMaxProbes = 8;  // of a look ahead

constexpr std::uint64_t marked(std::uint64_t hash) noexcept { return hash | 1; }

bool unused(const Block& block) noexcept { return block.refs.load(std::memory_order_acquire) == 1; }

}  // namespace

BlockIndex::BlockIndex(const EvictionFactory& policy, AdmissionPolicy& admission, PageOwner& pages)
    : admission_(admission), pages_(pages) {
    for (Shard& shard : shards_) {
        shard.order.set_policy(policy());
        shard.tables.push_back(std::make_unique<Table>(kFirstSlots));
        shard.table.store(shard.tables.back().get(), std::memory_order_release);
    }
    for (auto& lowest : lowest_) lowest.store(UINT64_MAX, std::memory_order_relaxed);
}

BlockIndex::~BlockIndex() {
    for (Shard& shard : shards_) {
        each_block(shard, [](Block* block) {
            block->state = BlockState::kGone;
            const BlockRef last(block);
            block->refs.fetch_sub(1, std::memory_order_acq_rel);  // the index's own
        });
    }
}

template <class Visit>
void BlockIndex::each_block(const Shard& shard, Visit visit) {
    const Table& table = *shard.table.load(std::memory_order_relaxed);
    for (std::size_t at = 0; at <= table.mask; ++at) {
        if (Block* block = table.slots[at].block.load(std::memory_order_relaxed)) visit(block);
    }
}

Block* BlockIndex::find(const Shard& shard, std::uint64_t hash, std::uint64_t scope, std::uint32_t group,
                        std::string_view text) {
    const Table& table = *shard.table.load(std::memory_order_relaxed);
    for (std::size_t at = hash & table.mask;; at = (at + 1) & table.mask) {
        const std::uint64_t here = table.slots[at].hash.load(std::memory_order_relaxed);
        if (here == 0) return nullptr;
        if (here != marked(hash)) continue;
        Block* block = table.slots[at].block.load(std::memory_order_relaxed);
        if (same_key(block->key, scope, group, text)) return block;
    }
}

void BlockIndex::put(Table& table, Block* block) {
    std::size_t at = block->hash & table.mask;
    while (table.slots[at].hash.load(std::memory_order_relaxed) != 0) at = (at + 1) & table.mask;
    table.slots[at].block.store(block, std::memory_order_relaxed);
    table.slots[at].hash.store(marked(block->hash), std::memory_order_relaxed);
}

void BlockIndex::insert(Shard& shard, Block* block) {
    const std::size_t count = shard.table.load(std::memory_order_relaxed)->mask + 1;
    if ((shard.used + 1) * 2 > count) {
        auto larger = std::make_unique<Table>(count * 2);
        each_block(shard, [&](Block* old) { put(*larger, old); });
        shard.table.store(larger.get(), std::memory_order_release);
        shard.tables.push_back(std::move(larger));
    }
    put(*shard.table.load(std::memory_order_relaxed), block);
    ++shard.used;
}

void BlockIndex::erase_slot(Shard& shard, const Block* block) {
    const Table& table = *shard.table.load(std::memory_order_relaxed);
    const auto block_at = [&](std::size_t at) { return table.slots[at].block.load(std::memory_order_relaxed); };
    std::size_t hole = block->hash & table.mask;
    while (block_at(hole) != block) hole = (hole + 1) & table.mask;
    for (std::size_t next = (hole + 1) & table.mask;; next = (next + 1) & table.mask) {
        const std::uint64_t hash = table.slots[next].hash.load(std::memory_order_relaxed);
        if (hash == 0) break;
        // An entry may fill the hole unless its home lies cyclically between the hole and itself. The lowest bit of the home
        // is not in the slot.
        Block* const mover = block_at(next);
        if (((next - mover->hash) & table.mask) < ((next - hole) & table.mask)) continue;
        table.slots[hole].block.store(mover, std::memory_order_relaxed);
        table.slots[hole].hash.store(hash, std::memory_order_relaxed);
        hole = next;
    }
    table.slots[hole].hash.store(0, std::memory_order_relaxed);
    table.slots[hole].block.store(nullptr, std::memory_order_relaxed);
    --shard.used;
}

void BlockIndex::pin_chunk(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Found& found) {
    std::uint64_t table_hashes[kChunk];
    std::uint8_t in_order[kChunk];  // positions, sorted by shard
    std::uint16_t starts[kShards + 1] = {};
    for (std::size_t i = 0; i < hashes.size(); ++i) {
        const std::uint64_t hash = table_hashes[i] = table_hash(scope, group, hashes[i]);
        const Table* table = shard_of(hash).table.load(std::memory_order_acquire);
        __builtin_prefetch(&table->slots[hash & table->mask]);
        ++starts[(hash >> kShardShift) + 1];
    }
    for (std::size_t shard = 0; shard < kShards; ++shard) starts[shard + 1] += starts[shard];
    std::uint16_t next[kShards];
    std::copy_n(starts, kShards, next);
    for (std::size_t i = 0; i < hashes.size(); ++i) {
        const std::uint64_t hash = table_hashes[i];
        in_order[next[hash >> kShardShift]++] = static_cast<std::uint8_t>(i);
        // A look without the mutex: what it finds is only fetched into the cache, and may be gone or of another hash.
        const Table* table = shard_of(hash).table.load(std::memory_order_acquire);
        std::size_t at = hash & table->mask;
        for (std::size_t probe = 1; probe < kMaxProbes && table->slots[at].hash.load(std::memory_order_relaxed) != marked(hash);
             ++probe)
            at = (at + 1) & table->mask;
        __builtin_prefetch(table->slots[at].block.load(std::memory_order_relaxed), 1);
    }
    // Where to begin differs, so that queries that come at once do not follow each other from lock to lock.
    const std::size_t first = table_hashes[0] % kShards;
    for (std::size_t step = 0; step < kShards; ++step) {
        const std::size_t number = (first + step) % kShards;
        if (starts[number] == starts[number + 1]) continue;
        const Shard& shard = shards_[number];
        const std::lock_guard lock(shard.mutex);
        for (std::size_t at = starts[number]; at < starts[number + 1]; ++at) {
            const std::size_t i = in_order[at];
            Block* block = find(shard, table_hashes[i], scope, group, hashes[i]);
            if (block != nullptr && block->state == BlockState::kResident) found[i] = BlockRef(block);
        }
    }
}

template <class Visit>
void BlockIndex::lookup(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Visit visit) {
    // The first block of a prefix is the newest and its last one the oldest: a block goes before those it continues.
    const std::uint64_t tick = clock_.fetch_add(hashes.size(), std::memory_order_relaxed) + hashes.size();
    Found found;
    for (std::size_t first = 0, count = kFirstChunk; first < hashes.size(); first += count, count = kChunk) {
        count = std::min(count, hashes.size() - first);
        pin_chunk(scope, group, hashes.subspan(first, count), found);
        for (std::size_t i = 0; i < count; ++i) {
            if (found[i]) found[i]->touch(tick - first - i);
            if (!visit(first + i, std::move(found[i]))) return;
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
    const Block* block = find(shard, table, scope, group, hash);
    return block != nullptr && block->state == BlockState::kResident;
}

BlockRef BlockIndex::peek(std::uint64_t scope, std::uint32_t group, std::string_view hash) const {
    const std::uint64_t table = table_hash(scope, group, hash);
    const Shard& shard = shard_of(table);
    const std::lock_guard lock(shard.mutex);
    Block* block = find(shard, table, scope, group, hash);
    return block != nullptr && block->state == BlockState::kResident ? BlockRef(block) : BlockRef();
}

bool BlockIndex::needs_page(std::uint64_t scope, std::uint32_t group, std::string_view hash, std::uint32_t shard_number) const {
    const std::uint64_t table = table_hash(scope, group, hash);
    const Shard& shard = shard_of(table);
    const std::lock_guard lock(shard.mutex);
    const Block* block = find(shard, table, scope, group, hash);
    return block == nullptr || block->pages[shard_number].offset == kNoPage;
}

PolicyTime BlockIndex::time() const noexcept {
    return {clock_.load(std::memory_order_relaxed),
            std::max<std::uint64_t>(1, resident_.load(std::memory_order_relaxed)) * kTicksPerInsert};
}

void BlockIndex::publish(const Shard& shard) noexcept {
    lowest_[static_cast<std::size_t>(&shard - shards_.data())].store(shard.order.lowest(), std::memory_order_relaxed);
}

bool BlockIndex::make_resident(Shard& shard, Block& block, bool wanted) {
    block.fill.reset();
    block.came = clock_.fetch_add(kTicksPerInsert, std::memory_order_relaxed);
    block.last_use.store(block.came, std::memory_order_relaxed);
    block.uses.store(1, std::memory_order_relaxed);
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

void BlockIndex::take_out(Shard& shard, Block& block, bool evicted) {
    if (block.state == BlockState::kResident) {
        shard.order.remove(block, evicted);
        publish(shard);
        resident_.fetch_sub(1, std::memory_order_relaxed);
        resident_bytes_.fetch_sub(block.footprint(), std::memory_order_relaxed);
    } else {
        incomplete_.fetch_sub(1, std::memory_order_relaxed);
    }
    if (block.doomed) {
        std::erase(shard.doomed, &block);
        doomed_.fetch_sub(1, std::memory_order_relaxed);
    }
    block.state = BlockState::kGone;
    erase_slot(shard, &block);
    block.refs.fetch_sub(1, std::memory_order_acq_rel);  // the index's own; the caller holds another
}

FillClaim BlockIndex::claim(const BlockKey& key, const GroupShape& shape, std::uint32_t shard_number,
                            std::span<const std::uint64_t> wanted, std::uint64_t page, std::int64_t now_ns) {
    const std::uint64_t table = table_hash(key.scope, key.group, key.hash());
    Shard& shard = shard_of(table);
    FillClaim claim;
    const std::lock_guard lock(shard.mutex);
    Block* block = find(shard, table, key.scope, key.group, key.hash());
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
        take_out(shard, block, false);
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
    if (empty) take_out(shard, block, false);
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

BlockRef BlockIndex::evict_one() {
    std::array<bool, kShards> empty{};  // of blocks that could go
    for (;;) {
        // lowest_ says too little, never too much: the shard that seems to have the lowest rank is asked, and asked again after
        // the others when what it has turns out to rank higher than theirs may.
        std::size_t best = kShards;
        std::uint64_t rank = UINT64_MAX, second = UINT64_MAX;
        for (std::size_t i = 0; i < kShards; ++i) {
            const std::uint64_t lowest = empty[i] ? UINT64_MAX : lowest_[i].load(std::memory_order_relaxed);
            if (lowest < rank) {
                second = std::exchange(rank, lowest);
                best = i;
            } else {
                second = std::min(second, lowest);
            }
        }
        if (best == kShards) return {};
        Shard& shard = shards_[best];
        const std::lock_guard lock(shard.mutex);
        Block* victim = shard.order.victim(time());
        publish(shard);
        empty[best] = victim == nullptr;
        if (victim == nullptr || shard.order.lowest() > second) continue;
        BlockRef out(victim);
        take_out(shard, *victim, true);
        return out;
    }
}

bool BlockIndex::erase(Block& block) {
    const BlockRef hold(&block);
    Shard& shard = shard_of(block.hash);
    const std::lock_guard lock(shard.mutex);
    if (block.state != BlockState::kResident) return false;
    take_out(shard, block, false);
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
            for (const BlockRef& block : out) take_out(shard, *block, false);
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
            for (const BlockRef& block : out) take_out(shard, *block, false);
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
        each_block(shard, [&](Block* block) {
            if (block->state != BlockState::kFilling) return;
            if ((block->birth_ns < before_ns || block->key.scope == scope) && !being_copied(*block)) out.emplace_back(block);
        });
        for (const BlockRef& block : out) take_out(shard, *block, false);
        dropped += out.size();
    }
    return dropped;
}

}  // namespace pegaflow::engine
