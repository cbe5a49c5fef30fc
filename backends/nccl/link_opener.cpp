// SPDX-License-Identifier: Apache-2.0
// The side that took the batches: cuts them into parts, announces those, and ends batches.
#include <algorithm>

#include "link.hpp"

namespace nccl_backend {

using cuda_backend::kNotReady;
using cuda_backend::kSuccess;

// A batch that is cancelled or late before it began ends without parts, wherever it stands in the queue.
bool Link::ends_unstarted(Batch& batch) {
    const bool late = batch.batch.deadline_ns != 0 && device_.now() >= batch.batch.deadline_ns;
    if (!batch.cancel && !late) return false;
    batch.status = PEGA_CANCELED;
    return batch.cut_up = true;
}

// The peer's kernel would spin for as long as ours waited for an event: nothing is announced before it has happened.
bool Link::starts(Batch& batch) {
    if (state_ != State::kOpen) return false;
    if (batch.wait != nullptr && device_.driver->cuEventQuery(batch.wait) == kNotReady) return false;
    batch.number = next_batch_++;
    return batch.started = true;
}

// Cuts up the batches in order of submission.
void Link::feed() {
    if (channel_ == nullptr || (state_ != State::kOpen && state_ != State::kConnecting && state_ != State::kJoining)) return;
    bool first = true;  // of those that are not cut up
    for (Batch* batch : channel_->queue) {
        if (batch->cut_up || (!batch->started && ends_unstarted(*batch))) continue;
        if (first && (batch->started || starts(*batch))) feed_batch(*batch);
        first = first && batch->cut_up;
    }
}

void Link::feed_batch(Batch& batch) {
    const std::uint64_t packed = is_self() ? kMostPartBytes : chunk_bytes_;
    const PartLimits limits{packed, device_.settings.direct_bytes, !is_self()};
    while (!batch.cut_up && room()) {
        if (batch.cancel && batch.status == PEGA_OK) {
            batch.status = PEGA_CANCELED;
        }
        if (batch.status != PEGA_OK || !batch.next_part(limits, cut_)) {
            batch.cut_up = true;
            break;
        }
        Part& next = new_part();
        next.id = next_part_++;
        next.batch = &batch;
        next.op = batch.batch.op;
        next.separate = cut_.separate;
        next.bytes = cut_.bytes;
        next.spans_after = cut_.spans_after;
        next.last = batch.cut_up = cut_.last;
        ++batch.parts;
        if (is_self()) {
            const pega_status filled = fill_self(next);
            next.stage = filled == PEGA_OK ? Stage::kReady : Stage::kRefused;
            if (filled != PEGA_OK && batch.status == PEGA_OK) batch.status = filled;
            continue;
        }
        for (const Piece& piece : cut_.pieces) {
            const pega_region& region = *piece.local;
            add_run(next, region.base + piece.local_offset, piece.length, region.kind == PEGA_MEMORY_HOST);
        }
        announce(next);
    }
}

pega_status Link::fill_self(Part& part) {
    const bool reads = part.op == PEGA_OP_READ;
    for (const Piece& piece : cut_.pieces) {
        pega_region* remote = piece.remote;
        if (remote->imported) {
            const pega_status found =
                find_region(device_, remote->key, remote->generation, piece.remote_offset, piece.length, !reads, remote);
            if (found != PEGA_OK) return found;
            remote->in_flight.fetch_add(1, std::memory_order_acq_rel);
            part.pinned.push_back(remote);
        }
        const DevicePointer here = piece.local->base + piece.local_offset;
        const DevicePointer there = remote->base + piece.remote_offset;
        part.copies.push_back({reads ? here : there, reads ? there : here, piece.length});
    }
    return PEGA_OK;
}

void Link::announce(Part& part) {
    const Batch& batch = *part.batch;
    announcement_.regions.clear();
    announcement_.pieces.clear();
    const pega_region* region = nullptr;
    for (const Piece& piece : cut_.pieces) {
        if (piece.remote != region) announcement_.regions.push_back({piece.remote->key, piece.remote->generation});
        region = piece.remote;
        announcement_.pieces.push_back({piece.remote_offset, static_cast<std::uint32_t>(piece.length),
                                        static_cast<std::uint32_t>(announcement_.regions.size() - 1)});
    }
    part.has_value = part.last && batch.has_notify && part.op == PEGA_OP_WRITE;
    const std::uint32_t flags = (part.separate ? kSeparate : 0U) | (part.has_value ? kWithValue : 0U);
    announcement_.head = {part.id, batch.number, part.bytes, part.op, flags, 0, 0, batch.notify_value, 0};
    control_->send(FrameType::kAnnounce, encode(announcement_));
}

void Link::answered(const Answer& answer) {
    for (std::size_t i = 0; i < count_; ++i) {
        Part& p = part(i);
        if (p.id != answer.part || p.stage != Stage::kAnnounced) continue;
        p.stage = answer.status == PEGA_OK ? Stage::kReady : Stage::kRefused;
        p.since_ns = device_.now();
        if (answer.status == PEGA_OK || p.batch->status != PEGA_OK) return;
        // Only what a target can mean; the rest of the batch is refused too, so it need not be announced.
        const bool known = answer.status == PEGA_REGION_LOST || answer.status == PEGA_UNSUPPORTED;
        p.batch->status = known ? answer.status : PEGA_INVALID;
        return;
    }
    fail(PEGA_PEER_LOST, 0, "the peer answers what was not asked");
}

void Link::landed_there(const Done& done) {
    for (std::size_t i = 0; i < count_; ++i) {
        Part& p = part(i);
        const bool may =
            p.op == PEGA_OP_WRITE && (p.stage == Stage::kPosting || p.stage == Stage::kMoving || p.stage == Stage::kLanded);
        if (p.id != done.part || !may) continue;
        p.done = true;
        return;
    }
    fail(PEGA_PEER_LOST, 0, "the peer ends what it was not given");
}

void Link::part_ended(Part& p) {
    Batch& batch = *p.batch;
    --batch.parts;
    if (p.stage == Stage::kRefused) return;
    batch.bytes += p.bytes;
    if (batch.status != PEGA_OK) return;
    batch.landed = p.spans_after;
    const std::uint32_t every = batch.batch.mark_every;
    if (every == 0 || batch.batch.format == PEGA_FORMAT_FLAT || batch.landed < batch.marked + every) return;
    batch.marked = batch.landed - batch.landed % every;
    report(batch, PEGA_COMPLETION_MARK);
}

void Link::settle() {
    if (channel_ == nullptr || state_ == State::kDraining || state_ == State::kBroken) return;
    for (std::size_t i = 0; i < channel_->queue.size();) {
        Batch& batch = *channel_->queue[i];
        if (!batch.cut_up || batch.parts != 0 || !finish(batch)) {
            ++i;
            continue;
        }
        end_batch(batch);
    }
}

// What follows the last byte: the value where no part carried it, and the event. True when the batch may end.
bool Link::finish(Batch& batch) {
    if (batch.status != PEGA_OK) return true;
    if (!batch.recording) {
        const bool carried = batch.batch.op == PEGA_OP_WRITE && batch.bytes != 0 && !is_self();
        if (batch.has_notify && is_self()) ++device_.arrived[batch.notify_value];
        if (batch.has_notify && !is_self() && !carried) control_->send(FrameType::kNotify, Notify{batch.notify_value, 0});
        batch.recording = true;
        batch.landed = batch.span_count();
        if (batch.record != nullptr) device_.driver->cuEventRecord(batch.record, mover_.side());
    }
    return batch.record == nullptr || device_.driver->cuEventQuery(batch.record) != kNotReady;
}

void Link::end_batch(Batch& batch) {
    batch.pin_regions(-1);
    report(batch, PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED);
    std::erase(channel_->queue, &batch);
    channel_->free.push_back(&batch);
}

void Link::report(const Batch& batch, std::uint32_t flags) {
    pega_completion record{};
    record.size = sizeof record;
    record.flags = flags;
    record.user_data = batch.batch.user_data;
    record.first_bad = PEGA_NO_BAD;
    record.bytes = batch.bytes;
    record.landed_spans = flags == PEGA_COMPLETION_MARK ? batch.marked : batch.landed;
    if ((flags & PEGA_COMPLETION_TERMINAL) != 0) {
        record.status = batch.status;
        record.native_code = batch.native_code;
    }
    device_.completions.push_back(record);
}

}  // namespace nccl_backend
