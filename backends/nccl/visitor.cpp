// SPDX-License-Identifier: Apache-2.0
// Who connects to a device's control port, and what they must show before they are given anything.
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>

#include "link.hpp"

namespace nccl_backend {
namespace {

constexpr std::size_t kMostVisitors = 64;
constexpr std::size_t kMostLinks = 4096;
constexpr std::uint64_t kPatienceNs = 5'000'000'000;

// Does not say by its duration how much of the token was right.
bool same(const Id& a, const Id& b) noexcept {
    unsigned different = 0;
    for (std::size_t i = 0; i < a.size(); ++i) different |= static_cast<unsigned>(a[i] ^ b[i]);
    return different == 0;
}

void take_in(pega_device& device) {
    for (;;) {
        const int fd = ::accept4(device.listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) return;
        if (device.visitors.size() == kMostVisitors) device.visitors.pop_front();  // the oldest goes
        Visitor visitor;
        visitor.connection = std::make_unique<Connection>();
        visitor.connection->watched_by(device.epoll_fd);
        visitor.connection->adopt(fd);
        visitor.since_ns = device.now();
        device.visitors.push_back(std::move(visitor));
    }
}

void refuse(Connection& connection, pega_status status, const char* text) {
    Refuse refusal{};
    refusal.status = status;
    std::snprintf(refusal.text, sizeof refusal.text, "%s", text);
    connection.send(FrameType::kRefuse, refusal);
    connection.work();
}

void greet(pega_device& device, std::unique_ptr<Connection> connection, const Frame& frame) {
    Hello hello{};
    if (frame.type != FrameType::kHello || !read_body(frame.body, hello))
        return refuse(*connection, PEGA_CORRUPT, "the first frame is no greeting");
    if (hello.protocol != kProtocol) return refuse(*connection, PEGA_UNSUPPORTED, "another version of the protocol");
    if (!same(hello.token, device.address.token)) return refuse(*connection, PEGA_INVALID, "the token is not this device's");
    if (hello.nccl_version != static_cast<std::uint32_t>(device.nccl->version))
        return refuse(*connection, PEGA_UNSUPPORTED, "another version of NCCL; both sides need the same");
    if (hello.chunk_bytes == 0 || hello.gpu == device.address.gpu)
        return refuse(*connection, PEGA_UNSUPPORTED, "the same GPU on both sides, or no memory to pack in");
    if (device.links.size() >= kMostLinks) return refuse(*connection, PEGA_NO_MEMORY, "too many links");
    std::unique_ptr<Link> link;
    Link::make_target(device, std::move(connection), hello, link);  // one that cannot join says so to its peer by closing
    device.links.push_back(std::move(link));
}

}  // namespace

void serve_visitors(pega_device& device) {
    take_in(device);
    const std::uint64_t now = device.now();
    for (std::size_t i = 0; i < device.visitors.size();) {
        Visitor& visitor = device.visitors[i];
        visitor.connection->work();
        Frame frame;
        const bool greeted = visitor.connection->next(sizeof(Hello), frame);
        if (!greeted && !visitor.connection->lost() && now - visitor.since_ns < kPatienceNs) {
            ++i;
            continue;
        }
        Visitor gone = std::move(visitor);
        device.visitors.erase(device.visitors.begin() + static_cast<std::ptrdiff_t>(i));
        if (greeted) greet(device, std::move(gone.connection), frame);
    }
}

}  // namespace nccl_backend
