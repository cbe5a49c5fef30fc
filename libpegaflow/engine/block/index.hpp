// SPDX-License-Identifier: Apache-2.0
// index.hpp - every block that is resident or being filled, found by key; sharded, so that no query takes a global lock.
//
// A lookup works on chunks of hashes: it hashes them all, fetches their slots and blocks ahead into the cache, then takes the
// lock of each shard that the chunk meets once: long enough to compare and pin. It allocates nothing for a hash.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/arena.hpp"
#include "base/thread.hpp"
#include "engine/block/block.hpp"
#include "engine/policy/admission_policy.hpp"
#include "engine/policy/eviction_order.hpp"

namespace pegaflow::engine {

// What a saver may copy of one block: the layers that it claimed.
struct FillClaim {
    BlockRef block;          // null when the block is new and there was no page for it
    LayerSet layers;         // empty = nothing to do: resident, or claimed by others
    bool used_page = false;  // the page that was offered became the block's
};

// The shape of the blocks of one storage group: how many layers each shard has, the bytes of its page, and how many of them
// mean something.
struct GroupShape {
    struct Shard {
        std::uint32_t layers = 0;
        std::uint64_t page_bytes = 0;
        std::uint64_t content_bytes = 0;
    };
    std::vector<Shard> shards;
};

class BlockIndex {
public:
    static constexpr std::size_t kShards = 64;

    // `admission` is borrowed for the index's life.
    BlockIndex(const EvictionFactory& policy, AdmissionPolicy& admission, PageOwner& pages);
    ~BlockIndex();

    // Pins the resident blocks of the longest prefix of `hashes` and appends them to `out`. [any]
    void lookup_prefix(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes,
                       std::vector<BlockRef>& out);
    // Pins every resident block of `hashes`; appends block and position. [any]
    void lookup_each(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes,
                     std::vector<BlockRef>& out, std::vector<std::uint32_t>& positions);
    // True for a resident block; no pin, no effect on recency. [any]
    bool contains(std::uint64_t scope, std::uint32_t group, std::string_view hash) const;
    // The resident block, pinned; no effect on recency. [any]
    BlockRef peek(std::uint64_t scope, std::uint32_t group, std::string_view hash) const;
    // `needs_page` of this key comes soon: fetches what it will look at. [any]
    void expect_claim(const KeyView& key) const noexcept { prefetch_slot(shard_of(key.hash), key.hash); }
    // True when a saver of this shard would have to bring a page. [any]
    bool needs_page(const KeyView& key, std::uint32_t shard) const;

    // Claims the layers of `wanted` that nobody has or copies. A block that is new is made with `shape`. When the block has no
    // page for the shard yet, `page` becomes it. [any]
    FillClaim claim(const KeyView& key, const GroupShape& shape, std::uint32_t shard, const LayerSet& wanted,
                    std::uint64_t page, std::int64_t now_ns);
    // `filled` of this block comes soon: fetches what it will touch. [any]
    void expect_filled(const Block& block) const noexcept {
        block.prefetch();
        shard_of(block.hash).order.expect(block.hash);
    }
    // The claimed layers are there; `digest` is the whole page's, where the copy brought it. Returns true when the block became
    // complete, and with that resident (or was refused admission, then `admitted` is false and the block is gone). [any]
    bool filled(const FillClaim& claim, std::uint32_t shard, bool* admitted, std::optional<std::uint64_t> digest = {});
    // The copy failed: others may claim the layers again; a block without any layer goes. [any]
    void unclaim(const FillClaim& claim, std::uint32_t shard);

    // Makes a complete block resident at once (replay of traces, slower tiers). False when it is there already. With `wanted`
    // admission is not asked: somebody waits for the block. [any]
    bool insert_resident(const BlockRef& block, bool* admitted, bool wanted = false);

    // Takes the block that should go first out of the index; null when no block can go. Its pages are the caller's
    // to take, or follow its last reference. [any]
    BlockRef evict_one();
    // The same for several: appends blocks that should go to `out` until they hold `bytes` of pages, `most` are taken, or no
    // more can go. Their order by rank is kept to a small part of a turnover of the cache, which spares most of the locking.
    // [any]
    void evict(std::uint64_t bytes, std::size_t most, std::vector<BlockRef>& out);
    // The same for this very block. False when it was not resident. [any]
    bool erase(Block& block);
    // Takes every resident block out that nobody uses; `visit` sees each. The others stay, and are taken out by erase_doomed
    // when nobody uses them any more; returns how many. [any]
    std::uint64_t erase_all(const std::function<void(BlockRef)>& visit);
    // Takes out the blocks that erase_all had to leave and that nobody uses now; costs nothing while there are none. [any]
    void erase_doomed(const std::function<void(BlockRef)>& visit);
    // Drops incomplete blocks that nobody copies into and that are older than `before_ns` or of the scope `scope`. [any]
    std::uint64_t drop_incomplete(std::int64_t before_ns, std::uint64_t scope);

    // New blocks displace old ones from now on, so that admission is asked. [any]
    void set_pressure(bool on) noexcept { pressure_.store(on, std::memory_order_relaxed); }

    // What time it is, in hundredths of a second since some start: blocks that become resident bear it, and no clock is asked
    // for each. [any]
    void set_hundredths(std::uint32_t now) noexcept { hundredths_.store(now, std::memory_order_relaxed); }
    // For how long a block that was taken out had been resident.
    double residence_seconds(const Block& block) const noexcept {
        return (hundredths_.load(std::memory_order_relaxed) - block.came_at) / 100.0;  // modulo 2^32, which are 497 days
    }

    std::uint64_t resident() const noexcept { return resident_.load(std::memory_order_relaxed); }
    std::uint64_t resident_bytes() const noexcept { return resident_bytes_.load(std::memory_order_relaxed); }
    std::uint64_t incomplete() const noexcept { return incomplete_.load(std::memory_order_relaxed); }
    // Of the pages that incomplete blocks have so far.
    std::uint64_t incomplete_bytes() const noexcept { return incomplete_bytes_.load(std::memory_order_relaxed); }

private:
    static constexpr unsigned kShardShift = 58;
    // Hashes looked up at once: few at first, many a prefix ends soon.
    static constexpr std::size_t kFirstChunk = 32;
    static constexpr std::size_t kChunkGrowth = 8;
    static constexpr std::size_t kChunk = 256;  // their slots and blocks fit the first-level cache

    struct Slot {
        std::atomic<std::uint64_t> hash{0};  // with the lowest bit set; 0 = free
        std::atomic<Block*> block{nullptr};
    };
    // Open addressing with linear probing and backward-shift deletion, at most half full. Tables that were outgrown stay, as
    // long as the index, for readers that look ahead without the mutex: all together they are no larger than the current one.
    struct Table {
        const std::size_t mask;
        Slot* const slots;
    };
    struct alignas(64) Shard {
        mutable base::AdaptiveMutex mutex;
        std::atomic<Table*> table{nullptr};          // written under mutex
        std::size_t used = 0;                        // guarded by mutex
        EvictionOrder order;                         // guarded by mutex
        std::vector<std::unique_ptr<Table>> tables;  // guarded by mutex
        std::vector<Block*> doomed;                  // guarded by mutex
    };
    using Found = std::array<BlockRef, kChunk>;

    Shard& shard_of(std::uint64_t hash) const noexcept { return shards_[hash >> kShardShift]; }
    static Block* find(const Shard& shard, std::uint64_t hash, std::uint64_t scope, std::uint32_t group, std::string_view text);
    static void prefetch_slot(const Shard& shard, std::uint64_t hash) noexcept;
    void insert(Shard& shard, Block* block);
    std::unique_ptr<Table> make_table(std::size_t count);
    static void put(Table& table, Block* block);
    static void erase_slot(Shard& shard, const Block* block);
    template <class Visit>
    static void each_block(const Shard& shard, Visit visit) {
        const Table& table = *shard.table.load(std::memory_order_relaxed);
        for (std::size_t at = 0; at <= table.mask; ++at) {
            if (Block* block = table.slots[at].block.load(std::memory_order_relaxed)) visit(block);
        }
    }
    void publish(const Shard& shard) noexcept;
    PolicyTime time() const noexcept;
    bool make_resident(Shard& shard, Block& block, bool wanted = false);
    enum class Leaves { kEvicted, kAlone, kWithMany };  // with many: out of the order of eviction already
    void take_out(Shard& shard, Block& block, Leaves why);
    // The shard whose order begins with the lowest rank, and the lowest rank of the others.
    struct LowestShard {
        std::size_t number = kShards;  // kShards: all are empty
        std::uint64_t others = UINT64_MAX;
    };
    LowestShard lowest_shard(const std::array<bool, kShards>& empty) const noexcept;
    // Pins the resident blocks of at most kChunk hashes.
    void pin_chunk(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Found& found);
    template <class Visit>
    void lookup(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Visit visit);

    std::mutex slots_mutex_;  // may be locked under a shard's
    base::Arena slots_;       // guarded by slots_mutex_; outlives the tables
    mutable std::array<Shard, kShards> shards_;
    alignas(64) std::array<std::atomic<std::uint64_t>, kShards> lowest_;  // rank in each shard's order, readable without mutex
    AdmissionPolicy& admission_;
    PageOwner& pages_;
    alignas(64) std::atomic<std::uint64_t> clock_{1};
    std::atomic<bool> pressure_{false};
    std::atomic<std::uint32_t> hundredths_{0};
    std::atomic<std::uint64_t> resident_{0}, resident_bytes_{0}, incomplete_{0}, incomplete_bytes_{0}, doomed_{0};
};

}  // namespace pegaflow::engine
