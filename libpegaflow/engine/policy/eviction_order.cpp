// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/eviction_order.hpp"

#include <algorithm>
#include <cassert>

namespace pegaflow::engine {

void EvictionOrder::rise(std::size_t at, Entry entry) noexcept {
    for (; at != 0; at = (at - 1) / kArity) {
        const Entry& parent = heap_[(at - 1) / kArity];
        if (parent.rank <= entry.rank) break;
        heap_[at] = parent;
    }
    heap_[at] = entry;
}

void EvictionOrder::sink(std::size_t at, Entry entry) noexcept {
    for (;;) {
        const std::size_t first = at * kArity + 1;
        const std::size_t end = std::min(first + kArity, heap_.size());
        std::size_t least = first;
        for (std::size_t child = first + 1; child < end; ++child) {
            if (heap_[child].rank < heap_[least].rank) least = child;
        }
        if (first >= end || entry.rank <= heap_[least].rank) break;
        heap_[at] = heap_[least];
        at = least;
    }
    heap_[at] = entry;
}

void EvictionOrder::insert(Block& block, const PolicyTime& time) {
    policy_->inserted(block, time);
    heap_.emplace_back();
    rise(heap_.size() - 1, {policy_->rank(block, time), &block});
}

void EvictionOrder::remove(Block& block, bool evicted) {
    // What is evicted is on top. Where another block is, nobody knows: to keep that in the blocks would cost a cache miss for
    // each entry that moves.
    const auto it = std::find_if(heap_.begin(), heap_.end(), [&](const Entry& entry) { return entry.block == &block; });
    assert(it != heap_.end());
    const auto at = static_cast<std::size_t>(it - heap_.begin());
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at < heap_.size()) {
        if (at != 0 && last.rank < heap_[(at - 1) / kArity].rank) {
            rise(at, last);
        } else {
            sink(at, last);
        }
    }
    policy_->removed(block, evicted);
}

void EvictionOrder::remove_all(std::span<const BlockRef> blocks) {
    std::vector<const Block*> gone;
    gone.reserve(blocks.size());
    for (const BlockRef& block : blocks) gone.push_back(block.get());
    std::sort(gone.begin(), gone.end());
    std::erase_if(heap_, [&](const Entry& entry) { return std::binary_search(gone.begin(), gone.end(), entry.block); });
    for (std::size_t at = heap_.size() / kArity + 1; at-- > 0;) {
        if (at < heap_.size()) sink(at, heap_[at]);
    }
    for (const BlockRef& block : blocks) policy_->removed(*block, false);
}

Block* EvictionOrder::victim(const PolicyTime& time) {
    for (std::size_t asked = 0; asked <= heap_.size() && !heap_.empty();) {
        const Entry top = heap_.front();
        const bool in_use = top.block->refs.load(std::memory_order_acquire) != 1;
        if (in_use) {
            top.block->last_use.store(time.now, std::memory_order_relaxed);
            ++asked;  // every block is asked once at most, then all are in use
        }
        const std::uint64_t rank = policy_->rank(*top.block, time);
        if (!in_use && rank <= top.rank) return top.block;
        sink(0, {std::max(rank, top.rank + 1), top.block});
    }
    return nullptr;
}

}  // namespace pegaflow::engine
