// SPDX-License-Identifier: Apache-2.0
#include <sched.h>

#include <algorithm>

#include "link.hpp"

namespace nccl_backend {
namespace {

constexpr std::uint32_t kDefaultDepth = 64;
constexpr std::uint32_t kMaxDepth = 4096;

pega_status make_link(pega_device& device, pega_channel* channel, const pega_channel_params& params,
                      std::unique_ptr<Link>& out) {
    if (params.address == nullptr) return Link::make_self(device, channel, out);
    Address address{};
    if (const pega_status read = read_address(params.address, params.address_length, address); read != PEGA_OK) return read;
    if (address.device == device.address.device) return Link::make_self(device, channel, out);
    return Link::make_opener(device, channel, address, out);
}

pega_status open(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    if (params->queue_depth > kMaxDepth) return PEGA_INVALID;
    auto channel = std::make_unique<pega_channel>();
    channel->device = device;
    const std::uint32_t depth = params->queue_depth != 0 ? params->queue_depth : kDefaultDepth;
    for (std::uint32_t i = 0; i < depth; ++i) {
        channel->slots.push_back(std::make_unique<Batch>());
        channel->free.push_back(channel->slots.back().get());
    }
    const Current current(*device->driver, device->context);
    std::unique_ptr<Link> link;
    if (const pega_status made = make_link(*device, channel.get(), *params, link); made != PEGA_OK) return made;
    const std::lock_guard lock(device->mutex);
    channel->link = link.get();
    *out = channel.get();
    device->links.push_back(std::move(link));
    device->channels.push_back(std::move(channel));
    return PEGA_OK;
}

pega_status state(pega_channel* channel) {
    const std::lock_guard lock(channel->device->mutex);
    return channel->link->state();
}

pega_status submit(pega_channel* channel, const pega_batch* batch) {
    if (channel == nullptr || batch == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    const Current current(*device.driver, device.context);
    const std::lock_guard lock(device.mutex);
    if (channel->closed) return PEGA_CANCELED;
    if (const pega_status now = channel->link->state(); now < 0) return now;
    if (channel->free.empty()) return PEGA_QUEUE_FULL;
    Batch* slot = channel->free.back();
    if (const pega_status status = slot->accept(channel, *batch); status != PEGA_OK) return status;
    channel->free.pop_back();
    slot->pin_regions(1);
    channel->queue.push_back(slot);
    channel->link->advance();
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
            for (Batch* batch : channel->queue) batch->cancel = true;
            progress(device);
            if (channel->queue.empty()) {
                channel->link->release_channel();
                std::erase_if(device.channels, [&](const auto& c) { return c.get() == channel; });
                progress(device);
                return PEGA_OK;
            }
        }
        if (device.now() >= deadline_ns) return PEGA_PENDING;
        ::sched_yield();
    }
}

pega_status cancel(pega_channel* channel, std::uint64_t user_data) {
    if (channel == nullptr) return PEGA_INVALID;
    const std::lock_guard lock(channel->device->mutex);
    for (Batch* batch : channel->queue) {
        if (batch->batch.user_data != user_data) continue;
        batch->cancel = true;
        return PEGA_OK;
    }
    return PEGA_INVALID;
}

}  // namespace

const pega_channel_table kChannelTable = {sizeof(pega_channel_table), 0, &open, &state, &submit, &close};
const pega_ext_cancel kCancelTable = {sizeof(pega_ext_cancel), 0, &cancel};

}  // namespace nccl_backend
