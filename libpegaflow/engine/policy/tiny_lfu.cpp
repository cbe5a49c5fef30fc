// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/tiny_lfu.hpp"

#include <algorithm>

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kTurnoversPerSample = 8;
constexpr std::uint64_t kMinSample = 512;
// Half a turnover times the binary logarithm of the uses, in 1/16 of a turnover.
constexpr std::uint64_t kCredit[] = {0, 0, 8, 13, 16, 19, 21, 22, 24};

}  // namespace

TinyLfu::History::History(std::uint64_t expected_blocks)
    : sketch_(expected_blocks), sample_(std::max(expected_blocks * kTurnoversPerSample, kMinSample)) {}

std::uint32_t TinyLfu::History::uses_of(std::uint64_t hash) noexcept {
    if ((came_.fetch_add(1, std::memory_order_relaxed) + 1) % sample_ == 0) {
        sketch_.halve();
        epoch_.fetch_add(1, std::memory_order_relaxed);
    }
    return sketch_.frequency(hash);
}

void TinyLfu::inserted(Block& block, const PolicyTime&) {
    const std::uint32_t uses = std::min(history_->uses_of(block.hash) + 1, FrequencySketch::kMaxCount);
    block.uses.store(static_cast<std::uint8_t>(uses), std::memory_order_relaxed);
    block.epoch = history_->epoch();
}

void TinyLfu::removed(Block& block, bool evicted) {
    age(block);
    if (evicted) history_->remember(block.hash, block.uses.load(std::memory_order_relaxed));
}

void TinyLfu::age(Block& block) const noexcept {
    const auto halvings = static_cast<std::uint8_t>(history_->epoch() - block.epoch);
    if (halvings == 0) return;
    block.uses.store(static_cast<std::uint8_t>(block.uses.load(std::memory_order_relaxed) >> std::min<int>(halvings, 7)),
                     std::memory_order_relaxed);
    block.epoch = history_->epoch();
}

std::uint64_t TinyLfu::rank(Block& block, const PolicyTime& time) {
    age(block);
    const std::size_t uses = std::min<std::size_t>(block.uses.load(std::memory_order_relaxed), std::size(kCredit) - 1);
    return block.last_use.load(std::memory_order_relaxed) + time.turnover / 16 * kCredit[uses];
}

}  // namespace pegaflow::engine
