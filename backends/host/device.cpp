// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "batch.hpp"

pega_device::~pega_device() {
    for (const auto& region : regions) {
        if (region->owned != nullptr) ::munmap(region->owned, region->length);
    }
    if (event_fd >= 0) ::close(event_fd);
}

namespace host_backend {

namespace {

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    if (capacity == 0) return 0;
    {
        const std::lock_guard lock(device->mutex);
        device->armed = false;
        if (const std::uint32_t count = device->completions.pop(out, capacity); count != 0) return count;
    }
    device->mailbox.poll();
    return 0;
}

int wait_fd(pega_device* device) { return device->mailbox.wait_fd(); }

pega_status arm(pega_device* device) {
    std::uint64_t drained = 0;
    [[maybe_unused]] const auto count = ::read(device->event_fd, &drained, sizeof drained);
    const std::lock_guard lock(device->mutex);
    if (!device->completions.empty()) return PEGA_PENDING;
    device->armed = true;
    return PEGA_OK;
}

// 0 when the text is no number in the range.
std::uint32_t parse_threads(const char* text) {
    char* end = nullptr;
    const unsigned long value = std::strtoul(text, &end, 10);
    return end != text && *end == '\0' && value >= 1 && value <= kMaxThreads ? static_cast<std::uint32_t>(value) : 0;
}

}  // namespace

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    if (host == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params) || params->index != 0)
        return PEGA_INVALID;
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->thread_count = std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
    if (const char* text = pegaflow::backend::option(params->options, params->option_count, "threads", nullptr)) {
        device->thread_count = parse_threads(text);
        if (device->thread_count == 0) {
            pegaflow::backend::log(host, PEGA_LOG_ERROR, "host", "option threads is \"%s\", expected a number from 1 to %u",
                                   text, kMaxThreads);
            return PEGA_INVALID;
        }
    }
    device->event_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (device->event_fd < 0) return PEGA_NO_MEMORY;
    if (const pega_status status = device->mailbox.open("PGHADDR1"); status != PEGA_OK) return status;
    if (!device->mailbox.watch(device->event_fd)) return PEGA_NO_MEMORY;
    if (!start_workers(device.get())) return PEGA_NO_MEMORY;
    *out = device.release();
    return PEGA_OK;
}

void close_device(pega_device* device) {
    if (device == nullptr) return;
    while (true) {
        pega_channel* channel = nullptr;
        {
            const std::lock_guard lock(device->mutex);
            if (!device->channels.empty()) channel = device->channels.back().get();
        }
        if (channel == nullptr) break;
        kChannelTable.close(channel, UINT64_MAX);
    }
    stop_workers(device);
    delete device;
}

const pega_completion_table kCompletionTable = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

}  // namespace host_backend
