// SPDX-License-Identifier: Apache-2.0
// How batches end: flushed when they ask for it, reported once, given back to their channel.
#include <algorithm>
#include <cerrno>

#include "device.hpp"

namespace nvme_backend {
namespace {

void push_record(pega_device& device, const Batch& batch, std::uint32_t flags) {
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
        record.first_bad = batch.first_bad;
    }
    device.records.push(record);
}

void end(pega_device& device, Batch& batch) {
    if (batch.status == PEGA_OK) batch.advance_landed();
    push_record(device, batch, PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED);
    device.active.back()->active_index = batch.active_index;
    std::swap(device.active[batch.active_index], device.active.back());
    device.active.pop_back();
    device.ended.push_back(&batch);
}

// A batch without bytes that asks to be durable stands for a flush of its files.
void take_files_of_empty_batch(Batch& batch) {
    const pega_batch& b = batch.batch;
    if (b.format != PEGA_FORMAT_FLAT || b.flat_count != 0) return;
    for (const auto& file : (b.local_region->is_file() ? b.local_region : b.remote_region)->files)
        batch.written.push_back(file.get());
}

// Begins the flush of the batch's files. False when there is nothing to wait for.
bool begin_sync(pega_device& device, Batch& batch) {
    if (!batch.syncing) {
        batch.syncing = true;
        take_files_of_empty_batch(batch);
    }
    while (!batch.written.empty() && batch.status == PEGA_OK) {
        File* const file = batch.written.back();
        if (device.ring.polled()) {  // such a ring takes only reads and writes
            if (const int error = file->flush(); error != 0) batch.fail(PEGA_REGION_LOST, error, PEGA_NO_BAD);
            batch.written.pop_back();
            continue;
        }
        if (device.free_operations.empty()) {
            device.unsynced.push_back(&batch);
            return true;
        }
        batch.written.pop_back();
        Operation& op = take_operation(device, batch);
        op.file = file;
        op.bounce = nullptr;
        op.offset = op.length = op.first_element = 0;
        op.holds_blocks = op.write = op.sync = false;
        op.refusals = 0;
        op.buffer = -1;
        op.phase = Phase::kFlush;
        ++batch.outstanding;
        start(device, op);
    }
    return batch.outstanding != 0;
}

}  // namespace

void report_mark(pega_device& device, const Batch& batch) { push_record(device, batch, PEGA_COMPLETION_MARK); }

void settle(pega_device& device, Batch& batch) {
    if (!batch.fed || batch.outstanding != 0) return;
    if (batch.durable && batch.status == PEGA_OK && begin_sync(device, batch)) return;
    end(device, batch);
}

void give_up(pega_device& device, Batch& batch, std::int32_t status, std::int32_t native) {
    batch.fail(status, native, PEGA_NO_BAD);
    batch.fed = true;
    std::erase(device.runnable[batch.priority()], &batch);
    std::erase(device.unsynced, &batch);
    for (std::uint32_t i = 0; i < device.options.depth; ++i) {
        if (device.operations[i].batch == &batch) cancel(device, device.operations[i]);
    }
    settle(device, batch);
}

}  // namespace nvme_backend
