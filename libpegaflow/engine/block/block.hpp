// SPDX-License-Identifier: Apache-2.0
// block.hpp - one cached block: a page of the pool for each worker shard, filled cell by cell, then sealed for good.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "engine/block/key.hpp"
#include "engine/block/layer_set.hpp"
#include "engine/block/small_array.hpp"

namespace pegaflow::engine {

// Whoever gives pages back when a block goes.
class PageOwner {
public:
    virtual void free_page(std::uint64_t offset, std::uint64_t bytes) noexcept = 0;

protected:
    ~PageOwner() = default;
};

inline constexpr std::uint64_t kNoPage = UINT64_MAX;

// The bytes of one worker shard: all its layers side by side.
struct Page {
    std::uint64_t offset = kNoPage;  // from the pool's base
    std::uint64_t bytes = 0;
    std::uint64_t content = 0;  // bytes of it that mean something, a multiple of 8; what follows is padding
    std::uint64_t digest = 0;   // of its content (abi/ext/digest.h), when it has one
    bool has_digest = false;
};

enum class BlockState : std::uint8_t { kFilling, kResident, kGone };

// Which layers of a shard are being copied or there, and which are there.
struct ShardFill {
    LayerSet claimed, filled;
    std::uint32_t missing = 0;
};

// Guarded by the mutex of its index shard: state, fill, epoch. Pages are written by the claims' owners only and never
// after sealing. The block, with the pages that nobody took from it, goes when the last reference does. What a lookup touches
// lies in the first cache line: references, marks of use, and the key as far as a hash of 32 bytes goes.
struct alignas(64) Block {
    Block(const BlockKey& k, std::uint64_t h, PageOwner& o) : key(k), hash(h), owner(o) {}
    static void* operator new(std::size_t bytes);
    static void operator delete(void* memory) noexcept;
    ~Block() {
        for (const Page& page : pages) {
            if (page.offset != kNoPage) owner.free_page(page.offset, page.bytes);
        }
    }
    std::uint64_t footprint() const noexcept {
        std::uint64_t bytes = 0;
        for (const Page& page : pages) bytes += page.offset == kNoPage ? 0 : page.bytes;
        return bytes;
    }
    // Notes a use; racing ones may count as one. [data]
    void touch(std::uint64_t tick) noexcept {
        last_use.store(tick, std::memory_order_relaxed);
        const std::uint8_t count = uses.load(std::memory_order_relaxed);
        if (count < kMaxUses) uses.store(count + 1, std::memory_order_relaxed);
    }
    // Fetches all of it into the cache, to be written. [any]
    void prefetch() const noexcept { prefetch(this); }
    static void prefetch(const void* block) noexcept {
        const auto* bytes = static_cast<const char*>(block);
        for (std::size_t at = 0; at < sizeof(Block); at += alignof(Block)) __builtin_prefetch(bytes + at, 1);
    }
    static constexpr std::uint8_t kMaxUses = 15;

    std::atomic<std::uint32_t> refs{0};
    BlockState state = BlockState::kFilling;
    std::atomic<std::uint8_t> uses{0};       // since it came, and before as far as the policy remembers
    std::uint8_t epoch = 0;                  // of `uses`; the policy's own
    bool doomed = false;                     // goes as soon as nobody uses it; guarded by the index
    std::atomic<std::uint64_t> last_use{0};  // tick of the index
    const BlockKey key;
    const std::uint64_t hash;
    PageOwner& owner;
    std::uint64_t came = 0;  // tick when it became resident; until then the time when it was made, in nanoseconds
    std::uint64_t tag = 0;   // a policy plug-in's own word
    std::uint32_t shards_missing = 0;
    std::uint32_t came_at = 0;          // when it became resident, in hundredths of a second of the index's time
    std::atomic<bool> digested{false};  // every page has its digest; they do not change any more
    std::atomic<bool> offered{false};   // a slower tier has it, or is about to
    SmallArray<Page> pages;             // by shard of the storage group
    SmallArray<ShardFill> fill;         // one a page, until sealed
};
static_assert(sizeof(Block) == 256, "every line more is one more to fetch when a block is saved");

// A counted reference: while one exists, the block's pages stay. Cheap to move.
class BlockRef {
public:
    BlockRef() noexcept = default;
    explicit BlockRef(Block* block) noexcept : block_(block) {
        if (block_ != nullptr) block_->refs.fetch_add(1, std::memory_order_relaxed);
    }
    BlockRef(const BlockRef& other) noexcept : BlockRef(other.block_) {}
    BlockRef(BlockRef&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
    BlockRef& operator=(BlockRef other) noexcept {
        std::swap(block_, other.block_);
        return *this;
    }
    ~BlockRef() {
        if (block_ != nullptr && block_->refs.fetch_sub(1, std::memory_order_acq_rel) == 1) delete block_;
    }
    Block* get() const noexcept { return block_; }
    Block* operator->() const noexcept { return block_; }
    Block& operator*() const noexcept { return *block_; }
    explicit operator bool() const noexcept { return block_ != nullptr; }

private:
    Block* block_ = nullptr;
};

}  // namespace pegaflow::engine
