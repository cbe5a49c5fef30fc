// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "memory.hpp"
#include "pegaflow/digest.hpp"

namespace fake_cuda {
namespace {

void must(bool what, const char* text) {
    if (what) return;
    std::fprintf(stderr, "fake CUDA driver: a copy kernel was given %s\n", text);
    std::abort();
}

cuda_backend::Pair pair_at(const cuda_backend::Job& job, unsigned block) {
    const bool packed = (job.flags & cuda_backend::kJobPacked) != 0;
    cuda_backend::Pair out{};
    if ((job.flags & (cuda_backend::kJobNarrow | cuda_backend::kJobShort)) == 0) {
        out = static_cast<const cuda_backend::Pair*>(job.pairs)[block];
    } else if ((job.flags & cuda_backend::kJobShort) != 0 && packed) {
        out.a = static_cast<const std::uint16_t*>(job.pairs)[block];
    } else if ((job.flags & cuda_backend::kJobShort) != 0) {
        const auto& pair = static_cast<const cuda_backend::ShortPair*>(job.pairs)[block];
        out = {pair.a, pair.b};
    } else if (packed) {
        out.a = static_cast<const std::uint32_t*>(job.pairs)[block];
    } else {
        const auto& pair = static_cast<const cuda_backend::NarrowPair*>(job.pairs)[block];
        out = {pair.a, pair.b};
    }
    if (packed) out.b = block;
    return out;
}

}  // namespace

void run_job(Kernel kernel, const cuda_backend::Job& job, int device) {
    const bool bulk = kernel != Kernel::kVector;
    must(job.group >= 1 && job.group <= 32, "a group outside 1 to 32");
    must(job.lengths == nullptr || job.tile_count == 1, "lengths beside several tiles");
    const bool to_a = (job.flags & cuda_backend::kJobToA) != 0;
    for (unsigned block = 0; block < job.pair_count; ++block) {
        for (unsigned t = 0; t < job.tile_count; ++t) {
            const cuda_backend::Tile& tile = job.tiles[t];
            const cuda_backend::Pair pair = pair_at(job, block);
            const auto a = tile.a + pair.a * tile.a_stride;
            const auto b = tile.b + pair.b * tile.b_stride;
            const auto bytes = job.lengths != nullptr ? job.lengths[block] : tile.bytes;
            must(!bulk || (a | b | bytes) % 16 == 0, "an address or a size that is no multiple of 16");
            must(!bulk || (bytes != 0 && bytes <= job.stage_bytes), "a copy that does not fit its stage");
            must(Memory::instance().whole(a, bytes) && Memory::instance().whole(b, bytes),
                 "a range that leaves its allocation");
            must(Memory::instance().reachable(device, a) && Memory::instance().reachable(device, b),
                 "memory of a GPU that its own has no peer access to");
            const auto* source = reinterpret_cast<const void*>(to_a ? b : a);
            std::memcpy(reinterpret_cast<void*>(to_a ? a : b), source, bytes);
            if (job.sums == nullptr) continue;
            must((a | b | bytes) % 16 == 0 && tile.place % 8 == 0, "a digest of what is not aligned");
            std::atomic_ref(job.sums[block]).fetch_add(pegaflow::digest_part(source, bytes, tile.place));
        }
    }
}

}  // namespace fake_cuda
