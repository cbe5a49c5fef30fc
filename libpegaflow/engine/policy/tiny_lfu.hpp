// SPDX-License-Identifier: Apache-2.0
// tiny_lfu.hpp - recency with credit for frequency: a block that is used often may stay unused longer than others.
//
// A use is worth what LRU makes it worth; each doubling of the number of uses adds half a turnover of the cache to it, up to
// three doublings. The number survives eviction in a sketch, so a block that comes back is known. Blocks that are used once
// (a scan) go first; a block that was popular once is outlived after at most two and a half turnovers.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "engine/policy/eviction_policy.hpp"
#include "engine/policy/frequency_sketch.hpp"

namespace pegaflow::engine {

class TinyLfu final : public EvictionPolicy {
public:
    // What is known of blocks that are not there; one for all shards of an index, which share it.
    class History {
    public:
        explicit History(std::uint64_t expected_blocks);
        // A block came; now and then all counts are halved. [any]
        std::uint32_t uses_of(std::uint64_t hash) noexcept;
        void expect(std::uint64_t hash) const noexcept { sketch_.prefetch(hash); }
        void remember(std::uint64_t hash, std::uint32_t uses) noexcept { sketch_.raise(hash, uses); }
        std::uint8_t epoch() const noexcept { return epoch_.load(std::memory_order_relaxed); }

    private:
        FrequencySketch sketch_;
        const std::uint64_t sample_;  // blocks that come between two halvings
        std::atomic<std::uint64_t> came_{0};
        std::atomic<std::uint8_t> epoch_{0};  // halvings so far
    };

    explicit TinyLfu(std::shared_ptr<History> history) : history_(std::move(history)) {}
    void expect(std::uint64_t hash) const noexcept override { history_->expect(hash); }
    void inserted(Block& block, const PolicyTime& time) override;
    void removed(Block& block, bool evicted) override;
    std::uint64_t rank(Block& block, const PolicyTime& time) override;

private:
    void age(Block& block) const noexcept;

    std::shared_ptr<History> history_;  // with the other shards of the index
};

}  // namespace pegaflow::engine
