// SPDX-License-Identifier: Apache-2.0
// The staged path: a kernel packs scattered GPU memory into a slot of the ring and the copy engine takes it to the host's
// pages, or the reverse. The two halves run on two streams; a slot's events keep them in order.
#include <algorithm>

#include "copier.hpp"
#include "pieces.hpp"

namespace cuda_backend {
namespace {

constexpr std::uint64_t kSmallestChunk = 512U << 10;

}  // namespace

// Full slots, but small ones where the half that the other cannot overlap is exposed: at the start towards the host, at the end
// towards the GPU.
std::uint64_t Copier::chunk_bytes(const Plan& plan, std::uint64_t queued) const noexcept {
    const std::uint64_t exposed = plan.to_a ? (plan.bytes - queued) / 2 : queued;
    return std::clamp(exposed, std::min(kSmallestChunk, staging_.slot_bytes()), staging_.slot_bytes());
}

// The tiles of a chunk depend on the cursor's tile alone, so that the chunks of all its pairs have the same.
Copier::Band Copier::chunk_at(const Plan& plan, const Cursor& cursor, std::uint64_t bytes) const noexcept {
    const Group& group = plan.groups[cursor.group];
    const std::uint32_t end = group.first_tile + group.tile_count;
    Band band;
    band.first = group.first_tile + cursor.tile;
    band.pair = cursor.pair;
    band.dense = group.dense;
    std::uint64_t pieces = 0;
    const std::uint64_t pairs_a_tile = group.dense ? 1 : plan.pair_count;  // a tile is whole before the next one begins
    for (band.last = band.first; band.last < end; ++band.last) {
        const std::uint64_t more = plan.tiles[band.last].bytes;
        if (band.last != band.first && (band.block_bytes + more > staging_.slot_bytes() / pairs_a_tile ||
                                        pieces + pieces_of(more, kPiece) > kMostPieces)) {
            break;
        }
        band.block_bytes += more;
        pieces += pieces_of(more, kPiece);
    }
    const std::uint64_t room = std::max<std::uint64_t>(bytes / band.block_bytes, 1);
    band.pairs = std::min({room, pairs_beside(pieces, sizeof(Pair)), plan.pair_count - cursor.pair});
    // Tile after tile on the host: several tiles only go together when all their pairs do.
    if (!group.dense && band.last - band.first > 1 && band.pairs != plan.pair_count) {
        band.last = band.first + 1;
        band.block_bytes = plan.tiles[band.first].bytes;
        band.pairs = std::min(std::max<std::uint64_t>(bytes / band.block_bytes, 1), plan.pair_count - cursor.pair);
        pieces = pieces_of(band.block_bytes, kPiece);
        band.pairs = std::min(band.pairs, pairs_beside(pieces, sizeof(Pair)));
    }
    band.few_pieces = fits_small(pieces, band.pairs, sizeof(Pair));
    return band;
}

Result Copier::step_staged(const Plan& plan, Cursor& cursor, std::uint64_t& queued) noexcept {
    const Driver& driver = *tools_.driver;
    if (descriptors_.take(driver).host == nullptr) return kNotReady;
    const Band band = chunk_at(plan, cursor, chunk_bytes(plan, queued));
    const Result result = queue_staged(plan, band);
    if (result != kSuccess) return result;
    queued += band.bytes();
    advance(plan, band, cursor);
    return kSuccess;
}

Result Copier::queue_staged(const Plan& plan, const Band& band) noexcept {
    const Driver& driver = *tools_.driver;
    const Path kernel = tools_.kernels->usable(Path::kBulk) && plan.aligned ? Path::kBulk : Path::kVector;
    StagingRing::Slot& slot = staging_.next();
    Result result = slot.used ? driver.cuStreamWaitEvent(side_, slot.drained, 0) : kSuccess;
    if (result == kSuccess)
        result = plan.to_a ? copy_pages(plan, band, slot.base, side_) : launch(plan, kernel, band, slot.base, side_);
    if (result == kSuccess) result = driver.cuEventRecord(slot.filled, side_);
    if (result == kSuccess) result = driver.cuStreamWaitEvent(main_, slot.filled, 0);
    if (result == kSuccess)
        result = plan.to_a ? launch(plan, kernel, band, slot.base, main_) : copy_pages(plan, band, slot.base, main_);
    if (result == kSuccess) result = driver.cuEventRecord(slot.drained, main_);
    slot.used = true;
    return result;
}

// Between a slot and the host: one copy for each run of pages that follow each other there.
Result Copier::copy_pages(const Plan& plan, const Band& band, DevicePointer packed, Stream stream) noexcept {
    Feed feed(*this, plan.to_a, tools_.driver->has_batched_copies(), stream);
    const std::uint32_t rows = band.dense ? band.first + 1 : band.last;
    for (std::uint32_t t = band.first; t < rows; ++t) {
        const Tile& tile = plan.tiles[t];
        const std::uint64_t page = band.dense ? band.block_bytes : tile.bytes;
        for (std::uint64_t i = 0; i < band.pairs; ++i, packed += page)
            feed.add({packed, tile.b + plan.pair(band.pair + i).b * tile.b_stride, page});
    }
    return feed.end();
}

}  // namespace cuda_backend
