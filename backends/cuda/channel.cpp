// SPDX-License-Identifier: Apache-2.0
#include <sched.h>

#include <algorithm>
#include <cerrno>

#include "batch.hpp"

namespace cuda_backend {
namespace {

constexpr std::uint32_t kDefaultDepth = 64;
constexpr std::uint32_t kMaxDepth = 4096;
constexpr int kStepsASubmit = 2;  // the poller goes on, so that the submitter is soon back
constexpr int kStepsATurn = 16;   // so that one large batch does not keep others from being seen

void report(pega_device& device, const Batch& batch, std::uint32_t flags, std::uint64_t landed) {
    pega_completion record{};
    record.size = sizeof record;
    record.flags = flags;
    record.user_data = batch.batch.user_data;
    record.first_bad = PEGA_NO_BAD;
    record.landed_spans = landed;
    record.bytes = batch.bytes;
    if ((flags & PEGA_COMPLETION_TERMINAL) != 0) {
        record.status = batch.status;
        record.native_code = batch.native_code;
    }
    device.completions.push(record);
}

bool expired(const pega_device& device, const Batch& batch) {
    return batch.batch.deadline_ns != 0 && device.host->now_ns(device.host->context) >= batch.batch.deadline_ns;
}

// Everything that will be queued is: puts the events behind it.
void close_batch(pega_device& device, Batch& batch) {
    batch.finished_queueing = true;
    const Driver& driver = *device.driver;
    const Result joined = batch.channel->copier.join(batch.route);
    if (joined != kSuccess && batch.status == PEGA_OK) {
        batch.status = to_status(joined);
        batch.native_code = joined;
    }
    if (batch.status == PEGA_OK && batch.record != nullptr) driver.cuEventRecord(batch.record, batch.route.end);
    if (batch.status == PEGA_OK) batch.fetch_digests();
    batch.end = device.take_event();
    const bool ordered = joined == kSuccess && (batch.status == PEGA_OK || batch.status == PEGA_CANCELED);
    if (ordered && batch.end != nullptr && driver.cuEventRecord(batch.end, batch.route.end) == kSuccess) return;
    // Without an event, or after half a step, there is only one way to know that the hardware has let go.
    batch.channel->copier.synchronize();
    if (batch.end != nullptr) device.spare_events.push_back(batch.end);
    batch.end = nullptr;
}

void end_batch(pega_device& device, Batch& batch) {
    for (const auto& [spans, event] : batch.marks) device.spare_events.push_back(event);
    batch.marks.clear();
    if (batch.end != nullptr) device.spare_events.push_back(batch.end);
    batch.end = nullptr;
    batch.end_digests();
    batch.pin_regions(-1);
    report(device, batch, PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED,
           batch.status == PEGA_OK ? batch.span_count() : 0);
    batch.channel->free.push_back(&batch);
    --batch.channel->in_flight;
}

// Lets those batches go whose event has happened, and ends those that shall not begin any more. Before that nothing of them is
// on a stream: an event whose process died never happens, and work that waits for it there could not be taken back, nor any
// behind it. The mutex is held, the context current.
void begin_batches(pega_device& device, pega_channel& channel) {
    Event asked = nullptr;
    Result answer = kSuccess;
    std::erase_if(channel.waiting, [&](Batch* batch) {
        if (batch->cancel || expired(device, *batch)) {
            batch->status = PEGA_CANCELED;
        } else if (batch->wait != nullptr) {
            if (batch->wait != asked)
                answer = device.driver->cuEventQuery(asked = batch->wait);  // the parts of a save share one
            if (answer == kNotReady) return false;
            batch->status = to_status(answer);
            batch->native_code = answer;
        }
        if (batch->status == PEGA_OK) {
            batch->begin_digests();
            channel.queue.push_back(batch);
        } else {
            end_batch(device, *batch);
        }
        return true;
    });
}

// All bytes are there: now the value may follow. False while the peer's socket is full and the batch need not end.
bool deliver(pega_device& device, Batch& batch) {
    if (batch.status != PEGA_OK || !batch.has_notify) return true;
    pega_status sent = device.mailbox.send(batch.channel->peer, batch.notify_value);
    if (sent == PEGA_RETRY && !batch.cancel && !expired(device, batch)) return false;
    if (sent == PEGA_RETRY) sent = PEGA_CANCELED;
    batch.status = sent;
    return true;
}

pega_status open(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    if (params->queue_depth > kMaxDepth) return PEGA_INVALID;
    auto channel = std::make_unique<pega_channel>();
    channel->device = device;
    channel->depth = params->queue_depth != 0 ? params->queue_depth : kDefaultDepth;
    const Current current(*device->driver, device->context);
    const Result result = channel->copier.open(
        {device->driver, &device->kernels, &device->settings, &device->table, &device->contention}, params->priority == 2);
    if (result != kSuccess) return to_status(result);
    channel->waiting.reserve(channel->depth);
    for (std::uint32_t i = 0; i < channel->depth; ++i) {
        channel->slots.push_back(std::make_unique<Batch>());
        channel->free.push_back(channel->slots.back().get());
    }
    if (params->address != nullptr) {
        const auto* address = static_cast<const std::uint8_t*>(params->address);
        const pega_status status = device->mailbox.connect({address, params->address_length}, channel->peer);
        if (status != PEGA_OK) {
            channel->copier.close();
            return status;
        }
    }
    const std::lock_guard lock(device->mutex);
    *out = channel.get();
    device->channels.push_back(std::move(channel));
    return PEGA_OK;
}

pega_status state(pega_channel* channel) {
    return channel->peer.lost.load(std::memory_order_acquire) ? PEGA_PEER_LOST : PEGA_OK;
}

pega_status submit(pega_channel* channel, const pega_batch* batch) {
    if (channel == nullptr || batch == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    if (channel->peer.lost.load(std::memory_order_acquire)) return PEGA_PEER_LOST;
    Batch* slot = nullptr;
    {
        const std::lock_guard lock(device.mutex);
        if (channel->closed) return PEGA_CANCELED;
        if (channel->free.empty()) return PEGA_QUEUE_FULL;
        slot = channel->free.back();
        channel->free.pop_back();
        ++channel->in_flight;
    }
    const Current current(*device.driver, device.context);
    const pega_status status = slot->accept(channel, *batch);
    if (status == PEGA_OK) slot->pin_regions(1);
    const std::lock_guard lock(device.mutex);
    if (status != PEGA_OK) {
        channel->free.push_back(slot);
        --channel->in_flight;
        return status;
    }
    if (channel->closed) slot->cancel = true;
    channel->waiting.push_back(slot);
    advance(device, *channel, kStepsASubmit);
    return PEGA_OK;
}

pega_status close(pega_channel* channel, std::uint64_t deadline_ns) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    const Current current(*device.driver, device.context);
    for (;;) {
        {
            const std::lock_guard lock(device.mutex);
            channel->closed = true;
            for (Batch* batch : channel->waiting) batch->cancel = true;
            for (Batch* batch : channel->queue) batch->cancel = true;
            advance(device, *channel, kStepsATurn);
            if (channel->in_flight == 0) {
                channel->copier.close();
                device.mailbox.disconnect(channel->peer);
                std::erase_if(device.channels, [&](const auto& c) { return c.get() == channel; });
                return PEGA_OK;
            }
        }
        if (device.host->now_ns(device.host->context) >= deadline_ns) return PEGA_PENDING;
        ::sched_yield();
    }
}

pega_status cancel(pega_channel* channel, std::uint64_t user_data) {
    if (channel == nullptr) return PEGA_INVALID;
    const std::lock_guard lock(channel->device->mutex);
    const auto asked_for = [user_data](const Batch* batch) { return batch->batch.user_data == user_data; };
    Batch* found = nullptr;
    if (const auto it = std::ranges::find_if(channel->waiting, asked_for); it != channel->waiting.end()) found = *it;
    if (const auto it = std::ranges::find_if(channel->queue, asked_for); it != channel->queue.end()) found = *it;
    if (found == nullptr) return PEGA_INVALID;
    found->cancel = true;
    return PEGA_OK;
}

}  // namespace

void advance(pega_device& device, pega_channel& channel, int steps) {
    begin_batches(device, channel);
    for (std::size_t i = 0; i < channel.queue.size();) {
        Batch& batch = *channel.queue[i];
        if (!batch.finished_queueing) {
            if (batch.cancel && batch.status == PEGA_OK && !batch.all_queued()) {
                batch.status = PEGA_CANCELED;
                batch.native_code = 0;
            }
            if (batch.status == PEGA_OK) batch.queue_steps(steps);
            if (batch.status == PEGA_OK && !batch.all_queued()) return;  // the rest at the next turn
            close_batch(device, batch);
        }
        while (!batch.marks.empty() && device.driver->cuEventQuery(batch.marks.front().second) == kSuccess) {
            report(device, batch, PEGA_COMPLETION_MARK, batch.marks.front().first);
            device.spare_events.push_back(batch.marks.front().second);
            batch.marks.pop_front();
        }
        const Result result = batch.end == nullptr ? kSuccess : device.driver->cuEventQuery(batch.end);
        if (result == kNotReady) {
            ++i;
            continue;
        }
        if (i != 0) {  // batches of one stream end in order; the one before will be seen first
            ++i;
            continue;
        }
        if (result != kSuccess && batch.status == PEGA_OK) {
            batch.status = device.mailbox.gone(channel.peer) ? PEGA_PEER_LOST : to_status(result);
            batch.native_code = result;
        }
        if (!deliver(device, batch)) return;
        end_batch(device, batch);
        channel.queue.pop_front();
    }
}

const pega_channel_table kChannelTable = {sizeof(pega_channel_table), 0, &open, &state, &submit, &close};
const pega_ext_cancel kCancelTable = {sizeof(pega_ext_cancel), 0, &cancel};

}  // namespace cuda_backend
