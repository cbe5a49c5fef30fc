// SPDX-License-Identifier: Apache-2.0
// pieces.hpp - how tiles are cut for the kernels: no piece is larger than a stage of the bulk kernel.
#pragma once

#include <cstdint>

#include "kernels/job.hpp"
#include "rings.hpp"

namespace cuda_backend {

constexpr std::uint64_t kPiece = 16U << 10;      // the largest
constexpr std::uint64_t kSmallPiece = 4U << 10;  // of small launches, so that all warps have work to the end
constexpr std::uint64_t kSmallLaunch = 8U << 20;
constexpr std::uint32_t kMostPieces = 2048;        // in one launch, for one pair
constexpr std::uint64_t kMostPairs = 0xffffffffU;  // the kernels count with 32 bits

constexpr std::uint64_t pieces_of(std::uint64_t bytes, std::uint64_t piece) noexcept { return (bytes + piece - 1) / piece; }

// Pairs that fit in one portion behind `pieces` tiles, each with `pair_bytes`, so that the combinations can be counted.
constexpr std::uint64_t pairs_beside(std::uint64_t pieces, std::uint64_t pair_bytes) noexcept {
    const std::uint64_t room = (DescriptorRing::kPortionBytes - pieces * sizeof(Tile)) / pair_bytes;
    const std::uint64_t countable = kMostPairs / (pieces == 0 ? 1 : pieces);
    return room < countable ? room : countable;
}

// Whether a launch with that many pieces of kPiece for each of its pairs has room for them cut into pieces of kSmallPiece.
constexpr bool fits_small(std::uint64_t pieces, std::uint64_t pairs, std::uint64_t pair_bytes) noexcept {
    const std::uint64_t small = pieces * (kPiece / kSmallPiece);
    return small <= kMostPieces && pairs <= pairs_beside(small, pair_bytes);
}

// `count` of something, at most `most` at a time and equally many each time: how many now. A launch of the few that would be
// left over costs as much time between copies as a large one.
constexpr std::uint64_t even_part(std::uint64_t count, std::uint64_t most) noexcept {
    const std::uint64_t parts = (count + most - 1) / most;
    return parts <= 1 ? count : (count + parts - 1) / parts;
}

}  // namespace cuda_backend
