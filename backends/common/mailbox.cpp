// SPDX-License-Identifier: Apache-2.0
#include "common/mailbox.hpp"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

namespace backend_common {
namespace {

constexpr std::size_t kKindBytes = 8;
constexpr int kBacklog = 64;
constexpr long kRestNs = 50'000'000;

socklen_t make_address(std::span<const std::uint8_t> name, sockaddr_un* out) {
    *out = {};
    out->sun_family = AF_UNIX;
    std::memcpy(out->sun_path + 1, name.data(), name.size());
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

// Explicitly before it is closed: a forked process may hold the socket too, which keeps the watch alive.
void unwatch_and_close(int epoll_fd, int fd) noexcept {
    ::epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
    ::close(fd);
}

bool hung_up(int fd) noexcept {
    char byte = 0;
    const ssize_t got = ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    // A peer that goes before it has accepted resets the connection.
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

// Values are believed, so they must come from somebody who could write this process's memory anyway.
bool trusted(int fd) noexcept {
    ucred peer{};
    socklen_t length = sizeof peer;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == ::geteuid() || peer.uid == 0);
}

bool watch_for(int epoll_fd, int fd, std::uint32_t events) noexcept {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    return ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

Mailbox::~Mailbox() {
    for (const auto& [fd, bytes] : partial_) ::close(fd);
    for (const int fd : {listen_fd_, rest_fd_}) {
        if (fd >= 0) ::close(fd);
    }
    if (epoll_fd_ >= 0) ::close(epoll_fd_);
}

pega_status Mailbox::open(const char* kind) {
    std::uint64_t random = 0;
    if (::getrandom(&random, sizeof random, 0) != sizeof random) return PEGA_NO_MEMORY;
    char text[96];
    const int length =
        std::snprintf(text, sizeof text, "%.8spegaflow-%d-%016lx", kind, ::getpid(), static_cast<unsigned long>(random));
    address_.assign(text, text + length);
    epoll_fd_ = ::epoll_create1(EPOLL_CLOEXEC);
    listen_fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    rest_fd_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    sockaddr_un own{};
    const socklen_t own_length = make_address(std::span(address_).subspan(kKindBytes), &own);
    if (epoll_fd_ < 0 || listen_fd_ < 0 || rest_fd_ < 0 ||
        ::bind(listen_fd_, reinterpret_cast<sockaddr*>(&own), own_length) != 0 || ::listen(listen_fd_, kBacklog) != 0 ||
        !watch(listen_fd_) || !watch(rest_fd_)) {
        return PEGA_NO_MEMORY;
    }
    return PEGA_OK;
}

bool Mailbox::watch(int fd) noexcept { return watch_for(epoll_fd_, fd, EPOLLIN); }

pega_status Mailbox::connect(std::span<const std::uint8_t> address, Peer& peer) {
    if (address.size() <= kKindBytes || address.size() > kKindBytes + sizeof(sockaddr_un{}.sun_path) - 1 ||
        std::memcmp(address.data(), address_.data(), kKindBytes) != 0) {
        return PEGA_CORRUPT;
    }
    if (std::ranges::equal(address, address_)) return PEGA_OK;
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return PEGA_NO_MEMORY;
    sockaddr_un there{};
    const socklen_t there_length = make_address(address.subspan(kKindBytes), &there);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&there), there_length) != 0) {
        const int error = errno;
        ::close(fd);
        return error == EAGAIN ? PEGA_RETRY : PEGA_PEER_LOST;
    }
    peer.fd = fd;
    {
        const std::lock_guard lock(mutex_);
        peers_.push_back(&peer);
    }
    if (watch_for(epoll_fd_, fd, EPOLLRDHUP)) return PEGA_OK;
    disconnect(peer);
    return PEGA_NO_MEMORY;
}

void Mailbox::disconnect(Peer& peer) noexcept {
    if (peer.fd < 0) return;
    const std::lock_guard lock(mutex_);
    std::erase(peers_, &peer);
    unwatch_and_close(epoll_fd_, peer.fd);
    peer.fd = -1;
}

pega_status Mailbox::send(Peer& peer, std::uint32_t value) {
    if (peer.fd < 0) return count_arrival(value) ? PEGA_OK : PEGA_NO_MEMORY;
    const ssize_t sent = ::send(peer.fd, &value, sizeof value, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent == sizeof value) return PEGA_OK;
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return PEGA_RETRY;
    peer.lost.store(true, std::memory_order_release);
    return PEGA_PEER_LOST;
}

bool Mailbox::gone(Peer& peer) noexcept {
    if (peer.fd >= 0 && hung_up(peer.fd)) peer.lost.store(true, std::memory_order_release);
    return peer.lost.load(std::memory_order_acquire);
}

void Mailbox::accept() {
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) rest(true);
        return;
    }
    if (partial_.size() < kMostPeers && trusted(fd) && watch(fd)) {
        partial_[fd];
    } else {
        ::close(fd);
    }
}

// Without a descriptor for it a peer stays where it is, and would wake whoever waits again and again: so not for a while.
void Mailbox::rest(bool resting) noexcept {
    epoll_event event{};
    event.events = resting ? 0U : static_cast<std::uint32_t>(EPOLLIN);
    event.data.fd = listen_fd_;
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, listen_fd_, &event);
    const itimerspec when{{}, {0, resting ? kRestNs : 0}};
    ::timerfd_settime(rest_fd_, 0, &when, nullptr);
}

void Mailbox::drop(int fd) {
    unwatch_and_close(epoll_fd_, fd);
    partial_.erase(fd);
}

void Mailbox::read(int fd) {
    std::uint8_t buffer[4096];  // at a time, so that no peer keeps the poller from its batches; epoll tells of the rest again
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return drop(fd);
    if (got < 0) return;
    std::vector<std::uint8_t>& bytes = partial_[fd];
    bytes.insert(bytes.end(), buffer, buffer + got);
    std::size_t used = 0;
    for (; used + sizeof(std::uint32_t) <= bytes.size(); used += sizeof(std::uint32_t)) {
        std::uint32_t value = 0;
        std::memcpy(&value, bytes.data() + used, sizeof value);
        if (!count_arrival(value)) return drop(fd);
    }
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(used));
}

void Mailbox::poll() {
    epoll_event events[16];
    const int ready = ::epoll_wait(epoll_fd_, events, 16, 0);
    for (int i = 0; i < ready; ++i) {
        const int fd = events[i].data.fd;
        if (fd == listen_fd_) {
            accept();
        } else if (fd == rest_fd_) {
            rest(false);
        } else if (partial_.contains(fd)) {
            read(fd);
        } else {
            const std::lock_guard lock(mutex_);
            const auto gone = std::ranges::find(peers_, fd, &Peer::fd);
            if (gone == peers_.end() || !hung_up(fd)) continue;  // another descriptor, or its number was just used again
            (*gone)->lost.store(true, std::memory_order_release);
            ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
        }
    }
}

bool Mailbox::count_arrival(std::uint32_t value) {
    const std::lock_guard lock(mutex_);
    const auto it = arrived_.find(value);
    if (it == arrived_.end() && arrived_.size() >= kMostValues) return false;
    ++(it != arrived_.end() ? it->second : arrived_[value]);
    return true;
}

std::uint64_t Mailbox::count(std::uint32_t value) {
    const std::lock_guard lock(mutex_);
    const auto it = arrived_.find(value);
    return it == arrived_.end() ? 0 : it->second;
}

pega_status Mailbox::consume(std::uint32_t value, std::uint64_t wanted) {
    if (wanted == 0) return PEGA_OK;
    const std::lock_guard lock(mutex_);
    const auto it = arrived_.find(value);
    if (it == arrived_.end() || it->second < wanted) return PEGA_RETRY;
    it->second -= wanted;
    if (it->second == 0) arrived_.erase(it);
    return PEGA_OK;
}

}  // namespace backend_common
