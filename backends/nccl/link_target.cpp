// SPDX-License-Identifier: Apache-2.0
// The side whose memory is asked for: checks every piece against what it has exported, then posts its half.
#include "link.hpp"

namespace nccl_backend {

void Link::announced(ByteSpan body) {
    if (!read_announcement(body, announcement_)) return fail(PEGA_PEER_LOST, 0, "the peer's announcement is not sound");
    const Announce& head = announcement_.head;
    if (head.part < next_part_ || head.batch < next_batch_) return fail(PEGA_PEER_LOST, 0, "the peer repeats a part");
    next_part_ = head.part + 1;
    next_batch_ = head.batch;
    Part& next = new_part();
    next.id = head.part;
    next.op = head.op;
    next.separate = (head.flags & kSeparate) != 0;
    next.has_value = (head.flags & kWithValue) != 0;
    next.value = head.value;
    next.bytes = head.bytes;
    // A value must not come when a part before it did not: the batch goes on as it was refused.
    const pega_status status = head.batch == refused_batch_ ? refused_status_ : take(announcement_, next);
    next.stage = status == PEGA_OK ? Stage::kReady : Stage::kRefused;
    if (status != PEGA_OK) {
        refused_batch_ = head.batch;
        refused_status_ = status;
        unpin(next);
    }
    control_->send(FrameType::kAnswer, Answer{head.part, status, 0});
}

pega_status Link::take(const Announcement& announcement, Part& part) {
    const bool written = part.op == PEGA_OP_WRITE;
    for (const WirePiece& piece : announcement.pieces) {
        const WireRegion& named = announcement.regions[piece.region];
        pega_region* region = nullptr;
        const pega_status found =
            find_region(device_, named.key, named.generation, piece.offset, piece.length, written, region);
        if (found != PEGA_OK) return found;
        const bool host = region->kind == PEGA_MEMORY_HOST;
        if (part.separate && host) return PEGA_INVALID;
        if (part.pinned.empty() || part.pinned.back() != region) {
            region->in_flight.fetch_add(1, std::memory_order_acq_rel);
            part.pinned.push_back(region);
        }
        add_run(part, region->base + piece.offset, piece.length, host);
    }
    return staged(part) && part.bytes > chunk_bytes_ ? PEGA_INVALID : PEGA_OK;
}

void Link::served(Part& part) {
    if (part.stage == Stage::kRefused) return;
    if (part.has_value) ++device_.arrived[part.value];
    if (part.op == PEGA_OP_WRITE) control_->send(FrameType::kDone, Done{part.id});
}

}  // namespace nccl_backend
