// SPDX-License-Identifier: Apache-2.0
#include "engine/block/index.hpp"

#include <algorithm>
#include <new>

namespace pegaflow::engine {
namespace {

constexpr std::size_t kFirstSlots = 64;
constexpr std::size_t kMaxProbes = 8;  // of a look ahead

// The mark takes the lowest bit, so a slot's home follows from the others.
constexpr std::uint64_t marked(std::uint64_t hash) noexcept { return hash | 1; }
constexpr std::size_t home_of(std::uint64_t hash, std::size_t mask) noexcept { return (hash >> 1) & mask; }

}  // namespace

BlockIndex::BlockIndex(const EvictionFactory& policy, AdmissionPolicy& admission, PageOwner& pages)
    : admission_(admission), pages_(pages) {
    for (Shard& shard : shards_) {
        shard.order.set_policy(policy());
        shard.tables.push_back(make_table(kFirstSlots));
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

Block* BlockIndex::find(const Shard& shard, std::uint64_t hash, std::uint64_t scope, std::uint32_t group,
                        std::string_view text) {
    const Table& table = *shard.table.load(std::memory_order_relaxed);
    for (std::size_t at = home_of(hash, table.mask);; at = (at + 1) & table.mask) {
        const std::uint64_t here = table.slots[at].hash.load(std::memory_order_relaxed);
        if (here == 0) return nullptr;
        if (here != marked(hash)) continue;
        Block* block = table.slots[at].block.load(std::memory_order_relaxed);
        if (same_key(block->key, scope, group, text)) return block;
    }
}

void BlockIndex::prefetch_slot(const Shard& shard, std::uint64_t hash) noexcept {
    const Table* table = shard.table.load(std::memory_order_acquire);
    __builtin_prefetch(&table->slots[home_of(hash, table->mask)], 1);
}

std::unique_ptr<BlockIndex::Table> BlockIndex::make_table(std::size_t count) {
    const std::lock_guard lock(slots_mutex_);
    void* const memory = slots_.allocate(count * sizeof(Slot));
    return std::make_unique<Table>(Table{count - 1, new (memory) Slot[count]});
}

void BlockIndex::put(Table& table, Block* block) {
    std::size_t at = home_of(block->hash, table.mask);
    while (table.slots[at].hash.load(std::memory_order_relaxed) != 0) at = (at + 1) & table.mask;
    table.slots[at].block.store(block, std::memory_order_relaxed);
    table.slots[at].hash.store(marked(block->hash), std::memory_order_relaxed);
}

void BlockIndex::insert(Shard& shard, Block* block) {
    const std::size_t count = shard.table.load(std::memory_order_relaxed)->mask + 1;
    if ((shard.used + 1) * 2 > count) {
        auto larger = make_table(count * 2);
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
    std::size_t hole = home_of(block->hash, table.mask);
    while (block_at(hole) != block) hole = (hole + 1) & table.mask;
    for (std::size_t next = (hole + 1) & table.mask;; next = (next + 1) & table.mask) {
        const std::uint64_t hash = table.slots[next].hash.load(std::memory_order_relaxed);
        if (hash == 0) break;
        // An entry may fill the hole unless its home lies cyclically between the hole and itself.
        if (((next - home_of(hash, table.mask)) & table.mask) < ((next - hole) & table.mask)) continue;
        table.slots[hole].block.store(block_at(next), std::memory_order_relaxed);
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
    std::uint32_t slots[kChunk];    // where they seem to be
    std::uint16_t starts[kShards + 1] = {};
    for (std::size_t i = 0; i < hashes.size(); ++i) {
        const std::uint64_t hash = table_hashes[i] = table_hash(scope, group, hashes[i]);
        const Table* table = shard_of(hash).table.load(std::memory_order_acquire);
        __builtin_prefetch(&table->slots[home_of(hash, table->mask)]);
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
        std::size_t at = home_of(hash, table->mask);
        for (std::size_t probe = 1; probe < kMaxProbes && table->slots[at].hash.load(std::memory_order_relaxed) != marked(hash);
             ++probe)
            at = (at + 1) & table->mask;
        __builtin_prefetch(table->slots[at].block.load(std::memory_order_relaxed), 1);
        slots[i] = static_cast<std::uint32_t>(at);
    }
    // Where to begin differs, so that queries that come at once do not follow each other from lock to lock.
    const std::size_t first = table_hashes[0] % kShards;
    for (std::size_t step = 0; step < kShards; ++step) {
        const std::size_t number = (first + step) % kShards;
        if (starts[number] == starts[number + 1]) continue;
        const Shard& shard = shards_[number];
        const std::lock_guard lock(shard.mutex);
        const Table& table = *shard.table.load(std::memory_order_relaxed);
        for (std::size_t at = starts[number]; at < starts[number + 1]; ++at) {
            const std::size_t i = in_order[at];
            // A table only grows: what was a slot of it still is one, perhaps another's by now.
            const Slot& slot = table.slots[slots[i]];
            Block* block = slot.hash.load(std::memory_order_relaxed) == marked(table_hashes[i])
                               ? slot.block.load(std::memory_order_relaxed)
                               : nullptr;
            if (block == nullptr || !same_key(block->key, scope, group, hashes[i]))
                block = find(shard, table_hashes[i], scope, group, hashes[i]);
            if (block != nullptr && block->state == BlockState::kResident) found[i] = BlockRef(block);
        }
    }
}

template <class Visit>
void BlockIndex::lookup(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Visit visit) {
    // The first block of a prefix is the newest and its last one the oldest: a block goes before those it continues.
    const std::uint64_t tick = clock_.fetch_add(hashes.size(), std::memory_order_relaxed) + hashes.size();
    Found found;
    for (std::size_t first = 0, count = kFirstChunk; first < hashes.size();
         first += count, count = std::min(count * kChunkGrowth, kChunk)) {
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

bool BlockIndex::needs_page(const KeyView& key, std::uint32_t shard_number) const {
    const Shard& shard = shard_of(key.hash);
    // Most blocks of a save are new, which shows without the mutex. A race may make it true for one that is there: the page
    // comes back unused.
    const Table& slots = *shard.table.load(std::memory_order_acquire);
    for (std::size_t at = home_of(key.hash, slots.mask);; at = (at + 1) & slots.mask) {
        const std::uint64_t here = slots.slots[at].hash.load(std::memory_order_relaxed);
        if (here == 0) return true;
        if (here == marked(key.hash)) break;
    }
    const std::lock_guard lock(shard.mutex);
    const Block* block = find(shard, key.hash, key.scope, key.group, key.text);
    if (block == nullptr) return true;
    return shard_number < block->pages.size() && block->pages[shard_number].offset == kNoPage;
}

}  // namespace pegaflow::engine
