// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/tiny_lfu.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/hash.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kMinCounters = 1024;
constexpr std::uint64_t kSampleFactor = 10;
constexpr std::uint64_t kHalves = 0x7777777777777777ULL;
constexpr std::uint64_t kRowSeeds[] = {0xc3a5c85c97cb3127ULL, 0xb492b66fbe98f273ULL, 0x9ae16a3b2f90404fULL,
                                       0xcbf29ce484222325ULL};

class AdmitAll final : public AdmissionPolicy {
public:
    void record(std::uint64_t) noexcept override {}
    bool admit(std::uint64_t, std::uint64_t) noexcept override { return true; }
};

}  // namespace

TinyLfu::TinyLfu(std::uint64_t expected_blocks)
    : mask_(std::bit_ceil(std::max(expected_blocks * 2, kMinCounters)) - 1),
      sample_(std::max(expected_blocks, kMinCounters / 2) * kSampleFactor),
      counters_(kRows * (mask_ + 1) / 16),
      doorkeeper_((mask_ + 1) * 4 / 64) {}

std::uint64_t TinyLfu::slot(std::uint64_t hash, int row) const noexcept {
    return base::mix(hash ^ kRowSeeds[row], kRowSeeds[(row + 1) % kRows]) & mask_;
}

std::uint32_t TinyLfu::counter(std::uint64_t at, int row) const noexcept {
    const std::uint64_t index = static_cast<std::uint64_t>(row) * (mask_ + 1) + at;
    return static_cast<std::uint32_t>(counters_[index / 16].load(std::memory_order_relaxed) >> (index % 16 * 4)) & kMaxCount;
}

bool TinyLfu::known(std::uint64_t hash) const noexcept {
    const std::uint64_t bits = doorkeeper_.size() * 64;
    for (const std::uint64_t probe : {hash % bits, base::mix(hash, kRowSeeds[2]) % bits}) {
        if ((doorkeeper_[probe / 64].load(std::memory_order_relaxed) >> (probe % 64) & 1) == 0) return false;
    }
    return true;
}

std::uint32_t TinyLfu::frequency(std::uint64_t hash) const noexcept {
    std::uint32_t least = kMaxCount;
    for (int row = 0; row < kRows; ++row) least = std::min(least, counter(slot(hash, row), row));
    return least + (known(hash) ? 1 : 0);
}

void TinyLfu::record(std::uint64_t hash) noexcept {
    if (recorded_.fetch_add(1, std::memory_order_relaxed) + 1 >= sample_) age();
    if (!known(hash)) {
        const std::uint64_t bits = doorkeeper_.size() * 64;
        for (const std::uint64_t probe : {hash % bits, base::mix(hash, kRowSeeds[2]) % bits}) {
            doorkeeper_[probe / 64].fetch_or(std::uint64_t{1} << (probe % 64), std::memory_order_relaxed);
        }
        return;
    }
    for (int row = 0; row < kRows; ++row) {
        const std::uint64_t index = static_cast<std::uint64_t>(row) * (mask_ + 1) + slot(hash, row);
        std::atomic<std::uint64_t>& word = counters_[index / 16];
        std::uint64_t old = word.load(std::memory_order_relaxed);
        const std::uint64_t shift = index % 16 * 4;
        if ((old >> shift & kMaxCount) < kMaxCount) {
            word.compare_exchange_weak(old, old + (std::uint64_t{1} << shift), std::memory_order_relaxed);
        }
    }
}

bool TinyLfu::admit(std::uint64_t candidate, std::uint64_t victim) noexcept { return frequency(candidate) > frequency(victim); }

void TinyLfu::age() {
    const std::unique_lock lock(aging_, std::try_to_lock);
    if (!lock || recorded_.load(std::memory_order_relaxed) < sample_) return;
    for (auto& word : counters_) word.store(word.load(std::memory_order_relaxed) >> 1 & kHalves, std::memory_order_relaxed);
    for (auto& word : doorkeeper_) word.store(0, std::memory_order_relaxed);
    recorded_.store(sample_ / 2, std::memory_order_relaxed);
}

Result<std::unique_ptr<AdmissionPolicy>> make_admission_policy(std::string_view name, std::uint64_t expected_blocks) {
    if (name == "none") return std::unique_ptr<AdmissionPolicy>(std::make_unique<AdmitAll>());
    if (name == "tiny_lfu") return std::unique_ptr<AdmissionPolicy>(std::make_unique<TinyLfu>(expected_blocks));
    return fail(Code::kNotFound, fmt::format("no admission policy \"{}\"; there are: none, tiny_lfu", name));
}

}  // namespace pegaflow::engine
