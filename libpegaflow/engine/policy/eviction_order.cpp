// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/eviction_order.hpp"

#include <algorithm>
#include <cassert>

namespace pegaflow::engine {

void EvictionOrder::rise(std::size_t at, Entry moved) noexcept {
    for (; at != 0; at = (at - 1) / kArity) {
        const Entry& parent = entry((at - 1) / kArity);
        if (parent.rank <= moved.rank) break;
        entry(at) = parent;
    }
    entry(at) = moved;
}

void EvictionOrder::sink(std::size_t at, Entry moved) noexcept {
    for (;;) {
        const std::size_t first = at * kArity + 1;
        const std::size_t end = std::min(first + kArity, size_);
        if (first >= end) break;
        // The children of these lie in lines that follow each other; one of them is next.
        for (std::size_t below = first + 1; below <= end && below < lines_.size(); ++below) __builtin_prefetch(&lines_[below]);
        std::size_t least = first;
        for (std::size_t child = first + 1; child < end; ++child) {
            if (entry(child).rank < entry(least).rank) least = child;
        }
        if (moved.rank <= entry(least).rank) break;
        entry(at) = entry(least);
        at = least;
    }
    entry(at) = moved;
}

void EvictionOrder::insert(Block& block, const PolicyTime& time) {
    policy_->inserted(block, time);
    if ((size_ + kRoot) / kArity >= lines_.size()) lines_.emplace_back();
    ++size_;
    rise(size_ - 1, {policy_->rank(block, time), &block});
}

void EvictionOrder::remove(Block& block, bool evicted) {
    // What is evicted is on top. Where another block is, nobody knows: to keep that in the blocks would cost a cache miss for
    // each entry that moves.
    std::size_t at = 0;
    while (at < size_ && entry(at).block != &block) ++at;
    assert(at < size_);
    const Entry last = entry(--size_);
    if (at < size_) {
        if (at != 0 && last.rank < entry((at - 1) / kArity).rank) {
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
    std::size_t kept = 0;
    for (std::size_t at = 0; at < size_; ++at) {
        if (!std::binary_search(gone.begin(), gone.end(), entry(at).block)) entry(kept++) = entry(at);
    }
    size_ = kept;
    for (std::size_t at = size_ / kArity + 1; at-- > 0;) {
        if (at < size_) sink(at, entry(at));
    }
    for (const BlockRef& block : blocks) policy_->removed(*block, false);
}

Block* EvictionOrder::victim(const PolicyTime& time) {
    for (std::size_t asked = 0; asked <= size_ && size_ != 0;) {
        const Entry top = entry(0);
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
