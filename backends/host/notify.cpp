// SPDX-License-Identifier: Apache-2.0
// Notifications: four bytes a value, over a stream socket in the abstract namespace, so that nothing is left on disk and a
// peer's death is seen at once. A stream loses nothing; a full socket parks the batch until there is room.
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "device.hpp"

namespace host_backend {
namespace {

constexpr char kAddressMagic[8] = {'P', 'G', 'H', 'A', 'D', 'D', 'R', '1'};
constexpr int kBacklog = 64;

socklen_t make_address(const std::string& name, sockaddr_un* out) {
    *out = {};
    out->sun_family = AF_UNIX;
    std::memcpy(out->sun_path + 1, name.data(), name.size());
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

void watch(pega_device* device, int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    ::epoll_ctl(device->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void drop_peer(pega_device* device, int fd) {
    ::epoll_ctl(device->epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
    ::close(fd);
    std::erase(device->peers, fd);
    device->partial.erase(fd);
}

void read_peer(pega_device* device, int fd) {
    std::uint8_t buffer[4096];
    for (;;) {
        const ssize_t count = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
        if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) return drop_peer(device, fd);
        if (count < 0) return;
        std::vector<std::uint8_t>& bytes = device->partial[fd];
        bytes.insert(bytes.end(), buffer, buffer + count);
        std::size_t used = 0;
        for (; used + sizeof(std::uint32_t) <= bytes.size(); used += sizeof(std::uint32_t)) {
            std::uint32_t value = 0;
            std::memcpy(&value, bytes.data() + used, sizeof value);
            count_arrival(*device, value);
        }
        bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(used));
    }
}

std::uint64_t count(pega_device* device, std::uint32_t value) {
    const std::lock_guard lock(device->notify_mutex);
    const auto it = device->arrived.find(value);
    return it == device->arrived.end() ? 0 : it->second;
}

pega_status consume(pega_device* device, std::uint32_t value, std::uint64_t wanted) {
    const std::lock_guard lock(device->notify_mutex);
    const auto it = device->arrived.find(value);
    if (wanted == 0) return PEGA_OK;
    if (it == device->arrived.end() || it->second < wanted) return PEGA_RETRY;
    it->second -= wanted;
    if (it->second == 0) device->arrived.erase(it);
    return PEGA_OK;
}

}  // namespace

pega_status open_listener(pega_device* device) {
    std::uint64_t random = 0;
    if (::getrandom(&random, sizeof random, 0) != sizeof random) return PEGA_NO_MEMORY;
    char name[64];
    std::snprintf(name, sizeof name, "pegaflow-host-%d-%016lx", ::getpid(), static_cast<unsigned long>(random));
    device->address = name;
    device->listen_fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    const socklen_t length = make_address(device->address, &address);
    if (device->listen_fd < 0 || ::bind(device->listen_fd, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        ::listen(device->listen_fd, kBacklog) != 0) {
        return PEGA_NO_MEMORY;
    }
    watch(device, device->listen_fd, EPOLLIN);
    return PEGA_OK;
}

std::vector<std::uint8_t> encode_address(const pega_device& device) {
    std::vector<std::uint8_t> bytes(kAddressMagic, kAddressMagic + sizeof kAddressMagic);
    bytes.insert(bytes.end(), device.address.begin(), device.address.end());
    return bytes;
}

pega_status connect_peer(pega_device* device, const void* address, std::uint64_t length, pega_channel* channel) {
    if (length <= sizeof kAddressMagic || length > sizeof kAddressMagic + sizeof(sockaddr_un{}.sun_path) - 1 ||
        std::memcmp(address, kAddressMagic, sizeof kAddressMagic) != 0) {
        return PEGA_CORRUPT;
    }
    const std::string name(static_cast<const char*>(address) + sizeof kAddressMagic, length - sizeof kAddressMagic);
    if (name == device->address) return PEGA_OK;
    channel->peer_fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (channel->peer_fd < 0) return PEGA_NO_MEMORY;
    sockaddr_un peer{};
    const socklen_t peer_length = make_address(name, &peer);
    if (::connect(channel->peer_fd, reinterpret_cast<sockaddr*>(&peer), peer_length) != 0) {
        return errno == EAGAIN ? PEGA_RETRY : PEGA_PEER_LOST;
    }
    watch(device, channel->peer_fd, EPOLLRDHUP);
    return PEGA_OK;
}

pega_status send_value(pega_channel& channel, std::uint32_t value) {
    if (channel.peer_fd < 0) {
        count_arrival(*channel.device, value);
        return PEGA_OK;
    }
    const ssize_t sent = ::send(channel.peer_fd, &value, sizeof value, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == sizeof value) return PEGA_OK;
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return PEGA_RETRY;
    channel.peer_lost.store(true, std::memory_order_release);
    return PEGA_PEER_LOST;
}

void count_arrival(pega_device& device, std::uint32_t value) {
    const std::lock_guard lock(device.notify_mutex);
    ++device.arrived[value];
}

void poll_sockets(pega_device* device) {
    epoll_event events[16];
    const int count = ::epoll_wait(device->epoll_fd, events, 16, 0);
    for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == device->event_fd) continue;
        if (fd == device->listen_fd) {
            const int peer = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            if (peer < 0) continue;
            device->peers.push_back(peer);
            watch(device, peer, EPOLLIN);
        } else if (std::find(device->peers.begin(), device->peers.end(), fd) != device->peers.end()) {
            read_peer(device, fd);
        } else {
            const std::lock_guard lock(device->mutex);
            ::epoll_ctl(device->epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
            for (const auto& channel : device->channels) {
                if (channel->peer_fd == fd) channel->peer_lost.store(true, std::memory_order_release);
            }
        }
    }
}

const pega_ext_notify kNotifyTable = {sizeof(pega_ext_notify), 0, &count, &consume};

}  // namespace host_backend
