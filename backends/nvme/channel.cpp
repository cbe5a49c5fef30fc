// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <chrono>

#include "device.hpp"

namespace nvme_backend {
namespace {

constexpr auto kCloseStep = std::chrono::milliseconds(5);
constexpr std::uint64_t kPumpStepNs = 5'000'000;

pega_status open(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    if (params->queue_depth > kMaxBatches) return PEGA_INVALID;
    if (params->address != nullptr) return PEGA_UNSUPPORTED;
    auto channel = std::make_unique<pega_channel>();
    channel->device = device;
    const std::uint32_t depth = params->queue_depth != 0 ? params->queue_depth : kDefaultDepth;
    for (std::uint32_t i = 0; i < depth; ++i) {
        channel->slots.push_back(std::make_unique<Batch>());
        channel->free.push_back(channel->slots.back().get());
    }
    const std::lock_guard lock(device->mutex);
    *out = channel.get();
    device->channels.push_back(std::move(channel));
    return PEGA_OK;
}

pega_status state(pega_channel*) { return PEGA_OK; }

pega_status submit(pega_channel* channel, const pega_batch* batch) {
    if (channel == nullptr || batch == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    if (inherited(device)) return PEGA_INVALID;
    const pega_status status = check(device, *batch);
    if (status != PEGA_OK) return status;
    const std::lock_guard lock(device.mutex);
    if (channel->closed) return PEGA_CANCELED;
    if (channel->free.empty()) return PEGA_QUEUE_FULL;
    Batch* const slot = channel->free.back();
    slot->accept(channel, *batch);
    channel->free.pop_back();
    ++channel->in_flight;
    slot->in_use = true;
    device.incoming.push_back(slot);
    wake(device);
    return PEGA_OK;
}

// Moves the ring when this thread may, else gives the thread that does a moment.
void make_progress(pega_device& device) {
    bool moved = false;
    if (std::unique_lock polling(device.poll_mutex, std::try_to_lock); polling.owns_lock()) {
        moved = pump(device, 0);
        if (moved && device.in_kernel != 0 && !must_poll(device)) device.ring.wait(kPumpStepNs);
    }
    if (moved) return;
    std::unique_lock lock(device.mutex);
    device.idle.wait_for(lock, kCloseStep);
}

pega_status close(pega_channel* channel, std::uint64_t deadline_ns) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    {
        const std::lock_guard lock(device.mutex);
        channel->closed = true;
        for (const auto& slot : channel->slots) {
            if (slot->in_use) slot->cancel_requested.store(true, std::memory_order_release);
        }
        device.look_at_cancels.store(true, std::memory_order_release);
        wake(device);
    }
    for (;;) {
        {
            const std::lock_guard lock(device.mutex);
            if (channel->in_flight == 0 || inherited(device)) {  // a child's copy of what the parent waits for
                std::erase_if(device.channels, [&](const auto& c) { return c.get() == channel; });
                return PEGA_OK;
            }
        }
        if (device.now() >= deadline_ns) return PEGA_PENDING;
        make_progress(device);
    }
}

pega_status cancel(pega_channel* channel, std::uint64_t user_data) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    const std::lock_guard lock(device.mutex);
    for (const auto& slot : channel->slots) {
        if (!slot->in_use || slot->batch.user_data != user_data) continue;
        slot->cancel_requested.store(true, std::memory_order_release);
        device.look_at_cancels.store(true, std::memory_order_release);
        wake(device);
        return PEGA_OK;
    }
    return PEGA_INVALID;
}

}  // namespace

const pega_channel_table kChannelTable = {sizeof(pega_channel_table), 0, &open, &state, &submit, &close};
const pega_ext_cancel kCancelTable = {sizeof(pega_ext_cancel), 0, &cancel};

}  // namespace nvme_backend
