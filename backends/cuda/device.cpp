// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <algorithm>
#include <cstdio>

#include "batch.hpp"
#include "calibration.hpp"
#include "peer.hpp"

cuda_backend::Event pega_device::take_event() {
    if (!spare_events.empty()) {
        cuda_backend::Event event = spare_events.back();
        spare_events.pop_back();
        return event;
    }
    cuda_backend::Event event = nullptr;
    return driver->cuEventCreate(&event, cuda_backend::kEventDisableTiming) == cuda_backend::kSuccess ? event : nullptr;
}

unsigned pega_device::multiprocessors(const cuda_backend::Plan& plan) const noexcept {
    const unsigned limit = plan.b_is_host ? settings.max_multiprocessors : settings.peer_multiprocessors;
    unsigned side_by_side = 0;
    for (const auto& channel : channels) {
        unsigned streams = 0;
        for (const cuda_backend::Batch* batch : channel->queue) {
            if (!batch->route.kernels() || batch->plan.b_is_host != plan.b_is_host) continue;
            streams = batch->route.path == cuda_backend::Path::kStaged ? std::max(streams, 1U) : std::min(streams + 1, 2U);
        }
        side_by_side += streams;
    }
    return std::max(limit / std::max(side_by_side, 1U), 1U);
}

namespace cuda_backend {
namespace {

constexpr int kStepsATurn = 16;  // so that one large batch does not keep others from being seen

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    if (capacity == 0) return 0;
    std::unique_lock lock(device->mutex);
    bool busy = false;
    bool needs_room = false;
    for (const auto& channel : device->channels) {
        busy = busy || !channel->queue.empty() || !channel->waiting.empty();
        needs_room = needs_room || (!channel->queue.empty() && channel->queue.front()->route.needs_room);
    }
    if (busy) {
        const Current current(*device->driver, device->context);
        for (const auto& channel : device->channels) advance(*device, *channel, kStepsATurn);
        if (needs_room) device->contention.look(*device->driver, device->host->now_ns(device->host->context));
    }
    const std::uint32_t count = device->completions.pop(out, capacity);
    lock.unlock();
    if (count == 0) device->mailbox.poll();
    return count;
}

int wait_fd(pega_device* device) { return device->mailbox.wait_fd(); }

// Only polling moves batches here: there is nothing to sleep for while one is in flight.
pega_status arm(pega_device* device) {
    const std::lock_guard lock(device->mutex);
    if (!device->completions.empty()) return PEGA_PENDING;
    for (const auto& channel : device->channels) {
        if (channel->in_flight != 0) return PEGA_PENDING;
    }
    return PEGA_OK;
}

}  // namespace

pega_status to_status(Result result) noexcept {
    switch (result) {
        case kSuccess:
            return PEGA_OK;
        case kOutOfMemory:
            return PEGA_NO_MEMORY;
        case kNotReady:
            return PEGA_PENDING;
        case 1:
            return PEGA_INVALID;
        default:
            return PEGA_RETRY_OTHER_PATH;
    }
}

std::string uuid_text(const Uuid& uuid) {
    char text[64];
    const unsigned char* b = uuid.bytes;
    std::snprintf(text, sizeof text, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
                  b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return text;
}

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    if (host == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    std::string why;
    const Driver* driver = Driver::get(&why);
    if (driver == nullptr) return PEGA_UNSUPPORTED;
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->driver = driver;
    device->index = static_cast<int>(params->index);
    if (driver->cuDeviceGet(&device->device, device->index) != kSuccess) return PEGA_INVALID;
    const Result result = driver->cuDevicePrimaryCtxRetain(&device->context, device->device);
    if (result != kSuccess) return to_status(result);
    if (const pega_status read = Settings::read(host, params->options, params->option_count, device->settings);
        read != PEGA_OK) {
        driver->cuDevicePrimaryCtxRelease_v2(device->device);
        return read;
    }
    if (device->mailbox.open("PGCUDAD1") != PEGA_OK) {
        driver->cuDevicePrimaryCtxRelease_v2(device->device);
        return PEGA_NO_MEMORY;
    }
    const Current current(*driver, device->context);
    device->kernels.load(*driver, device->device);
    if (!device->kernels.usable(Path::kVector)) {
        pegaflow::backend::log(host, PEGA_LOG_WARNING, "cuda", "GPU %d copies without kernels, so small pages are slow: %s",
                               device->index, device->kernels.problem());
    }
    if (const Result opened = device->contention.open(*driver, device->kernels.room()); opened != kSuccess) {
        pegaflow::backend::log(host, PEGA_LOG_WARNING, "cuda", "GPU %d: whether a model is busy will not be seen, error %d",
                               device->index, opened);
    }
    calibrate(*device);
    *out = device.release();
    return PEGA_OK;
}

void close_device(pega_device* device) {
    if (device == nullptr) return;
    while (!device->channels.empty()) kChannelTable.close(device->channels.back().get(), UINT64_MAX);
    {
        const Current current(*device->driver, device->context);
        for (const auto& region : device->regions) release(*device, *region);
        for (Event event : device->spare_events) device->driver->cuEventDestroy_v2(event);
        device->contention.close(*device->driver);
        device->kernels.unload(*device->driver);
        leave_peers(*device);
    }
    device->driver->cuDevicePrimaryCtxRelease_v2(device->device);
    delete device;
}

const pega_completion_table kCompletionTable = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

}  // namespace cuda_backend
