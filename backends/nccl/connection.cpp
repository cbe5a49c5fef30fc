// SPDX-License-Identifier: Apache-2.0
#include "connection.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace nccl_backend {
namespace {

constexpr std::size_t kMostBuffered = 1U << 20;  // unread bytes, after which the peer has to wait
constexpr int kBacklog = 128;

// Names would ask a resolver, which blocks; addresses do not.
addrinfo* numeric(const char* host, std::uint16_t port, int flags) {
    addrinfo hints{};
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | flags;
    hints.ai_socktype = SOCK_STREAM;
    char service[8];
    std::snprintf(service, sizeof service, "%u", port);
    addrinfo* out = nullptr;
    return ::getaddrinfo(host, service, &hints, &out) == 0 ? out : nullptr;
}

}  // namespace

int listen_on(const char* host, std::uint16_t wanted, std::uint16_t* port) {
    addrinfo* address = numeric(host, wanted, AI_PASSIVE);
    if (address == nullptr) {
        errno = EADDRNOTAVAIL;
        return -1;
    }
    const int fd = ::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    if (fd >= 0) ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    const bool listens = fd >= 0 && ::bind(fd, address->ai_addr, address->ai_addrlen) == 0 && ::listen(fd, kBacklog) == 0 &&
                         ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) == 0;
    ::freeaddrinfo(address);
    if (!listens) {
        const int error = errno;
        if (fd >= 0) ::close(fd);
        errno = error;
        return -1;
    }
    const in_port_t network = bound.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(bound).sin6_port
                                                          : reinterpret_cast<const sockaddr_in&>(bound).sin_port;
    *port = ntohs(network);
    return fd;
}

void Connection::adopt(int fd) {
    fd_ = fd;
    woken_ = true;
    const int on = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch();
}

bool Connection::connect(const Address& address) {
    addrinfo* peer = numeric(address.host, address.port, 0);
    if (peer == nullptr) return false;
    const int fd = ::socket(peer->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const bool begun = fd >= 0 && (::connect(fd, peer->ai_addr, peer->ai_addrlen) == 0 || errno == EINPROGRESS);
    ::freeaddrinfo(peer);
    if (!begun) {
        if (fd >= 0) ::close(fd);
        return false;
    }
    connecting_ = true;
    adopt(fd);
    return true;
}

void Connection::close() noexcept {
    if (fd_ >= 0) ::close(fd_);  // which also takes it out of the epoll set
    fd_ = -1;
    watched_ = 0;
}

// Readable always, writable only while something waits: else it would never let the poller sleep.
void Connection::watch() {
    const std::uint32_t wanted = EPOLLIN | (connecting_ || !flushed() ? EPOLLOUT : 0U);
    if (fd_ < 0 || epoll_fd_ < 0 || wanted == watched_) return;
    epoll_event event{};
    event.events = wanted;
    event.data.fd = fd_;
    ::epoll_ctl(epoll_fd_, watched_ == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd_, &event);
    watched_ = wanted;
}

void Connection::work() {
    if (fd_ < 0 || lost_ || (!woken_ && flushed())) return;
    flush();
    if (woken_) receive();
    woken_ = false;
    watch();
}

void Connection::flush() {
    while (!flushed() && !lost_) {
        const ssize_t count = ::send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR || (connecting_ && errno == ENOTCONN))) return;
        if (count < 0) {
            lost_ = true;
            return;
        }
        connecting_ = false;
        sent_ += static_cast<std::size_t>(count);
    }
    out_.clear();
    sent_ = 0;
}

void Connection::receive() {
    if (connecting_) return;
    if (taken_ != 0) {
        in_.erase(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(taken_));
        taken_ = 0;
    }
    std::uint8_t buffer[16384];
    while (in_.size() < kMostBuffered) {
        const ssize_t count = ::recv(fd_, buffer, sizeof buffer, MSG_DONTWAIT);
        if (count > 0) in_.insert(in_.end(), buffer, buffer + count);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) lost_ = true;
        if (count < static_cast<ssize_t>(sizeof buffer)) return;
    }
}

bool Connection::next(std::uint32_t most, Frame& out) {
    const ByteSpan rest(in_.data() + taken_, in_.size() - taken_);
    if (rest.empty()) return false;
    const std::int64_t length = frame_length(rest, most);
    if (length < 0) lost_ = broken_protocol_ = true;
    if (length <= 0) return false;
    FrameHeader header{};
    std::memcpy(&header, rest.data(), sizeof header);
    out = {header.type, rest.subspan(sizeof header, header.length)};
    taken_ += static_cast<std::size_t>(length);
    return true;
}

}  // namespace nccl_backend
