// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "link.hpp"

pega_device::pega_device() = default;
pega_device::~pega_device() {
    for (const int fd : {listen_fd, epoll_fd}) {
        if (fd >= 0) ::close(fd);
    }
    if (context != nullptr) driver->cuDevicePrimaryCtxRelease_v2(device);
}
pega_channel::~pega_channel() = default;

namespace nccl_backend {
namespace {

using cuda_backend::kSuccess;

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    if (capacity == 0) return 0;
    const Current current(*device->driver, device->context);
    const std::lock_guard lock(device->mutex);
    progress(*device);
    const std::uint32_t stride = out->size;
    std::uint32_t count = 0;
    for (; count < capacity && !device->completions.empty(); ++count) {
        auto* element = reinterpret_cast<pega_completion*>(reinterpret_cast<unsigned char*>(out) +
                                                           static_cast<std::size_t>(count) * stride);
        element->size = stride;
        pegaflow::backend::copy_out(element, device->completions.front());
        device->completions.pop_front();
    }
    return count;
}

int wait_fd(pega_device* device) { return device->epoll_fd; }

// Sockets wake the sleeper; what is on the GPU or in NCCL's hands is only seen by polling.
pega_status arm(pega_device* device) {
    const std::lock_guard lock(device->mutex);
    const bool busy = std::any_of(device->links.begin(), device->links.end(), [](const auto& link) { return link->busy(); });
    return busy || !device->completions.empty() ? PEGA_PENDING : PEGA_OK;
}

pega_status start_listening(pega_device& device) {
    const Settings& settings = device.settings;
    std::uint16_t port = 0;
    device.epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    device.listen_fd = listen_on(settings.bind.c_str(), static_cast<std::uint16_t>(settings.port), &port);
    if (device.listen_fd < 0) {
        pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "nccl", "cannot listen on %s, port %llu: %s", settings.bind.c_str(),
                               static_cast<unsigned long long>(settings.port), std::strerror(errno));
        return PEGA_INVALID;
    }
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = device.listen_fd;
    if (device.epoll_fd < 0 || ::epoll_ctl(device.epoll_fd, EPOLL_CTL_ADD, device.listen_fd, &event) != 0)
        return PEGA_NO_MEMORY;
    device.address.device = random_id();
    device.address.token = random_id();
    device.address.port = port;
    std::snprintf(device.address.host, sizeof device.address.host, "%s", settings.bind.c_str());
    return PEGA_OK;
}

}  // namespace

pega_status to_status(CudaResult result) noexcept {
    switch (result) {
        case kSuccess:
            return PEGA_OK;
        case cuda_backend::kOutOfMemory:
            return PEGA_NO_MEMORY;
        case cuda_backend::kNotReady:
            return PEGA_PENDING;
        case 1:
            return PEGA_INVALID;
        default:
            return PEGA_RETRY_OTHER_PATH;
    }
}

void progress(pega_device& device) {
    epoll_event events[64];
    const int count = ::epoll_wait(device.epoll_fd, events, 64, 0);
    bool visitors = !device.visitors.empty();
    for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        visitors = visitors || fd == device.listen_fd;
        for (const auto& link : device.links) link->woken(fd);
        for (const Visitor& visitor : device.visitors) visitor.connection->woken(fd);
    }
    if (visitors && !device.closing) serve_visitors(device);
    for (const auto& link : device.links) link->advance();
    std::erase_if(device.links, [](const auto& link) { return link->gone(); });
}

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    if (host == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    std::string why;
    const cuda_backend::Driver* driver = cuda_backend::Driver::get(&why);
    const Nccl* nccl = driver == nullptr ? nullptr : Nccl::get(&why);
    if (nccl == nullptr) {
        pegaflow::backend::log(host, PEGA_LOG_ERROR, "nccl", "%s", why.c_str());
        return PEGA_UNSUPPORTED;
    }
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->driver = driver;
    device->nccl = nccl;
    device->index = static_cast<int>(params->index);
    if (const pega_status read = Settings::read(host, params->options, params->option_count, device->settings);
        read != PEGA_OK) {
        return read;
    }
    if (driver->cuDeviceGet(&device->device, device->index) != kSuccess) return PEGA_INVALID;
    if (const CudaResult result = driver->cuDevicePrimaryCtxRetain(&device->context, device->device); result != kSuccess)
        return to_status(result);
    cuda_backend::Uuid uuid{};
    driver->cuDeviceGetUuid_v2(&uuid, device->device);
    std::memcpy(device->address.gpu.data(), uuid.bytes, sizeof uuid.bytes);
    if (const pega_status listens = start_listening(*device); listens != PEGA_OK) return listens;
    const Current current(*driver, device->context);
    device->kernels.load(*driver, device->device);
    if (!device->kernels.usable(cuda_backend::Path::kVector)) {
        pegaflow::backend::log(host, PEGA_LOG_WARNING, "nccl", "GPU %d packs without kernels, so small pages are slow: %s",
                               device->index, device->kernels.problem());
    }
    *out = device.release();
    return PEGA_OK;
}

void close_device(pega_device* device) {
    if (device == nullptr) return;
    for (;;) {
        pega_channel* channel = nullptr;
        {
            const std::lock_guard lock(device->mutex);
            if (!device->channels.empty()) channel = device->channels.back().get();
        }
        if (channel == nullptr) break;
        kChannelTable.close(channel, UINT64_MAX);
    }
    {
        const Current current(*device->driver, device->context);
        for (bool first = true;; first = false) {
            const std::lock_guard lock(device->mutex);
            device->closing = true;
            device->visitors.clear();
            for (const auto& link : device->links) {
                if (first) link->shut_down();
            }
            progress(*device);
            if (device->links.empty()) break;
            ::sched_yield();
        }
        for (;;) {
            pega_region* region = nullptr;
            if (!device->regions.empty()) region = device->regions.begin()->second.get();
            if (region == nullptr) break;
            region->in_flight = 0;  // nothing is: every link is gone
            kRegionTable.unregister(region);
        }
        device->kernels.unload(*device->driver);
    }
    delete device;
}

const pega_completion_table kCompletionTable = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

}  // namespace nccl_backend
