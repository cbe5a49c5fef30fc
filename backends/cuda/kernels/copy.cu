// SPDX-License-Identifier: Apache-2.0
// copy.cu - the copy kernels. They are committed as PTX (kernels/compile makes it), so that no CUDA compiler is needed to
// build.
//
// pega_copy_bulk_<stages>: compute capability 9.0. Each warp has a ring of stages in shared memory; one lane moves data through
// it with cp.async.bulk, half of the stages loading while the other half is stored. Addresses and sizes are multiples of 16.
// pega_copy_vector: any GPU and any alignment; a warp takes a fragment, 16 bytes a thread where alignment allows.
//
// With _inline the descriptors are in the parameters. With _digest they add the digest of what they move to the sums of its
// pages; addresses, places and sizes are then multiples of 16, 8 and 16 bytes.
//
// In both, a warp takes `group` consecutive combinations at a time; each lane expands one of them from tiles and pairs, and the
// next group's are fetched while this group moves, so that reading descriptors from host memory costs no waiting.
#include <cstdint>

#include "job.hpp"
#include "pegaflow/abi/ext/digest.h"

namespace cuda_backend {
namespace {

struct Copy {
    std::uint64_t source, target;
    unsigned bytes;
    unsigned place, page;  // for digests: in words from the start of the page; number of the page
};

// One combination as it is stored, before its tile is applied.
struct Item {
    std::uint64_t a, b;
    unsigned tile, block;
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
        if (lane >= job.group || at >= count) return {0, 0, 0, 0, 0, false};
        const unsigned block = static_cast<unsigned>(at) / job.tile_count;
        const Pair pair = pair_at(block);
        return {pair.a,
                pair.b,
                static_cast<unsigned>(at) - block * job.tile_count,
                block,
                job.lengths != nullptr ? job.lengths[block] : 0,
                true};
    }
    __device__ Copy expand(const Item& item, const Tile* tiles) const {
        if (!item.valid) return {};
        const Tile& tile = tiles[item.tile];
        const std::uint64_t a = tile.a + item.a * tile.a_stride;
        const std::uint64_t b = tile.b + item.b * tile.b_stride;
        const unsigned bytes = job.lengths != nullptr ? item.bytes : static_cast<unsigned>(tile.bytes);
        const auto place = static_cast<unsigned>(tile.place / 8);
        return (job.flags & kJobToA) != 0 ? Copy{b, a, bytes, place, item.block} : Copy{a, b, bytes, place, item.block};
    }
    // Plain loads: a warp's are put together on their way to host memory, volatile ones would each cross the link alone.
    __device__ Pair pair_at(unsigned block) const {
        const bool packed = (job.flags & kJobPacked) != 0;
        if ((job.flags & (kJobNarrow | kJobShort)) == 0) {
            const ulonglong2 pair = static_cast<const ulonglong2*>(job.pairs)[block];
            return {pair.x, packed ? block : pair.y};
        }
        if ((job.flags & kJobShort) != 0) {
            if (packed) return {static_cast<const unsigned short*>(job.pairs)[block], block};
            const ushort2 pair = static_cast<const ushort2*>(job.pairs)[block];
            return {pair.x, pair.y};
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

template <bool kDigests>
__device__ __forceinline__ Copy from_lane(const Copy& copy, unsigned lane) {
    return {__shfl_sync(0xffffffffU, copy.source, lane), __shfl_sync(0xffffffffU, copy.target, lane),
            __shfl_sync(0xffffffffU, copy.bytes, lane), kDigests ? __shfl_sync(0xffffffffU, copy.place, lane) : 0,
            kDigests ? __shfl_sync(0xffffffffU, copy.page, lane) : 0};
}

__device__ __forceinline__ std::uint64_t digest_term(std::uint64_t x) {
    const std::uint64_t y = static_cast<std::uint64_t>(static_cast<unsigned>(x)) * static_cast<unsigned>(x >> 32) + x;
    return y ^ (y >> 32);
}

// The term of two words that begin at word `place` of their page.
__device__ __forceinline__ std::uint64_t digest_pair(std::uint64_t first, std::uint64_t second, std::uint64_t key) {
    return digest_term(first + key) + digest_term(second + key + PEGA_DIGEST_G);
}

// What the lanes of a warp have added up for one page after the other.
class PageSum {
public:
    __device__ explicit PageSum(std::uint64_t* sums) : sums_(sums) {}
    // Every lane names the page, then adds.
    __device__ void begin(unsigned page, unsigned lane) {
        if (page == page_) return;
        flush(lane);
        page_ = page;
    }
    __device__ void add(std::uint64_t term) { sum_ += term; }
    __device__ void flush(unsigned lane) {
        if (page_ == kNoPage) return;
#pragma unroll
        for (unsigned step = 16; step != 0; step /= 2) sum_ += __shfl_xor_sync(0xffffffffU, sum_, step);
        if (lane == 0) atomicAdd(reinterpret_cast<unsigned long long*>(sums_ + page_), sum_);
        sum_ = 0;
    }

private:
    static constexpr unsigned kNoPage = ~0U;
    std::uint64_t* sums_;
    unsigned page_ = kNoPage;
    unsigned long long sum_ = 0;
};

#if __CUDA_ARCH__ >= 900

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

// Adds what lies in a stage, a multiple of 16 bytes.
__device__ __forceinline__ void digest_stage(unsigned stage, unsigned bytes, unsigned place, unsigned lane, PageSum& sum) {
    std::uint64_t key = (static_cast<std::uint64_t>(place) + 2 * lane + 1) * PEGA_DIGEST_G;
#pragma unroll 4
    for (unsigned at = 16 * lane; at < bytes; at += 512) {
        std::uint64_t first, second;
        asm volatile("ld.shared.v2.u64 {%0, %1}, [%2];" : "=l"(first), "=l"(second) : "r"(stage + at) : "memory");
        sum.add(digest_pair(first, second, key));
        key += 64 * PEGA_DIGEST_G;
    }
}

template <unsigned kStages, bool kDigests>
__device__ void copy_bulk(const Job& job) {
    constexpr unsigned kAhead = kStages / 2;
    extern __shared__ __align__(128) unsigned char rings[];
    __shared__ Tile shared_tiles[kSharedTiles];
    __shared__ __align__(8) std::uint64_t barriers[kMostWarps][kStages];
    __shared__ std::uint64_t targets[kMostWarps][kStages];
    __shared__ unsigned lengths[kMostWarps][kStages];
    __shared__ unsigned places[kDigests ? kMostWarps : 1][kStages], pages[kDigests ? kMostWarps : 1][kStages];

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
    PageSum sum(job.sums);

    const auto load = [&](unsigned number) {
        if (in_group == job.group) {
            current = work.expand(next, tiles);
            next = work.fetch(++rounds, lane);
            in_group = 0;
        }
        const Copy copy = from_lane<kDigests>(current, in_group++);
        const unsigned stage = number % kStages;
        if (lane != 0) return;
        targets[in_block][stage] = copy.target;
        lengths[in_block][stage] = copy.bytes;
        if (kDigests) {
            places[in_block][stage] = copy.place;
            pages[in_block][stage] = copy.page;
        }
        bulk_load(ring + stage * job.stage_bytes, copy.source, copy.bytes, shared_address(&barriers[in_block][stage]));
    };

    for (unsigned i = 0; i < kAhead && i < mine; ++i) load(i);
    if (kDigests) __syncwarp();  // all lanes read what the first one wrote
    for (unsigned i = 0; i < mine; ++i) {
        const unsigned stage = i % kStages;
        wait_barrier(shared_address(&barriers[in_block][stage]), (i / kStages) & 1);
        if (lane == 0) bulk_store(targets[in_block][stage], ring + stage * job.stage_bytes, lengths[in_block][stage]);
        if (kDigests) {
            sum.begin(pages[in_block][stage], lane);
            digest_stage(ring + stage * job.stage_bytes, lengths[in_block][stage], places[in_block][stage], lane, sum);
        }
        // The stage that the next load takes was stored kStages - kAhead copies ago.
        if (lane == 0) asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kStages - kAhead - 1) : "memory");
        __syncwarp();
        if (i + kAhead < mine) load(i + kAhead);
    }
    if (kDigests) sum.flush(lane);
    if (lane == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

__device__ __forceinline__ Job with_descriptors(const InlineJob& inlined) {
    Job job = inlined.job;
    job.tiles = reinterpret_cast<const Tile*>(inlined.descriptors);
    job.pairs = inlined.descriptors + job.tile_count * sizeof(Tile);
    return job;
}

#endif

// As copy_words of 16 bytes, and adds what it copies.
__device__ __forceinline__ void copy_digest(const Copy& copy, unsigned lane, PageSum& sum) {
    constexpr unsigned kUnroll = 4;
    const auto* from = reinterpret_cast<const ulonglong2*>(copy.source);
    auto* to = reinterpret_cast<ulonglong2*>(copy.target);
    const unsigned count = copy.bytes / 16;
    std::uint64_t key = (static_cast<std::uint64_t>(copy.place) + 2 * lane + 1) * PEGA_DIGEST_G;
    for (unsigned first = lane; first < count; first += 32 * kUnroll) {
        ulonglong2 words[kUnroll];
#pragma unroll
        for (unsigned k = 0; k < kUnroll; ++k)
            if (first + 32 * k < count) words[k] = __ldcs(from + first + 32 * k);
#pragma unroll
        for (unsigned k = 0; k < kUnroll; ++k, key += 64 * PEGA_DIGEST_G) {
            if (first + 32 * k >= count) continue;
            __stcs(to + first + 32 * k, words[k]);
            sum.add(digest_pair(words[k].x, words[k].y, key));
        }
    }
}

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

template <bool kDigests>
__device__ void copy_vector(const Job& job) {
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
    PageSum sum(job.sums);
    for (unsigned i = 0; i < mine; ++i) {
        if (in_group == job.group) {
            current = work.expand(next, tiles);
            next = work.fetch(++rounds, lane);
            in_group = 0;
        }
        const Copy copy = from_lane<kDigests>(current, in_group++);
        if (kDigests) {
            sum.begin(copy.page, lane);
            copy_digest(copy, lane, sum);
            continue;
        }
        const std::uint64_t low = copy.source | copy.target | copy.bytes;
        if (low % 16 == 0) {
            copy_words<uint4>(copy, lane);
        } else if (low % 4 == 0) {
            copy_words<unsigned>(copy, lane);
        } else {
            copy_words<unsigned char>(copy, lane);
        }
    }
    if (kDigests) sum.flush(lane);
}

}  // namespace

#if __CUDA_ARCH__ >= 900

extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1) pega_copy_bulk_4(const __grid_constant__ Job job) {
    copy_bulk<4, false>(job);
}
extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1) pega_copy_bulk_8(const __grid_constant__ Job job) {
    copy_bulk<8, false>(job);
}
extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1)
    pega_copy_bulk_4_inline(const __grid_constant__ InlineJob job) {
    copy_bulk<4, false>(with_descriptors(job));
}
extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1)
    pega_copy_bulk_8_inline(const __grid_constant__ InlineJob job) {
    copy_bulk<8, false>(with_descriptors(job));
}
extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1) pega_copy_bulk_4_digest(const __grid_constant__ Job job) {
    copy_bulk<4, true>(job);
}
extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1) pega_copy_bulk_8_digest(const __grid_constant__ Job job) {
    copy_bulk<8, true>(job);
}

#endif

extern "C" __global__ void __launch_bounds__(1024, 1) pega_copy_vector(const __grid_constant__ Job job) {
    copy_vector<false>(job);
}
extern "C" __global__ void __launch_bounds__(1024, 1) pega_copy_vector_digest(const __grid_constant__ Job job) {
    copy_vector<true>(job);
}

// Needs room and nothing else.
extern "C" __global__ void __launch_bounds__(32 * kMostWarps, 1) pega_room() {}

}  // namespace cuda_backend
