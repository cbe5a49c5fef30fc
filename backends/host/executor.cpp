// SPDX-License-Identifier: Apache-2.0
// The worker threads: they claim pieces of batches, copy them, and report ends.
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>

#include "batch.hpp"

namespace host_backend {
namespace {

// How often parked batches are looked at: events are words in shared memory that another process may set without a call.
constexpr auto kParkedInterval = std::chrono::microseconds(50);

void wake_poller(pega_device& device) {
    if (!device.armed) return;
    device.armed = false;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(device.event_fd, &one, sizeof one);
}

void report(pega_device& device, const Batch& batch, std::uint32_t flags) {
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
    device.completions.push(record);
    wake_poller(device);
}

void end(pega_device& device, Batch& batch) {
    if (batch.status == PEGA_OK && batch.record != nullptr) batch.record->word->store(1, std::memory_order_release);
    if (batch.status == PEGA_OK && batch.digested != nullptr) *batch.digested = 1;
    batch.pin_regions(-1);
    batch.in_use = false;
    batch.channel->free.push_back(&batch);
    --batch.channel->in_flight;
    report(device, batch, PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED);
    device.idle.notify_all();
}

bool expired(const pega_device& device, const Batch& batch) {
    return batch.batch.deadline_ns != 0 && device.host->now_ns(device.host->context) >= batch.batch.deadline_ns;
}

// All pieces are there: deliver the value, then end. Parks the batch while the peer's socket is full and there is time.
void complete(pega_device& device, Batch& batch) {
    batch.copied = true;
    if (batch.status == PEGA_OK && batch.has_notify) {
        const pega_status sent = device.mailbox.send(batch.channel->peer, batch.notify_value);
        if (sent == PEGA_RETRY && !expired(device, batch)) return device.parked.push_back(&batch);
        if (sent == PEGA_RETRY) batch.native_code = ETIMEDOUT;
        if (sent != PEGA_OK) batch.status = sent == PEGA_RETRY ? PEGA_CANCELED : sent;
    }
    end(device, batch);
}

bool event_happened(const pega_event* event) { return event == nullptr || event->word->load(std::memory_order_acquire) != 0; }

void make_runnable(pega_device& device, Batch& batch) {
    if (batch.fully_claimed()) return complete(device, batch);
    device.runnable[std::min<std::uint32_t>(batch.batch.priority, 2)].push_back(&batch);
    if (batch.streaming) {
        device.work.notify_all();
    } else {
        device.work.notify_one();
    }
}

void look_at_parked(pega_device& device) {
    std::vector<Batch*> again;
    again.swap(device.parked);
    for (Batch* batch : again) {
        if (batch->copied) {
            complete(device, *batch);
        } else if (event_happened(batch->wait)) {
            make_runnable(device, *batch);
        } else if (batch->wait->shared.lost()) {
            batch->status = PEGA_REGION_LOST;
            end(device, *batch);
        } else if (expired(device, *batch)) {
            batch->status = PEGA_CANCELED;
            batch->native_code = ETIMEDOUT;
            end(device, *batch);
        } else {
            device.parked.push_back(batch);
        }
    }
}

Batch* next_batch(pega_device& device) {
    for (int priority = 2; priority >= 0; --priority) {
        if (!device.runnable[priority].empty()) return device.runnable[priority].front();
    }
    return nullptr;
}

// Nothing more of it is claimed.
void stop(pega_device& device, Batch& batch, pega_status status, int native_code) {
    std::erase(device.runnable[std::min<std::uint32_t>(batch.batch.priority, 2)], &batch);
    batch.status = status;
    batch.native_code = native_code;
    batch.cursor_span = batch.span_count();
}

void work_on(pega_device& device, Batch& batch, std::unique_lock<std::mutex>& lock) {
    if (expired(device, batch)) {
        stop(device, batch, PEGA_CANCELED, ETIMEDOUT);
        if (batch.outstanding == 0) end(device, batch);
        return;
    }
    const Claim claim = batch.claim();
    if (batch.fully_claimed()) std::erase(device.runnable[std::min<std::uint32_t>(batch.batch.priority, 2)], &batch);
    lock.unlock();
    const bool moved = batch.run(claim);
    lock.lock();
    if (!moved && batch.status == PEGA_OK) stop(device, batch, PEGA_REGION_LOST, 0);
    if (batch.finish_claim(claim, moved)) report(device, batch, PEGA_COMPLETION_MARK);
    if (batch.outstanding == 0 && batch.fully_claimed()) {
        if (batch.status == PEGA_OK) {
            complete(device, batch);
        } else {
            end(device, batch);
        }
    }
}

void run_worker(pega_device* device) {
    ::pthread_setname_np(::pthread_self(), "pega-host-copy");
    std::unique_lock lock(device->mutex);
    for (;;) {
        if (!device->parked.empty()) look_at_parked(*device);
        if (Batch* batch = next_batch(*device)) {
            work_on(*device, *batch, lock);
        } else if (device->stop) {
            return;
        } else if (device->parked.empty()) {
            device->work.wait(lock);
        } else {
            device->work.wait_for(lock, kParkedInterval);
        }
    }
}

}  // namespace

void schedule(pega_device& device, Batch& batch) {
    if (event_happened(batch.wait)) return make_runnable(device, batch);
    device.parked.push_back(&batch);
    device.work.notify_one();
}

void cancel_batch(pega_device& device, Batch& batch, int native_code) {
    if (batch.status != PEGA_OK) return;
    const bool was_parked = std::erase(device.parked, &batch) != 0;
    if (!was_parked && batch.fully_claimed()) return;  // its last pieces are being copied: let it end as it would have
    stop(device, batch, PEGA_CANCELED, native_code);
    if (batch.outstanding == 0) end(device, batch);
}

bool start_workers(pega_device* device) {
    try {
        for (std::uint32_t i = 0; i < device->thread_count; ++i) device->threads.emplace_back(run_worker, device);
    } catch (const std::system_error&) {  // no more threads: those that there are do it all
        device->thread_count = static_cast<std::uint32_t>(device->threads.size());
    }
    return device->thread_count != 0;
}

void stop_workers(pega_device* device) {
    {
        const std::lock_guard lock(device->mutex);
        device->stop = true;
    }
    device->work.notify_all();
    for (std::thread& thread : device->threads) thread.join();
    device->threads.clear();
}

}  // namespace host_backend
