// SPDX-License-Identifier: Apache-2.0
// frequency_sketch.hpp - about how often each of very many blocks was used, in 32 bytes a block that fits the pool.
//
// A count-min sketch whose counters of one block lie in one cache line (the history of TinyLFU: Einziger, Friedman, Manes,
// ACM TOS 2017). Estimates err upwards only.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/arena.hpp"

namespace pegaflow::engine {

class FrequencySketch {
public:
    static constexpr std::uint32_t kMaxCount = 15;

    explicit FrequencySketch(std::uint64_t expected_blocks);

    // The estimate, 0 to kMaxCount. [any]
    std::uint32_t frequency(std::uint64_t hash) const noexcept;
    // Fetches what a coming call with this hash touches. [any]
    void prefetch(std::uint64_t hash) const noexcept;
    // Makes the estimate at least `count`. Of racing calls one may be lost, which an estimate allows. [any]
    void raise(std::uint64_t hash, std::uint32_t count) noexcept;
    // Halves all counts, so that old popularity fades. [any]
    void halve() noexcept;

private:
    static constexpr std::uint32_t kRows = 4;
    struct alignas(64) Line {
        std::array<std::atomic<std::uint64_t>, 8> words{};
    };
    // Which word of the line, and how far up in it, the counter of a row is.
    struct Place {
        std::uint32_t word, shift;
    };
    static Place place(std::uint64_t hash, std::uint32_t row) noexcept {
        const auto bits = static_cast<std::uint32_t>(hash >> (row * 8));
        return {row * 2 + (bits >> 4 & 1), (bits & 15) * 4};
    }
    Line& line(std::uint64_t hash) const noexcept { return lines_[hash >> 32 & mask_]; }

    std::uint64_t mask_;
    base::Arena memory_;
    Line* lines_;
};

}  // namespace pegaflow::engine
