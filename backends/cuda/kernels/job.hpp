// SPDX-License-Identifier: Apache-2.0
// job.hpp - what one launch of a copy kernel is told; the same structs on the host and on the GPU.
//
// A job moves every combination of a tile and a pair: `bytes` bytes between a + pair.a * a_stride and b + pair.b * b_stride.
// Side A is the memory of the GPU that runs the kernel; side B is host memory, a peer's memory or a staging slot. All addresses
// are those of the unified address space. Little-endian, natural alignment; sizes are pinned below.
#pragma once

#include <cstdint>

namespace cuda_backend {

struct Tile {
    std::uint64_t a, a_stride;
    std::uint64_t b, b_stride;
    std::uint64_t bytes;
    std::uint64_t place;  // bytes from the start of the page: for its digest (pegaflow/abi/ext/digest.h)
};

// How the pairs of a job are stored: descriptors cross the host link too, so the narrowest form that holds them is used.
struct Pair {
    std::uint64_t a, b;
};
struct NarrowPair {
    std::uint32_t a, b;
};
struct ShortPair {
    std::uint16_t a, b;
};

constexpr unsigned kJobToA = 1;     // from B to A; else from A to B
constexpr unsigned kJobPacked = 2;  // the index on side B is the number of the pair in this job, not pair.b
// With kJobPacked, pairs of these two forms are the indices of side A alone.
constexpr unsigned kJobNarrow = 4;  // pairs are NarrowPair
constexpr unsigned kJobShort = 8;   // pairs are ShortPair

constexpr unsigned kMostWarps = 16;  // of a block of the bulk kernel

struct Job {
    const Tile* tiles;        // borrowed until the kernel has ended
    const void* pairs;        // likewise
    const unsigned* lengths;  // bytes of each pair instead of the tile's; null = the tile's. Then there is one tile
    std::uint64_t* sums;      // of each pair, memory of this GPU: what moves is added to its page's digest; null = no digests
    unsigned tile_count;
    unsigned pair_count;
    unsigned flags;
    unsigned stage_bytes;  // of a stage of the bulk kernel's rings: a power of two, no copy is larger
    unsigned group;        // combinations that a warp takes at a time, 1 to 32
    unsigned reserved;
};

// A job of few tiles and pairs, which travel with the launch: the GPU need not fetch them from the host before it begins.
// Tiles first, then narrow or short pairs. No digests.
constexpr unsigned kInlineBytes = 3840;
struct InlineJob {
    Job job;  // the kernel itself sets tiles and pairs
    alignas(16) unsigned char descriptors[kInlineBytes];
};

static_assert(sizeof(InlineJob) == 3904, "the parameters of a kernel have at most 4 KiB");
static_assert(sizeof(Tile) == 48 && sizeof(Pair) == 16 && sizeof(Job) == 56, "the kernels were compiled for these sizes");

}  // namespace cuda_backend
