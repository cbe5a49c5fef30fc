// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "copier.hpp"
#include "pieces.hpp"

namespace cuda_backend {
namespace {

constexpr std::uint64_t kUploaded = 64U << 10;  // bytes of descriptors of kernels that read host memory

}  // namespace

Copier::Band Copier::band_at(const Plan& plan, const Cursor& cursor, std::uint64_t bytes) const noexcept {
    const Group& group = plan.groups[cursor.group];
    Band band;
    band.first = band.last = group.first_tile + cursor.tile;
    band.pair = cursor.pair;
    band.dense = group.dense;
    std::uint64_t pieces = 0;
    for (; band.last < group.first_tile + group.tile_count; ++band.last) {
        const std::uint64_t more = pieces_of(plan.tiles[band.last].bytes, kPiece);
        if (band.last != band.first && pieces + more > kMostPieces) break;
        pieces += more;
        band.block_bytes += plan.tiles[band.last].bytes;
    }
    const std::uint64_t pair_bytes = 2 * plan.index_bytes;
    const std::uint64_t wanted = std::max<std::uint64_t>(bytes / band.block_bytes, 1);
    band.pairs = even_part(plan.pair_count - cursor.pair, std::min(wanted, pairs_beside(pieces, pair_bytes)));
    band.few_pieces = fits_small(pieces, band.pairs, pair_bytes);
    return band;
}

Result Copier::step_kernel(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept {
    const Band band = band_at(plan, cursor, UINT64_MAX);
    const Result result = launch(plan, route.path, band, 0, route.end);
    if (result != kSuccess) return result;
    queued += band.bytes();
    advance(plan, band, cursor);
    return kSuccess;
}

template <class Index, class OfPair>
std::uint64_t Copier::write_shifted(const Plan& plan, const Band& band, bool to_slot, unsigned char* out) noexcept {
    const unsigned shift = plan.index_shift;
    if (to_slot) {
        auto* indices = reinterpret_cast<Index*>(out);
        plan.for_pairs(band.pair, band.pairs,
                       [=](std::uint64_t i, const Pair& pair) { indices[i] = static_cast<Index>(pair.a >> shift); });
        return band.pairs * sizeof(Index);
    }
    auto* pairs = reinterpret_cast<OfPair*>(out);
    plan.for_pairs(band.pair, band.pairs, [=](std::uint64_t i, const Pair& pair) {
        pairs[i] = {static_cast<Index>(pair.a >> shift), static_cast<Index>(pair.b >> shift)};
    });
    return band.pairs * sizeof(OfPair);
}

std::uint64_t Copier::write_pairs(const Plan& plan, const Band& band, bool to_slot, unsigned char* out) noexcept {
    if (plan.index_bytes == 2) return write_shifted<std::uint16_t, ShortPair>(plan, band, to_slot, out);
    if (plan.index_bytes == 4) return write_shifted<std::uint32_t, NarrowPair>(plan, band, to_slot, out);
    auto* pairs = reinterpret_cast<Pair*>(out);
    plan.for_pairs(band.pair, band.pairs, [=](std::uint64_t i, const Pair& pair) { pairs[i] = pair; });
    return band.pairs * sizeof(Pair);
}

unsigned Copier::write_tiles(const Plan& plan, const Band& band, DevicePointer packed, std::uint64_t piece_bytes, Tile* out,
                             std::uint64_t* largest) noexcept {
    const bool to_slot = packed != 0;
    const unsigned shift = plan.index_bytes < sizeof(std::uint64_t) ? plan.index_shift : 0;
    unsigned count = 0;
    for (std::uint32_t t = band.first; t < band.last; ++t) {
        Tile tile = plan.tiles[t];
        tile.a_stride <<= shift;
        tile.b_stride <<= shift;
        if (to_slot) {
            tile.b = packed;
            tile.b_stride = band.dense ? band.block_bytes : tile.bytes;
            packed += band.dense ? tile.bytes : tile.bytes * band.pairs;
        }
        *largest = std::max(*largest, std::min(tile.bytes, piece_bytes));
        for (std::uint64_t done = 0; done < tile.bytes; done += piece_bytes, ++count) {
            const std::uint64_t length = std::min(piece_bytes, tile.bytes - done);
            out[count] = {tile.a + done, tile.a_stride, tile.b + done, tile.b_stride, length, tile.place + done};
        }
    }
    return count;
}

Result Copier::launch(const Plan& plan, Path kernel, const Band& band, DevicePointer packed, Stream stream) noexcept {
    const bool to_slot = packed != 0;
    const std::uint64_t piece_bytes = band.bytes() <= kSmallLaunch && band.few_pieces ? kSmallPiece : kPiece;
    std::uint64_t pieces = 0;
    for (std::uint32_t t = band.first; t < band.last; ++t) pieces += pieces_of(plan.tiles[t].bytes, piece_bytes);
    const bool divided = plan.index_bytes < sizeof(std::uint64_t);
    const bool inlined = kernel == Path::kBulk && divided && sums_ == 0 &&
                         pieces * sizeof(Tile) + band.pairs * 2 * plan.index_bytes <= kInlineBytes;
    DescriptorRing::Portion portion{inline_.descriptors, 0};
    if (!inlined) portion = descriptors_.take(*tools_.driver);
    if (portion.host == nullptr) return kNotReady;
    Job job{};
    std::uint64_t largest = 0;
    job.tile_count = write_tiles(plan, band, packed, piece_bytes, reinterpret_cast<Tile*>(portion.host), &largest);
    job.pair_count = static_cast<unsigned>(band.pairs);
    job.flags = (plan.to_a ? kJobToA : 0) | (to_slot ? kJobPacked : 0);
    if (divided) job.flags |= plan.index_bytes == 2 ? kJobShort : kJobNarrow;
    const std::uint64_t pairs_at = job.tile_count * sizeof(Tile);
    const std::uint64_t used = pairs_at + write_pairs(plan, band, to_slot, portion.host + pairs_at);
    if (inlined) {
        inline_.job = job;
        const Kernels& kernels = *tools_.kernels;
        return kernels.launch(*tools_.driver, kernels.shape(kernel, largest), inline_, multiprocessors_, stream);
    }
    // Such kernels keep the link busy by themselves: the copy engine brings the descriptors while the batch before still moves.
    if (plan.to_a && plan.b_is_host && !to_slot && used >= kUploaded)
        portion.device = descriptors_.upload(*tools_.driver, used, stream);
    job.tiles = reinterpret_cast<const Tile*>(portion.device);
    job.pairs = reinterpret_cast<const void*>(portion.device + pairs_at);
    if (sums_ != 0) job.sums = reinterpret_cast<std::uint64_t*>(sums_ + band.pair * sizeof(std::uint64_t));
    return launch_job(kernel, largest, job, stream);
}

// Pairs with lengths of their own become pieces here, each with its place and its length.
Result Copier::step_lengths(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept {
    const DescriptorRing::Portion portion = descriptors_.take(*tools_.driver);
    if (portion.host == nullptr) return kNotReady;
    const std::uint64_t room = pairs_beside(1, sizeof(Pair) + sizeof(unsigned));
    constexpr std::uint64_t kPairsAt = sizeof(Tile);
    auto* pairs = reinterpret_cast<Pair*>(portion.host + kPairsAt);
    auto* lengths = reinterpret_cast<unsigned*>(portion.host + kPairsAt + room * sizeof(Pair));
    *reinterpret_cast<Tile*>(portion.host) = plan.tiles.front();
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
    std::uint64_t largest = 0;
    for (; cursor.pair < plan.pair_count; ++cursor.pair) {
        const std::uint64_t length = plan.lengths()[cursor.pair];
        if (count + pieces_of(length, kPiece) > room) break;
        const Pair pair = plan.pair(cursor.pair);
        for (std::uint64_t done = 0; done < length; done += kPiece) {
            pairs[count] = {pair.a + done, pair.b + done};
            lengths[count++] = static_cast<unsigned>(std::min<std::uint64_t>(kPiece, length - done));
        }
        largest = std::max(largest, std::min<std::uint64_t>(length, kPiece));
        bytes += length;
    }
    if (cursor.pair == plan.pair_count) cursor = {cursor.group + 1, 0, 0};
    Job job{};
    job.tiles = reinterpret_cast<const Tile*>(portion.device);
    job.pairs = reinterpret_cast<const void*>(portion.device + kPairsAt);
    job.lengths = reinterpret_cast<const unsigned*>(portion.device + kPairsAt + room * sizeof(Pair));
    job.tile_count = 1;
    job.pair_count = static_cast<unsigned>(count);
    job.flags = plan.to_a ? kJobToA : 0;
    queued += bytes;
    return launch_job(route.path, largest, job, route.end);
}

Result Copier::launch_job(Path kernel, std::uint64_t largest, const Job& job, Stream stream) noexcept {
    const Driver& driver = *tools_.driver;
    const Kernels& kernels = *tools_.kernels;
    const Result result = kernels.launch(driver, kernel, kernels.shape(kernel, largest), job, multiprocessors_, stream);
    return result != kSuccess ? result : descriptors_.give(driver, stream);
}

}  // namespace cuda_backend
