// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

pega_device::~pega_device() {
    ring.close();
    if (bounces != nullptr) {
        for (std::uint32_t i = 0; i < nvme_backend::kBounces; ++i) std::free(bounces[i].memory);
    }
    for (const int fd : {event_fd, ring_fd, epoll_fd}) {
        if (fd >= 0) ::close(fd);
    }
}

namespace nvme_backend {

void wake(pega_device& device) noexcept {
    if (!device.sleeping) return;
    device.sleeping = false;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(device.event_fd, &one, sizeof one);
}

namespace {

std::atomic<unsigned> forks{0};  // of this process's ancestry, since the module was loaded

void count_fork() { forks.fetch_add(1, std::memory_order_relaxed); }

std::uint32_t wait(pega_device* device, pega_completion* out, std::uint32_t capacity, std::uint64_t deadline_ns) {
    if (capacity == 0) return 0;
    const std::lock_guard polling(device->poll_mutex);
    pump(*device, device->records.empty() ? deadline_ns : 0);
    return device->records.pop(out, capacity);
}

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) { return wait(device, out, capacity, 0); }

void interrupt(pega_device* device) {
    device->interrupted.store(true);
    const std::lock_guard lock(device->mutex);
    wake(*device);
}

int wait_fd(pega_device* device) { return device->epoll_fd; }

pega_status arm(pega_device* device) {
    const std::lock_guard polling(device->poll_mutex);
    if (inherited(*device) || !device->records.empty() || must_poll(*device)) return PEGA_PENDING;
    std::uint64_t drained = 0;
    for (const int fd : {device->event_fd, device->ring_fd}) {
        [[maybe_unused]] const auto count = ::read(fd, &drained, sizeof drained);
    }
    if (device->ring.is_open() && (device->ring.unsent() || !device->ring.announce(device->ring_fd))) return PEGA_PENDING;
    const std::lock_guard lock(device->mutex);
    if (!device->incoming.empty() || device->look_at_cancels.load() || device->look_at_tables.load()) return PEGA_PENDING;
    device->sleeping = true;
    return PEGA_OK;
}

pega_status make_operations(pega_device& device) {
    device.operations = std::make_unique<Operation[]>(device.options.depth);
    for (std::uint32_t i = device.options.depth; i-- > 0;) device.free_operations.push_back(&device.operations[i]);
    device.bounces = std::make_unique<Bounce[]>(kBounces);
    const std::uint64_t bytes = std::max<std::uint64_t>(device.options.io_bytes, kLargestAlign);
    for (std::uint32_t i = 0; i < kBounces; ++i) {
        device.bounces[i].memory = static_cast<std::uint8_t*>(std::aligned_alloc(kPage, bytes));
        if (device.bounces[i].memory == nullptr) return PEGA_NO_MEMORY;
        device.free_bounces.push_back(&device.bounces[i]);
    }
    return PEGA_OK;
}

pega_status make_descriptors(pega_device& device) {
    device.event_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    device.ring_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    device.epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN;
    const bool good = device.event_fd >= 0 && device.ring_fd >= 0 && device.epoll_fd >= 0 &&
                      ::epoll_ctl(device.epoll_fd, EPOLL_CTL_ADD, device.event_fd, &event) == 0 &&
                      ::epoll_ctl(device.epoll_fd, EPOLL_CTL_ADD, device.ring_fd, &event) == 0;
    return good ? PEGA_OK : PEGA_NO_MEMORY;
}

// Whether the kernel gives a ring with these options; the ring itself is made by the thread that polls.
pega_status try_ring(pega_device& device) {
    Ring ring;
    const int error = ring.open(device.options, device.deferred);
    if (error == 0) return PEGA_OK;
    pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "nvme", "the kernel refuses a ring with these options: %s",
                           std::strerror(error));
    return error == ENOMEM ? PEGA_NO_MEMORY : PEGA_UNSUPPORTED;
}

}  // namespace

bool inherited(const pega_device& device) noexcept { return device.forks != forks.load(std::memory_order_relaxed); }

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    if (host == nullptr || params == nullptr || out == nullptr || !pegaflow::backend::whole(*params)) return PEGA_INVALID;
    [[maybe_unused]] static const int watched = ::pthread_atfork(nullptr, nullptr, &count_fork);
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->forks = forks.load(std::memory_order_relaxed);
    std::string why;
    if (!parse_options(params->options, params->option_count, &device->options, &why)) {
        pegaflow::backend::log(host, PEGA_LOG_ERROR, "nvme", "%s", why.c_str());
        return PEGA_INVALID;
    }
    if (params->index >= device->options.handles) return PEGA_INVALID;
    const bool one_poller = (params->flags & PEGA_OPEN_CALLER_POLLS) == 0;
    device->deferred = device->options.ring == RingKind::kDeferred || (device->options.ring == RingKind::kAuto && one_poller);
    for (const auto make : {make_descriptors, make_operations, try_ring}) {
        const pega_status status = make(*device);
        if (status != PEGA_OK) return status;
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
    delete device;
}

const pega_completion_table kCompletionTable = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};
const pega_ext_wait kWaitTable = {sizeof(pega_ext_wait), 0, &wait, &interrupt};

}  // namespace nvme_backend
