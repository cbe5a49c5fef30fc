// SPDX-License-Identifier: Apache-2.0
// Cuts batches into operations: neighbours in the file become one request, with one memory piece or a vector of them.
#include <algorithm>
#include <cerrno>

#include "device.hpp"

namespace nvme_backend {
namespace {

constexpr std::uint32_t kPriorities = 3;
constexpr std::uint32_t kSharesOfAll = 8;  // one of them is for what is less urgent

enum class Built { kOperation, kEnd, kStalled };

std::uint64_t down(std::uint64_t value, std::uint64_t unit) noexcept { return value & ~(unit - 1); }

// The slot of the registered buffer that holds all of the piece, or -1. Older kernels look at a registered buffer page by page
// and refuse it when a page holds a part of a block, which they do not mind in memory that is named by address.
int buffer_of(const pega_region& host, const std::uint8_t* memory, std::uint64_t length, std::uint64_t block) noexcept {
    if (host.buffer < 0 || (reinterpret_cast<std::uintptr_t>(memory) & (block - 1)) != 0) return -1;
    const auto at = static_cast<std::uint64_t>(memory - host.base);
    const std::uint64_t slice = at / host.slice_bytes;
    if ((at + length - 1) / host.slice_bytes != slice) return -1;
    return host.buffer + static_cast<int>(slice);
}

// Gathers fragments from the batch's cursor on, for as long as they are one range of one file that may be asked for at once.
class Collector {
public:
    Collector(Batch& batch, Operation& operation) : batch_(batch), op_(operation) {}

    // False when the batch has no more bytes.
    bool collect() noexcept {
        Fragment fragment;
        if (!batch_.peek(batch_.cursor, &fragment)) return false;
        begin(fragment);
        while (take(fragment)) {
            if (batch_.peek(batch_.cursor, &fragment)) continue;
            batch_.fed = true;
            break;
        }
        return true;
    }
    bool aligned() const noexcept { return aligned_; }

private:
    void begin(const Fragment& f) noexcept {
        op_.batch = &batch_;
        op_.file = f.file;
        op_.offset = f.offset;
        op_.length = 0;
        op_.first_span = op_.last_span = f.span;
        op_.first_element = batch_.batch.format == PEGA_FORMAT_FLAT ? f.page : f.span;
        op_.vector_count = op_.vector_first = 0;
        op_.done = op_.restore_size = 0;
        op_.refusals = 0;
        op_.write = batch_.writes_file;
        op_.holds_blocks = op_.in_kernel = op_.cancel_sent = op_.sync = false;
        op_.bounce = nullptr;
        limit_ = down(f.offset, f.file->offset_align) + f.file->max_io_bytes;
    }

    bool piece_aligned(const Fragment& f, std::uint64_t length) const noexcept {
        return ((f.offset | length) & (op_.file->offset_align - 1)) == 0 &&
               (reinterpret_cast<std::uintptr_t>(f.memory) & (op_.file->memory_align - 1)) == 0;
    }

    // How many bytes of the fragment join the request; 0 = none.
    std::uint64_t fitting(const Fragment& f) const noexcept {
        const std::uint64_t end = op_.offset + op_.length;
        if (f.file != op_.file || f.offset != end) return 0;
        std::uint64_t length = std::min(f.length, limit_ - end);
        // An unaligned tail goes by a buffer of ours; what stands before it need not.
        const std::uint64_t whole = down(length, op_.file->offset_align);
        if (whole != 0 && piece_aligned(f, whole) && (op_.length == 0 || aligned_)) length = whole;
        if (op_.length != 0 && aligned_ && !piece_aligned(f, length)) return 0;
        return length;
    }

    bool take(const Fragment& f) noexcept {
        const std::uint64_t length = fitting(f);
        if (length == 0) return false;
        const int buffer = buffer_of(*f.host, f.memory, length, op_.file->offset_align);
        iovec* last = op_.vector_count == 0 ? nullptr : &op_.vectors[op_.vector_count - 1];
        if (last != nullptr && static_cast<std::uint8_t*>(last->iov_base) + last->iov_len == f.memory) {
            last->iov_len += length;
            if (buffer != op_.buffer) op_.buffer = -1;
        } else {
            if (op_.vector_count == kMaxVectors) return false;
            op_.vectors[op_.vector_count++] = {f.memory, length};
            op_.buffer = op_.vector_count == 1 ? buffer : -1;
        }
        aligned_ = (op_.length == 0 || aligned_) && piece_aligned(f, length);
        op_.length += length;
        op_.last_span = f.span;
        batch_.advance(batch_.cursor, length);
        return true;
    }

    Batch& batch_;
    Operation& op_;
    std::uint64_t limit_ = 0;
    bool aligned_ = true;
};

// Closes the partial blocks of an unaligned write to other unaligned writes: each of them reads its blocks, changes some bytes
// and writes them back. False when one is closed already.
bool hold_blocks(pega_device& device, Operation& op) {
    const std::uint64_t unit = op.file->offset_align;
    const std::uint64_t end = op.offset + op.length;
    const bool head = op.offset % unit != 0;
    const bool tail = end % unit != 0;
    const std::pair<const File*, std::uint64_t> first = {op.file, op.offset / unit};
    const std::pair<const File*, std::uint64_t> last = {op.file, end / unit};
    if ((head && device.held_blocks.contains(first)) || (tail && device.held_blocks.contains(last))) return false;
    if (head) device.held_blocks.insert(first);
    if (tail) device.held_blocks.insert(last);
    op.holds_blocks = head || tail;
    return true;
}

// Chooses how an unaligned request goes. False when what it needs is taken.
bool go_by_bounce(pega_device& device, Operation& op) {
    if (device.free_bounces.empty() || (op.write && !hold_blocks(device, op))) return false;
    op.bounce = device.free_bounces.back();
    device.free_bounces.pop_back();
    op.buffer = -1;
    op.phase = op.write ? Phase::kFillHead : Phase::kRead;
    return true;
}

Built build(pega_device& device, Batch& batch, Operation& op) {
    const Cursor before = batch.cursor;
    Collector collector(batch, op);
    if (!collector.collect()) {
        batch.fed = true;
        return Built::kEnd;
    }
    if (collector.aligned()) {
        op.phase = Phase::kDirect;
    } else if (!go_by_bounce(device, op)) {
        batch.cursor = before;
        batch.fed = false;
        return Built::kStalled;
    }
    take_operation(device, batch);  // it is the one that was built
    device.bytes_moving += op.length;
    ++batch.outstanding;
    for (std::uint64_t span = op.first_span; span <= op.last_span; ++span) ++batch.span_outstanding[span];
    return Built::kOperation;
}

// A durable batch of one request asks that request to be durable; a longer one flushes its files at its end.
void note_written(const pega_device& device, Batch& batch, Operation& op) {
    if (!batch.durable || !op.write) return;
    const bool alone = batch.fed && batch.outstanding == 1 && batch.written.empty() && batch.bytes == 0;
    op.sync = (alone || device.ring.polled()) && device.options.fua;
    if (op.sync) return;
    if (std::find(batch.written.begin(), batch.written.end(), op.file) == batch.written.end()) batch.written.push_back(op.file);
}

// Room for a request of this priority. Less urgent batches that wait have a share of the operations and bytes to themselves:
// however many are urgent, the others go on.
bool has_room(const pega_device& device, std::uint32_t priority) noexcept {
    std::size_t spared = device.options.depth / kSharesOfAll;
    std::uint64_t bytes = device.options.depth_bytes;
    std::size_t taken = 0;
    bool waits = false;
    for (std::uint32_t lower = 0; lower < priority; ++lower) {
        taken += device.taken_by[lower];
        waits = waits || !device.runnable[lower].empty();
    }
    spared = waits && taken < spared ? spared - taken : 0;
    if (spared != 0) bytes -= bytes / kSharesOfAll;
    return device.free_operations.size() > spared && (device.bytes_moving < bytes || device.bytes_moving == 0);
}

// True when the batch needs no more feeding.
bool feed_batch(pega_device& device, Batch& batch) {
    while (has_room(device, batch.priority())) {
        Operation& op = *device.free_operations.back();
        switch (build(device, batch, op)) {
            case Built::kOperation:
                note_written(device, batch, op);
                start(device, op);
                if (batch.fed) return true;
                break;
            case Built::kEnd:
                return true;
            case Built::kStalled:
                device.stalled = true;
                return false;
        }
    }
    return false;
}

}  // namespace

void feed(pega_device& device) {
    device.stalled = false;
    std::vector<Batch*> unsynced;
    unsynced.swap(device.unsynced);
    for (Batch* batch : unsynced) settle(device, *batch);
    for (std::uint32_t priority = kPriorities; priority-- > 0;) {
        auto& queue = device.runnable[priority];
        for (std::size_t i = 0; i < queue.size() && has_room(device, priority);) {
            Batch& batch = *queue[i];
            const bool late = batch.batch.deadline_ns != 0 && device.now() >= batch.batch.deadline_ns;
            if (!late && !feed_batch(device, batch)) {
                ++i;
                continue;
            }
            queue.erase(queue.begin() + static_cast<std::ptrdiff_t>(i));
            if (late) {
                give_up(device, batch, PEGA_CANCELED, ETIMEDOUT);
            } else {
                settle(device, batch);
            }
        }
    }
}

Operation& take_operation(pega_device& device, Batch& batch) noexcept {
    Operation& op = *device.free_operations.back();
    device.free_operations.pop_back();
    op.batch = &batch;
    ++device.taken_by[batch.priority()];
    return op;
}

void release(pega_device& device, Operation& op) {
    --device.taken_by[op.batch->priority()];
    if (op.bounce != nullptr) device.free_bounces.push_back(op.bounce);
    op.bounce = nullptr;
    if (op.holds_blocks) {
        const std::uint64_t unit = op.file->offset_align;
        const std::uint64_t end = op.offset + op.length;
        if (op.offset % unit != 0) device.held_blocks.erase({op.file, op.offset / unit});
        if (end % unit != 0) device.held_blocks.erase({op.file, end / unit});
        op.holds_blocks = false;
    }
    device.bytes_moving -= op.length;
    op.batch = nullptr;
    device.free_operations.push_back(&op);
}

}  // namespace nvme_backend
