// SPDX-License-Identifier: Apache-2.0
// index.hpp - every block that is resident or being filled, found by key; sharded, so that no query takes a global lock.
//
// A lookup hashes ahead, then takes one shard's lock for each hash: long enough to find, pin and touch. It allocates
// nothing for a hash.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "engine/block/block.hpp"
#include "engine/policy/admission_policy.hpp"
#include "engine/policy/eviction_policy.hpp"

namespace pegaflow::engine {

// What a saver may copy of one block: the layers that it claimed, as bits.
struct FillClaim {
    BlockRef block;
    std::vector<std::uint64_t> layers;  // empty = nothing to do: resident, or claimed by others
    bool used_page = false;             // the page that was offered became the block's
};

// The shape of the blocks of one storage group: how many layers each shard has, and the bytes of its page.
struct GroupShape {
    struct Shard {
        std::uint32_t layers = 0;
        std::uint64_t page_bytes = 0;
    };
    std::vector<Shard> shards;
};

class BlockIndex {
public:
    using PolicyFactory = std::function<std::unique_ptr<EvictionPolicy>()>;
    // `admission` is borrowed for the index's life.
    BlockIndex(const PolicyFactory& policy, AdmissionPolicy& admission, PageOwner& pages);
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
    // True when a saver of this shard would have to bring a page. [any]
    bool needs_page(std::uint64_t scope, std::uint32_t group, std::string_view hash, std::uint32_t shard) const;

    // Claims the layers of `wanted` that nobody has or copies. A block that is new is made with `shape`. When the block has no
    // page for the shard yet, `page` becomes it. [any]
    FillClaim claim(const BlockKey& key, const GroupShape& shape, std::uint32_t shard, std::span<const std::uint64_t> wanted,
                    std::uint64_t page, std::int64_t now_ns);
    // The claimed layers are there. Returns true when the block became complete, and with that resident (or was refused
    // admission, then `admitted` is false and the block is gone). [any]
    bool filled(const FillClaim& claim, std::uint32_t shard, bool* admitted);
    // The copy failed: others may claim the layers again; a block without any layer goes. [any]
    void unclaim(const FillClaim& claim, std::uint32_t shard);

    // Makes a complete block resident at once (replay of traces, slower tiers). False when it is there already. With `wanted`
    // admission is not asked: somebody waits for the block. [any]
    bool insert_resident(BlockRef block, bool* admitted, bool wanted = false);

    // Takes the block that should go first out of the index; null when no block can go. Its memory follows its last reference.
    // [any]
    BlockRef evict_one();
    // The same for this very block. False when it was not resident. [any]
    bool erase(Block& block);
    // Takes every resident block out; `visit` sees each. [any]
    void erase_all(const std::function<void(BlockRef)>& visit);
    // Drops incomplete blocks that nobody copies into and that are older than `before_ns` or of the scope `scope`. [any]
    std::uint64_t drop_incomplete(std::int64_t before_ns, std::uint64_t scope);

    // New blocks displace old ones from now on, so that admission is asked. [any]
    void set_pressure(bool on) noexcept { pressure_.store(on, std::memory_order_relaxed); }

    std::uint64_t resident() const noexcept { return resident_.load(std::memory_order_relaxed); }
    std::uint64_t resident_bytes() const noexcept { return resident_bytes_.load(std::memory_order_relaxed); }
    std::uint64_t incomplete() const noexcept { return incomplete_.load(std::memory_order_relaxed); }

private:
    static constexpr std::size_t kShards = 64;

    struct Slot {
        std::uint64_t hash = 0;  // with the lowest bit set; 0 = free
        Block* block = nullptr;
    };
    // Open addressing with linear probing and backward-shift deletion, at most half full.
    struct alignas(64) Shard {
        mutable std::mutex mutex;
        std::vector<Slot> slots = std::vector<Slot>(64);  // guarded by mutex
        std::size_t used = 0;                             // guarded by mutex
        std::unique_ptr<EvictionPolicy> policy;           // guarded by mutex
        std::atomic<std::uint64_t> oldest{UINT64_MAX};    // of the policy, readable without the mutex
    };

    Shard& shard_of(std::uint64_t hash) const noexcept { return shards_[hash >> 58]; }
    static std::size_t find(const Shard& shard, std::uint64_t hash, std::uint64_t scope, std::uint32_t group,
                            std::string_view text);
    static void insert(Shard& shard, Block* block);
    static void erase_slot(Shard& shard, std::size_t at);
    bool make_resident(Shard& shard, Block& block, bool wanted = false);
    void take_out(Shard& shard, Block& block);
    template <class Visit>
    void lookup(std::uint64_t scope, std::uint32_t group, std::span<const std::string_view> hashes, Visit visit);

    mutable std::array<Shard, kShards> shards_;
    AdmissionPolicy& admission_;
    PageOwner& pages_;
    std::atomic<std::uint64_t> clock_{1};
    std::atomic<bool> pressure_{false};
    std::atomic<std::uint64_t> resident_{0}, resident_bytes_{0}, incomplete_{0};
};

}  // namespace pegaflow::engine
