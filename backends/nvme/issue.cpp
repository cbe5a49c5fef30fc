// SPDX-License-Identifier: Apache-2.0
// Operations through the kernel and back: phases, short transfers, interruptions, failures.
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "device.hpp"
#include "passthrough.hpp"

namespace nvme_backend {
namespace {

constexpr std::uint32_t kMostRefusals = 100'000;  // a second or so of trying again

pega_status to_status(int error) noexcept {
    switch (error) {
        case ECANCELED:
            return PEGA_CANCELED;
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
        case ENOMEM:
            return PEGA_NO_MEMORY;
        case EAGAIN:
        case EINTR:
            return PEGA_RETRY;
        case EINVAL:
            return PEGA_INVALID;
        case EOPNOTSUPP:
            return PEGA_UNSUPPORTED;
        default:
            return PEGA_REGION_LOST;
    }
}

std::uint64_t unit_of(const Operation& op) noexcept { return op.file->offset_align; }
std::uint64_t range_begin(const Operation& op) noexcept { return op.offset / unit_of(op) * unit_of(op); }
std::uint64_t range_end(const Operation& op) noexcept {
    return (op.offset + op.length + unit_of(op) - 1) / unit_of(op) * unit_of(op);
}

// Copies between the caller's memory and the bounce buffer.
void copy_vectors(Operation& op, bool to_bounce) noexcept {
    std::uint8_t* at = op.bounce->memory + (op.offset - range_begin(op));
    for (std::uint32_t i = 0; i < op.vector_count; ++i) {
        const iovec& piece = op.vectors[i];
        std::memcpy(to_bounce ? at : piece.iov_base, to_bounce ? piece.iov_base : at, piece.iov_len);
        at += piece.iov_len;
    }
}

void set_range(Operation& op, Phase phase, std::uint64_t begin, std::uint64_t end) noexcept {
    op.phase = phase;
    op.begin = begin;
    op.end = end;
    op.done = 0;
}

// A write of whole blocks may reach beyond the end of a file whose size is no multiple of them.
void enter_write(Operation& op) noexcept {
    copy_vectors(op, true);
    set_range(op, Phase::kWrite, range_begin(op), range_end(op));
    if (op.file->block_device || op.file->passthrough) return;
    struct stat now{};
    if (::fstat(op.file->fd, &now) != 0) return;
    const auto size = static_cast<std::uint64_t>(now.st_size);
    op.restore_size = op.end > size ? size : 0;
}

void enter_tail(Operation& op) noexcept {
    const std::uint64_t last = (op.offset + op.length) / unit_of(op) * unit_of(op);
    const bool partial = last != op.offset + op.length;
    const bool in_head = last == range_begin(op) && op.offset != range_begin(op);
    if (!partial || in_head) return enter_write(op);
    set_range(op, Phase::kFillTail, last, last + unit_of(op));
}

void enter_head(Operation& op) noexcept {
    if (op.offset == range_begin(op)) return enter_tail(op);
    set_range(op, Phase::kFillHead, range_begin(op), range_begin(op) + unit_of(op));
}

// Forgets the first bytes of the vectors: they have been moved.
void consume(Operation& op, std::uint64_t moved) noexcept {
    while (moved != 0) {
        iovec& piece = op.vectors[op.vector_first];
        if (moved < piece.iov_len) {
            piece.iov_base = static_cast<std::uint8_t*>(piece.iov_base) + moved;
            piece.iov_len -= moved;
            return;
        }
        moved -= piece.iov_len;
        ++op.vector_first;
    }
}

void fail(Operation& op, int error) noexcept { op.batch->fail(to_status(error), error, op.first_element); }

// The operation is over; its batch may be, too.
void finish(pega_device& device, Operation& op, bool good) {
    Batch& batch = *op.batch;
    const std::uint64_t first = op.first_span;
    const std::uint64_t last = op.last_span;
    const bool flushed = op.phase == Phase::kFlush;
    const std::uint64_t moved = op.length;
    release(device, op);
    if (flushed) {
        --batch.outstanding;
    } else if (batch.land(first, last, moved, good)) {
        report_mark(device, batch);
    }
    if (batch.status != PEGA_OK && !batch.fed) return give_up(device, batch, batch.status, batch.native_code);
    settle(device, batch);
}

// The present phase has all its bytes.
void next_phase(pega_device& device, Operation& op) {
    switch (op.phase) {
        case Phase::kFillHead:
        case Phase::kFillTail:
            if (op.batch->status != PEGA_OK) return finish(device, op, false);
            if (op.phase == Phase::kFillHead) {
                enter_tail(op);
            } else {
                enter_write(op);
            }
            return issue(device, op);
        case Phase::kRead:
            copy_vectors(op, false);
            break;
        case Phase::kWrite:
            if (op.restore_size != 0 && ::ftruncate(op.file->fd, static_cast<off_t>(op.restore_size)) != 0) fail(op, errno);
            break;
        case Phase::kDirect:
        case Phase::kFlush:
            break;
    }
    finish(device, op, op.batch->status == PEGA_OK || op.phase == Phase::kDirect);
}

// How many bytes of the phase must have come before it is complete: what lies beyond a file's end never does.
std::uint64_t needed(const Operation& op) noexcept {
    return op.phase == Phase::kRead ? op.offset + op.length - op.begin : op.end - op.begin;
}

void moved(pega_device& device, Operation& op, std::uint64_t count) {
    const bool fill = op.phase == Phase::kFillHead || op.phase == Phase::kFillTail;
    if (fill && op.done + count < needed(op)) {
        // The file ends in this block.
        std::memset(op.bounce->memory + (op.begin - range_begin(op)) + op.done + count, 0, op.end - op.begin - op.done - count);
        return next_phase(device, op);
    }
    if (op.done + count >= needed(op)) return next_phase(device, op);
    // What is left must begin at a whole block.
    const std::uint64_t kept = count / unit_of(op) * unit_of(op);
    if (kept == 0) {
        fail(op, fill || op.write ? EIO : ENODATA);  // shorter than when its region was registered
        return finish(device, op, false);
    }
    op.done += kept;
    if (op.phase == Phase::kDirect) consume(op, kept);
    if (op.batch->status != PEGA_OK) return finish(device, op, false);
    issue(device, op);
}

void prepare_flush_request(const pega_device&, io_uring_sqe* entry, const Operation& op) noexcept {
    if (op.file->passthrough) {
        prepare_flush(entry, op.file->fd, op.file->nsid);
    } else {
        ::io_uring_prep_fsync(entry, op.file->fd, IORING_FSYNC_DATASYNC);
    }
}

struct Request {
    const void* memory;
    std::uint32_t length;  // bytes, or vectors
    bool vectored;
};

Request request_of(Operation& op) noexcept {
    if (op.phase != Phase::kDirect) {
        const std::uint8_t* at = op.bounce->memory + (op.begin - range_begin(op)) + op.done;
        return {at, static_cast<std::uint32_t>(op.end - op.begin - op.done), false};
    }
    const iovec& first = op.vectors[op.vector_first];
    if (op.vector_count - op.vector_first == 1) return {first.iov_base, static_cast<std::uint32_t>(first.iov_len), false};
    return {&first, op.vector_count - op.vector_first, true};
}

void prepare_transfer(io_uring_sqe* entry, Operation& op) noexcept {
    const Request r = request_of(op);
    const std::uint64_t at = op.begin + op.done;
    const bool write = op.phase == Phase::kWrite || (op.phase == Phase::kDirect && op.write);
    const int buffer = r.vectored ? -1 : op.buffer;
    const bool sync = write && op.sync;
    if (op.file->passthrough) {
        return prepare(entry, {op.file->fd, op.file->nsid, op.file->lba_bits, at, r.memory, r.length, op.end - at, r.vectored,
                               write, sync, buffer});
    }
    int code = write ? IORING_OP_WRITE : IORING_OP_READ;
    if (buffer >= 0) code = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    if (r.vectored) code = write ? IORING_OP_WRITEV : IORING_OP_READV;
    ::io_uring_prep_rw(code, entry, op.file->fd, r.memory, r.length, at);
    if (buffer >= 0) entry->buf_index = static_cast<std::uint16_t>(buffer);
    if (sync) entry->rw_flags = RWF_DSYNC;
}

}  // namespace

void start(pega_device& device, Operation& op) {
    switch (op.phase) {
        case Phase::kDirect:
            set_range(op, Phase::kDirect, op.offset, op.offset + op.length);
            break;
        case Phase::kRead:
            set_range(op, Phase::kRead, range_begin(op), range_end(op));
            break;
        case Phase::kFlush:
            break;
        default:
            enter_head(op);
    }
    issue(device, op);
}

void issue(pega_device& device, Operation& op) {
    io_uring_sqe* entry = device.ring.entry();
    if (entry == nullptr) return device.again.push_back(&op);
    if (op.phase == Phase::kFlush) {
        prepare_flush_request(device, entry, op);
    } else {
        prepare_transfer(entry, op);
    }
    if (op.file->slot >= 0) {
        entry->fd = op.file->slot;
        entry->flags |= IOSQE_FIXED_FILE;
    }
    entry->user_data = reinterpret_cast<std::uint64_t>(&op);
    op.in_kernel = true;
    op.cancel_sent = false;
    ++device.in_kernel;
}

void cancel(pega_device& device, Operation& op) {
    if (!op.in_kernel || op.cancel_sent || device.ring.polled()) return;
    io_uring_sqe* entry = device.ring.entry();
    if (entry == nullptr) return;
    ::io_uring_prep_cancel64(entry, reinterpret_cast<std::uint64_t>(&op), 0);
    entry->user_data = 0;
    op.cancel_sent = true;
}

void retry(pega_device& device, Operation& op) {
    if (op.batch->status == PEGA_OK) return issue(device, op);
    finish(device, op, false);
}

void refuse(pega_device& device, Operation& op, int error) {
    fail(op, error);
    finish(device, op, false);
}

void complete(pega_device& device, Operation& op, std::int32_t result) {
    op.in_kernel = false;
    --device.in_kernel;
    if (op.file->passthrough && op.phase != Phase::kFlush && result == 0) return moved(device, op, op.end - op.begin - op.done);
    if (op.file->passthrough && result > 0) result = -EIO;  // a status of the controller
    if (op.file->passthrough && result == -EINVAL && op.buffer >= 0) {
        // Some kernels count all pages of a registered buffer, not those of the command: without the registration it is taken.
        op.buffer = -1;
        return device.again.push_back(&op);
    }
    if (result == -EINTR || result == -EAGAIN) {
        if (op.batch->status == PEGA_OK && ++op.refusals < kMostRefusals) return device.again.push_back(&op);
        if (op.batch->status != PEGA_OK) result = -ECANCELED;
    }
    if (result < 0) return refuse(device, op, -result);
    if (op.phase == Phase::kFlush) return finish(device, op, true);
    moved(device, op, static_cast<std::uint64_t>(result));
}

}  // namespace nvme_backend
