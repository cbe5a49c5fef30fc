// SPDX-License-Identifier: Apache-2.0
// tiny_lfu.hpp - admission by estimated frequency (Einziger, Friedman, Manes: TinyLFU, ACM TOS 2017).
//
// A doorkeeper (Bloom filter) takes first sightings, a count-min sketch of 4-bit counters the rest; after `sample` recordings
// all counters are halved and the doorkeeper is emptied, so that old popularity fades.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/policy/admission_policy.hpp"

namespace pegaflow::engine {

class TinyLfu final : public AdmissionPolicy {
public:
    explicit TinyLfu(std::uint64_t expected_blocks);
    void record(std::uint64_t hash) noexcept override;
    bool admit(std::uint64_t candidate, std::uint64_t victim) noexcept override;
    // The estimate, 0 to 16. [any]
    std::uint32_t frequency(std::uint64_t hash) const noexcept;

private:
    static constexpr int kRows = 4;
    static constexpr std::uint32_t kMaxCount = 15;

    std::uint64_t slot(std::uint64_t hash, int row) const noexcept;
    std::uint32_t counter(std::uint64_t at, int row) const noexcept;
    bool known(std::uint64_t hash) const noexcept;
    void age();

    std::uint64_t mask_;    // counters a row, minus one
    std::uint64_t sample_;  // recordings between two agings
    std::vector<std::atomic<std::uint64_t>>
        counters_;  // 16 counters a word; racing increments may be lost, which an estimate allows
    std::vector<std::atomic<std::uint64_t>> doorkeeper_;
    std::atomic<std::uint64_t> recorded_{0};
    std::mutex aging_;
};

}  // namespace pegaflow::engine
