// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/frequency_sketch.hpp"

#include <algorithm>
#include <bit>
#include <new>

#include "base/hash.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kMinLines = 64;
constexpr std::uint64_t kBlocksPerLine = 2;
constexpr std::uint64_t kMaxLines = std::uint64_t{1} << 32;
constexpr std::uint64_t kHalves = 0x7777777777777777ULL;
constexpr std::uint64_t kSeed = 0x9ae16a3b2f90404fULL;

// The bits of a table hash choose a shard already; a sketch needs others.
std::uint64_t spread(std::uint64_t hash) noexcept { return base::mix(hash, kSeed); }

}  // namespace

FrequencySketch::FrequencySketch(std::uint64_t expected_blocks)
    : mask_(std::bit_ceil(std::clamp(expected_blocks / kBlocksPerLine, kMinLines, kMaxLines)) - 1),
      lines_(new(memory_.allocate((mask_ + 1) * sizeof(Line))) Line[mask_ + 1]) {}

std::uint32_t FrequencySketch::frequency(std::uint64_t hash) const noexcept {
    const std::uint64_t bits = spread(hash);
    const Line& counters = line(bits);
    std::uint32_t least = kMaxCount;
    for (std::uint32_t row = 0; row < kRows; ++row) {
        const auto [word, shift] = place(bits, row);
        least = std::min(least,
                         static_cast<std::uint32_t>(counters.words[word].load(std::memory_order_relaxed) >> shift) & kMaxCount);
    }
    return least;
}

void FrequencySketch::prefetch(std::uint64_t hash) const noexcept { __builtin_prefetch(&line(spread(hash))); }

void FrequencySketch::raise(std::uint64_t hash, std::uint32_t count) noexcept {
    const std::uint64_t bits = spread(hash);
    const std::uint64_t wanted = std::min(count, kMaxCount);
    for (std::uint32_t row = 0; row < kRows; ++row) {
        const auto [at, shift] = place(bits, row);
        std::atomic<std::uint64_t>& word = line(bits).words[at];
        const std::uint64_t old = word.load(std::memory_order_relaxed);
        const std::uint64_t was = old >> shift & kMaxCount;
        if (was < wanted) word.store(old + ((wanted - was) << shift), std::memory_order_relaxed);
    }
}

void FrequencySketch::halve() noexcept {
    for (std::uint64_t i = 0; i <= mask_; ++i) {
        for (auto& word : lines_[i].words) {
            word.store(word.load(std::memory_order_relaxed) >> 1 & kHalves, std::memory_order_relaxed);
        }
    }
}

}  // namespace pegaflow::engine
