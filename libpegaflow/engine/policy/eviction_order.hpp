// SPDX-License-Identifier: Apache-2.0
// eviction_order.hpp - the resident blocks of one shard, so that the one of the lowest rank is found without sorting on use.
//
// A heap of ranks as they were when last asked for. Uses only raise a rank, so what is on top is a lower bound: the top is
// asked again, and sinks when it has risen, until one is found that has not. Guarded by the shard's mutex.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/policy/eviction_policy.hpp"

namespace pegaflow::engine {

class EvictionOrder {
public:
    void set_policy(std::unique_ptr<EvictionPolicy> policy) noexcept { policy_ = std::move(policy); }

    void expect(std::uint64_t hash) const noexcept { policy_->expect(hash); }
    void insert(Block& block, const PolicyTime& time);
    // Quick for what `victim` gave; else as long as looking at every entry.
    void remove(Block& block, bool evicted);
    // Blocks that go for another reason than that memory is short, all at once.
    void remove_all(std::span<const BlockRef> blocks);
    // Fetches the blocks that may go next into the cache.
    void prefetch_next() const noexcept {
        for (std::size_t at = 1; at <= kArity && at < size_; ++at) entry(at).block->prefetch();
    }
    // The block that seems to be next; null when there is none.
    const Block* next() const noexcept { return size_ == 0 ? nullptr : entry(0).block; }
    // The block that should go first among those that nobody but the index refers to; null when there is none. A block in use
    // counts as used now.
    Block* victim(const PolicyTime& time);
    // No block has a lower rank than this; UINT64_MAX when there is none.
    std::uint64_t lowest() const noexcept { return size_ == 0 ? UINT64_MAX : entry(0).rank; }

private:
    struct Entry {
        std::uint64_t rank = 0;
        Block* block = nullptr;
    };
    static constexpr std::size_t kArity = 4;
    // A cache line. The first has the root alone, at its end; line n + 1 has the children of entry n.
    struct alignas(64) Line {
        Entry entries[kArity];
    };
    static constexpr std::size_t kRoot = kArity - 1;

    Entry& entry(std::size_t at) noexcept { return lines_[(at + kRoot) / kArity].entries[(at + kRoot) % kArity]; }
    const Entry& entry(std::size_t at) const noexcept { return lines_[(at + kRoot) / kArity].entries[(at + kRoot) % kArity]; }
    void rise(std::size_t at, Entry moved) noexcept;
    void sink(std::size_t at, Entry moved) noexcept;

    std::unique_ptr<EvictionPolicy> policy_;
    std::vector<Line> lines_;
    std::size_t size_ = 0;
};

}  // namespace pegaflow::engine
