// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <chrono>

#include "batch.hpp"

namespace host_backend {
namespace {

using Clock = std::chrono::steady_clock;

pega_status open(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    if (params->queue_depth > kMaxDepth) return PEGA_INVALID;
    auto channel = std::make_unique<pega_channel>();
    channel->device = device;
    if (params->address != nullptr) {
        const auto* address = static_cast<const std::uint8_t*>(params->address);
        const pega_status status = device->mailbox.connect({address, params->address_length}, channel->peer);
        if (status != PEGA_OK) return status;
    }
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
        ++channel->in_flight;  // close waits for a submit that is under way
    }
    const pega_status status = slot->accept(channel, *batch);
    if (status == PEGA_OK) slot->pin_regions(1);
    const std::lock_guard lock(device.mutex);
    if (status != PEGA_OK) {
        channel->free.push_back(slot);
        --channel->in_flight;
        device.idle.notify_all();
        return status;
    }
    slot->in_use = true;
    schedule(device, *slot);
    if (channel->closed && slot->in_use) cancel_batch(device, *slot, ECANCELED);
    return PEGA_OK;
}

pega_status close(pega_channel* channel, std::uint64_t deadline_ns) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    std::unique_lock lock(device.mutex);
    channel->closed = true;
    for (const auto& slot : channel->slots) {
        if (slot->in_use) cancel_batch(device, *slot, ECANCELED);
    }
    while (channel->in_flight != 0) {
        const std::uint64_t now = device.host->now_ns(device.host->context);
        if (now >= deadline_ns) return PEGA_PENDING;
        device.idle.wait_for(lock, std::chrono::nanoseconds(std::min<std::uint64_t>(deadline_ns - now, 100'000'000)));
    }
    device.mailbox.disconnect(channel->peer);
    std::erase_if(device.channels, [&](const auto& c) { return c.get() == channel; });
    return PEGA_OK;
}

pega_status cancel(pega_channel* channel, std::uint64_t user_data) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    const std::lock_guard lock(device.mutex);
    for (const auto& slot : channel->slots) {
        if (slot->in_use && slot->batch.user_data == user_data) {
            cancel_batch(device, *slot, ECANCELED);
            return PEGA_OK;
        }
    }
    return PEGA_INVALID;
}

}  // namespace

const pega_channel_table kChannelTable = {sizeof(pega_channel_table), 0, &open, &state, &submit, &close};
const pega_ext_cancel kCancelTable = {sizeof(pega_ext_cancel), 0, &cancel};
const pega_ext_notify kNotifyTable = backend_common::notify_table<&pega_device::mailbox>();

}  // namespace host_backend
