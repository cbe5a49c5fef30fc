// SPDX-License-Identifier: Apache-2.0
// copy.cu - the copy kernels. They are committed as PTX (kernels/compile makes it), so that no CUDA compiler is needed to
// build.
//
// pega_copy_bulk_<stages>: compute capability 9.0. Each warp has a ring of stages in shared memory; one lane moves data through
// it with cp.async.bulk, half of the stages loading while the other half is stored. Addresses and sizes are multiples of 16.
// pega_copy_vector: any GPU and any alignment; a warp takes a fragment, 16 bytes a thread where alignment allows.
//
// In both, a warp takes `group` consecutive combinations at a time; each lane expands one of them from tiles and pairs, and the
// next group's are fetched while this group moves, so that reading descriptors from host memory costs no waiting.
#include <cstdint>

#include "job.hpp"

namespace cuda_backend {
namespace {

struct Copy {
    std::uint64_t source, target;
    unsigned bytes;
};

// One combination as it is stored, before its tile is applied.
struct Item {
    std::uint64_t a, b;
    unsigned tile;
    unsigned bytes;  // 0 = the tile's
    bool valid;
};

struct Work {
    const Job& job;
    unsigned count, warp, warps;

    // What this lane is to expand in the group `round` of its warp.
    __device__ Item fetch(unsigned round, unsigned lane) const {
        const std::uint64_t first = (static_cast<std::uint64_t>(round) * warps + warp) * job.group;
        const std::uint64_t at = first + lane;
        if (lane >= job.group || at >= count) return {0, 0, 0, 0, false};
        const unsigned block = static_cast<unsigned>(at) / job.tile_count;
        const Pair pair = pair_at(block);
        return {pair.a, pair.b, static_cast<unsigned>(at) - block * job.tile_count,
                job.lengths != nullptr ? job.lengths[block] : 0, true};
    }
    __device__ Copy expand(const Item& item, const Tile* tiles) const {
        if (!item.valid) return {0, 0, 0};
        const Tile& tile = tiles[item.tile];
        const std::uint64_t a = tile.a + item.a * tile.a_stride;
        const std::uint64_t b = tile.b + item.b * tile.b_stride;
        const unsigned bytes = job.lengths != nullptr ? item.bytes : static_cast<unsigned>(tile.bytes);
        return (job.flags & kJobToA) != 0 ? Copy{b, a, bytes} : Copy{a, b, bytes};
    }
    // Plain loads: a warp's are put together on their way to host memory, volatile ones would each cross the link alone.
    __device__ Pair pair_at(unsigned block) const {
        const bool packed = (job.flags & kJobPacked) != 0;
        if ((job.flags & kJobNarrow) == 0) {
            const ulonglong2 pair = static_cast<const ulonglong2*>(job.pairs)[block];
            return {pair.x, packed ? block : pair.y};
        }
        if (packed) return {static_cast<const unsigned*>(job.pairs)[block], block};
        const uint2 pair = static_cast<const uint2*>(job.pairs)[block];
        return {pair.x, pair.y};
    }
    // Combinations that this warp moves in all.
    __device__ unsigned mine() const {
        const unsigned step = warps * job.group;
        const unsigned rounds = count / step;
        const unsigned rest = count - rounds * step;
        const unsigned before = warp * job.group;
        const unsigned last = rest > before ? min(rest - before, job.group) : 0;
        return rounds * job.group + last;
    }
};

constexpr unsigned kSharedTiles = 256;

__device__ const Tile* stage_tiles(const Job& job, Tile* shared) {
    if (job.tile_count > kSharedTiles) return job.tiles;
    const auto* from = reinterpret_cast<const unsigned long long*>(job.tiles);
    auto* to = reinterpret_cast<unsigned long long*>(shared);
    for (unsigned i = threadIdx.x; i < job.tile_count * (sizeof(Tile) / 8); i += blockDim.x) to[i] = from[i];
    __syncthreads();
    return shared;
}

__device__ __forceinline__ Copy from_lane(const Copy& copy, unsigned lane) {
    return {__shfl_sync(0xffffffffU, copy.source, lane), __shfl_sync(0xffffffffU, copy.target, lane),
            __shfl_sync(0xffffffffU, copy.bytes, lane)};
}

#if __CUDA_ARCH__ >= 900

constexpr unsigned kMaxWarps = 32;

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void bulk_load(unsigned stage, std::uint64_t source, unsigned bytes, unsigned barrier) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(stage),
                 "l"(source), "r"(bytes), "r"(barrier)
                 : "memory");
}

__device__ __forceinline__ void wait_barrier(unsigned barrier, unsigned parity) {
    unsigned done = 0;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (done == 0);
}

__device__ __forceinline__ void bulk_store(std::uint64_t target, unsigned stage, unsigned bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(target), "r"(stage), "r"(bytes)
                 : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

template <unsigned kStages>
__device__ void copy_bulk(const Job& job) {
    constexpr unsigned kAhead = kStages / 2;
    extern __shared__ __align__(128) unsigned char rings[];
    __shared__ Tile shared_tiles[kSharedTiles];
    __shared__ __align__(8) std::uint64_t barriers[kMaxWarps][kStages];
    __shared__ std::uint64_t targets[kMaxWarps][kStages];
    __shared__ unsigned lengths[kMaxWarps][kStages];

    const unsigned in_block = threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    const unsigned block_warps = blockDim.x / 32;
    if (lane == 0) {
        for (unsigned i = 0; i < kStages; ++i)
            asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(&barriers[in_block][i])));
    }
    asm volatile("fence.mbarrier_init.release.cluster;");
    asm volatile("fence.proxy.async.shared::cta;");
    // Warps of one block are far apart in the order, so that a small job uses all blocks.
    const Work work{job, job.tile_count * job.pair_count, in_block * gridDim.x + blockIdx.x, block_warps * gridDim.x};
    const unsigned mine = work.mine();
    const unsigned ring = shared_address(rings) + in_block * kStages * job.stage_bytes;
    Copy current{};
    Item next = work.fetch(0, lane);  // on its way while the tiles are
    const Tile* tiles = stage_tiles(job, shared_tiles);
    __syncwarp();
    unsigned rounds = 0;
    unsigned in_group = job.group;

    const auto load = [&](unsigned number) {
        if (in_group == job.group) {
            current = work.expand(next, tiles);
            next = work.fetch(++rounds, lane);
            in_group = 0;
        }
        const Copy copy = from_lane(current, in_group++);
        const unsigned stage = number % kStages;
        if (lane != 0) return;
        targets[in_block][stage] = copy.target;
        lengths[in_block][stage] = copy.bytes;
        bulk_load(ring + stage * job.stage_bytes, copy.source, copy.bytes, shared_address(&barriers[in_block][stage]));
    };

    for (unsigned i = 0; i < kAhead && i < mine; ++i) load(i);
    for (unsigned i = 0; i < mine; ++i) {
        const unsigned stage = i % kStages;
        wait_barrier(shared_address(&barriers[in_block][stage]), (i / kStages) & 1);
        if (lane == 0) {
            bulk_store(targets[in_block][stage], ring + stage * job.stage_bytes, lengths[in_block][stage]);
            // The stage that the next load takes was stored kStages - kAhead copies ago.
            asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kStages - kAhead - 1) : "memory");
        }
        __syncwarp();
        if (i + kAhead < mine) load(i + kAhead);
    }
    if (lane == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

#endif

template <class Word>
__device__ __forceinline__ void copy_words(const Copy& copy, unsigned lane) {
    constexpr unsigned kUnroll = 4;
    const auto* from = reinterpret_cast<const Word*>(copy.source);
    auto* to = reinterpret_cast<Word*>(copy.target);
    const unsigned count = copy.bytes / sizeof(Word);
    for (unsigned first = lane; first < count; first += 32 * kUnroll) {
        Word words[kUnroll];
#pragma unroll
        for (unsigned k = 0; k < kUnroll; ++k)
            if (first + 32 * k < count) words[k] = __ldcs(from + first + 32 * k);
#pragma unroll
        for (unsigned k = 0; k < kUnroll; ++k)
            if (first + 32 * k < count) __stcs(to + first + 32 * k, words[k]);
    }
}

}  // namespace

#if __CUDA_ARCH__ >= 900

extern "C" __global__ void __launch_bounds__(1024, 1) pega_copy_bulk_4(const __grid_constant__ Job job) { copy_bulk<4>(job); }
extern "C" __global__ void __launch_bounds__(1024, 1) pega_copy_bulk_8(const __grid_constant__ Job job) { copy_bulk<8>(job); }

#endif

extern "C" __global__ void __launch_bounds__(1024, 1) pega_copy_vector(const __grid_constant__ Job job) {
    __shared__ Tile shared_tiles[kSharedTiles];
    const unsigned lane = threadIdx.x % 32;
    const unsigned block_warps = blockDim.x / 32;
    const Work work{job, job.tile_count * job.pair_count, (threadIdx.x / 32) * gridDim.x + blockIdx.x, block_warps * gridDim.x};
    const unsigned mine = work.mine();
    Copy current{};
    Item next = work.fetch(0, lane);
    const Tile* tiles = stage_tiles(job, shared_tiles);
    unsigned rounds = 0;
    unsigned in_group = job.group;
    for (unsigned i = 0; i < mine; ++i) {
        if (in_group == job.group) {
            current = work.expand(next, tiles);
            next = work.fetch(++rounds, lane);
            in_group = 0;
        }
        const Copy copy = from_lane(current, in_group++);
        const std::uint64_t low = copy.source | copy.target | copy.bytes;
        if (low % 16 == 0) {
            copy_words<uint4>(copy, lane);
        } else if (low % 4 == 0) {
            copy_words<unsigned>(copy, lane);
        } else {
            copy_words<unsigned char>(copy, lane);
        }
    }
}

}  // namespace cuda_backend
