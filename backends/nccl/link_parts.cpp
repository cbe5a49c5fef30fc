// SPDX-License-Identifier: Apache-2.0
// What both sides do with a part: pack, post to NCCL, unpack, and see its end.
#include "link.hpp"

namespace nccl_backend {

using cuda_backend::kNotReady;
using cuda_backend::kSuccess;

Link::Part& Link::new_part() {
    Part& out = part(count_++);
    out.runs.clear();
    out.copies.clear();
    out.pinned.clear();
    out.batch = nullptr;
    out.separate = out.last = out.has_value = out.done = false;
    out.bytes = out.spans_after = 0;
    out.stage = Stage::kAnnounced;
    out.slot = nullptr;
    out.end = nullptr;
    out.since_ns = device_.now();
    return out;
}

void Link::pop_part() {
    Part& old = part(0);
    unpin(old);
    if (old.end != nullptr) mover_.give_event(old.end);
    old.end = nullptr;
    first_ = (first_ + 1) % parts_.size();
    --count_;
}

void Link::unpin(Part& part) noexcept {
    for (pega_region* region : part.pinned) region->in_flight.fetch_sub(1, std::memory_order_acq_rel);
    part.pinned.clear();
}

// Pieces that are messages of their own must stay what the other side counts; else neighbours become one run.
void Link::add_run(Part& part, DevicePointer at, std::uint64_t length, bool host) {
    if (!part.separate && !part.runs.empty()) {
        Run& before = part.runs.back();
        if (before.at + before.length == at && before.host == host) {
            before.length += length;
            return;
        }
    }
    part.runs.push_back({at, length, host});
}

bool Link::staged(const Part& part) noexcept { return !part.separate && (part.runs.size() > 1 || part.runs.front().host); }

void Link::post_ready() {
    for (std::size_t i = 0; i < count_ && state_ == State::kOpen; ++i) {
        Part& next = part(i);
        if (next.stage == Stage::kPosting) {
            // Until NCCL has queued everything, an event behind it would be before it.
            NcclResult now = kNcclSuccess;
            const NcclResult asked = device_.nccl->ncclCommGetAsyncError(comm_, &now);
            const NcclResult result = asked == kNcclSuccess ? now : asked;
            if (result == kNcclInProgress) return;
            if (result != kNcclSuccess)
                return fail(PEGA_PEER_LOST, kNativeNccl + result, device_.nccl->ncclGetErrorString(result));
            posted(next);
            continue;
        }
        if (next.stage == Stage::kAnnounced) return;
        if (next.stage == Stage::kReady) post(next);
        if (next.stage == Stage::kPosting) return;
    }
}

CudaResult Link::prepare(Part& part) {
    if (is_self()) return mover_.copy(part.copies);
    if (!staged(part)) return kSuccess;
    return sends(part) ? mover_.pack(part.runs, part.slot) : mover_.take(part.slot);
}

NcclResult Link::queue_messages(const Part& part) {
    const Nccl& nccl = *device_.nccl;
    const int other = role_ == Role::kOpener ? 1 : 0;
    const auto queue = [&](DevicePointer at, std::uint64_t bytes) {
        auto* address = reinterpret_cast<void*>(at);
        return sends(part) ? nccl.ncclSend(address, bytes, kNcclUint8, other, comm_, mover_.comm())
                           : nccl.ncclRecv(address, bytes, kNcclUint8, other, comm_, mover_.comm());
    };
    NcclResult result = nccl.ncclGroupStart();
    const auto taken = [](NcclResult r) { return r == kNcclSuccess || r == kNcclInProgress; };
    if (!taken(result)) return result;
    if (part.slot != nullptr) {
        result = queue(part.slot->base, part.bytes);
    } else {
        for (std::size_t i = 0; i < part.runs.size() && taken(result); ++i)
            result = queue(part.runs[i].at, part.runs[i].length);
    }
    const NcclResult ended = nccl.ncclGroupEnd();
    return taken(result) ? ended : result;
}

void Link::post(Part& part) {
    part.since_ns = device_.now();
    if (const CudaResult result = prepare(part); result != kSuccess)
        return fail(to_status(result), result, "the GPU does not take a copy");
    if (is_self()) return posted(part);
    const NcclResult result = queue_messages(part);
    if (result == kNcclInProgress) {
        part.stage = Stage::kPosting;
    } else if (result == kNcclSuccess) {
        posted(part);
    } else {
        fail(PEGA_RETRY_OTHER_PATH, kNativeNccl + result, device_.nccl->ncclGetErrorString(result));
    }
}

void Link::posted(Part& part) {
    CudaResult result = kSuccess;
    const bool unpacks = part.slot != nullptr && !sends(part);
    if (part.slot != nullptr) result = unpacks ? mover_.unpack(*part.slot, part.runs) : mover_.sent(*part.slot);
    part.end = mover_.take_event();
    if (result == kSuccess && part.end == nullptr) result = cuda_backend::kOutOfMemory;
    if (result == kSuccess)
        result = device_.driver->cuEventRecord(part.end, unpacks || is_self() ? mover_.side() : mover_.comm());
    if (result != kSuccess) return fail(to_status(result), result, "the GPU does not take the end of a part");
    part.stage = Stage::kMoving;
}

// What NCCL noticed by itself, for example a connection to the peer that broke.
bool Link::watch_errors() {
    if (comm_ == nullptr) return true;
    NcclResult now = kNcclSuccess;
    const NcclResult asked = device_.nccl->ncclCommGetAsyncError(comm_, &now);
    const NcclResult result = asked == kNcclSuccess ? now : asked;
    if (result == kNcclSuccess || result == kNcclInProgress) return true;
    fail(PEGA_PEER_LOST, kNativeNccl + result, device_.nccl->ncclGetErrorString(result));
    return false;
}

void Link::watch_ends() {
    if (state_ != State::kOpen && state_ != State::kJoining) return;
    bool moving = false;
    for (std::size_t i = 0; i < count_; ++i) {
        Part& p = part(i);
        if (p.stage != Stage::kMoving) continue;
        const CudaResult result = device_.driver->cuEventQuery(p.end);
        moving = moving || result == kNotReady;
        if (result == kSuccess) p.stage = Stage::kLanded;
        if (result != kSuccess && result != kNotReady) return fail(to_status(result), result, "a part failed on the GPU");
    }
    if (moving && !watch_errors()) return;
    while (count_ != 0) {
        Part& p = part(0);
        const bool waits = role_ == Role::kOpener && p.op == PEGA_OP_WRITE && !p.done;
        if (p.stage != Stage::kRefused && (p.stage != Stage::kLanded || waits)) return;
        if (role_ == Role::kTarget) {
            served(p);
        } else {
            part_ended(p);
        }
        pop_part();
        if (count_ != 0) part(0).since_ns = std::max(part(0).since_ns, device_.now());
    }
}

}  // namespace nccl_backend
