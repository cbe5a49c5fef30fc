// SPDX-License-Identifier: Apache-2.0
#include "comm.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "nccl_api.hpp"

extern "C" int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data);

namespace fake_nccl {
namespace {

constexpr auto kPostDelay = std::chrono::microseconds(150);
constexpr int kTickMs = 2;

socklen_t make_address(const std::string& name, sockaddr_un* out) {
    *out = {};
    out->sun_family = AF_UNIX;
    std::memcpy(out->sun_path + 1, name.data(), std::min(name.size(), sizeof out->sun_path - 1));
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

// One direction's messages, each behind eight bytes that say how long it is.
class Half {
public:
    Half(const std::vector<Message>& messages, bool send) : send_(send) {
        for (const Message& message : messages) {
            if (message.send == send) messages_.push_back(message);
        }
    }
    bool done() const { return at_ == messages_.size(); }
    // Moves what the socket takes or gives now; false when it never will again.
    bool step(int fd) {
        while (!done()) {
            Message& now = messages_[at_];
            std::uint64_t said = now.bytes;
            auto* header = send_ ? reinterpret_cast<unsigned char*>(&said) : header_;
            unsigned char* from = moved_ < 8 ? header + moved_ : now.at + (moved_ - 8);
            const std::size_t left = moved_ < 8 ? 8 - moved_ : now.bytes + 8 - moved_;
            const ssize_t count =
                send_ ? ::send(fd, from, left, MSG_NOSIGNAL | MSG_DONTWAIT) : ::recv(fd, from, left, MSG_DONTWAIT);
            if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
            if (count <= 0) return false;
            moved_ += static_cast<std::size_t>(count);
            if (!send_ && moved_ == 8) check(now);
            if (moved_ != now.bytes + 8) continue;
            moved_ = 0;
            ++at_;
        }
        return true;
    }

private:
    void check(const Message& now) const {
        std::uint64_t said = 0;
        std::memcpy(&said, header_, sizeof said);
        if (said == now.bytes) return;
        std::fprintf(stderr, "fake NCCL: a message of %llu bytes meets a receive of %zu\n",
                     static_cast<unsigned long long>(said), now.bytes);
        std::abort();
    }
    bool send_;
    std::vector<Message> messages_;
    std::size_t at_ = 0, moved_ = 0;
    unsigned char header_[8] = {};
};

}  // namespace

Wire::~Wire() {
    if (fd >= 0) ::close(fd);
}

void Wire::run(const std::vector<Message>& messages) {
    Half out(messages, true);
    Half in(messages, false);
    bool alive = true;
    while (!aborted && (!out.done() || !in.done())) {
        alive = alive && out.step(fd) && in.step(fd);
        if (out.done() && in.done()) return;
        // A kernel whose peer is gone spins until it is aborted.
        pollfd waiting{alive ? fd.load() : -1, static_cast<short>((out.done() ? 0 : POLLOUT) | (in.done() ? 0 : POLLIN)), 0};
        ::poll(&waiting, 1, kTickMs);
    }
}

Comm::Comm(std::string name, int rank, bool blocking)
    : name_(std::move(name)), rank_(rank), blocking_(blocking), meeting_([this] { meet(); }) {}

int Comm::settle() const {
    while (blocking_ && in_progress()) std::this_thread::sleep_for(kPostDelay / 4);
    return in_progress() ? nccl_backend::kNcclInProgress : nccl_backend::kNcclSuccess;
}

Comm::~Comm() {
    wire_->aborted = true;
    meeting_.join();
    if (poster_.joinable()) poster_.join();
    if (wire_->fd >= 0) ::shutdown(wire_->fd, SHUT_RDWR);
}

void Comm::meet() {
    sockaddr_un address{};
    const socklen_t length = make_address(name_, &address);
    const auto* raw = reinterpret_cast<const sockaddr*>(&address);
    int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (rank_ == 0 ? SOCK_NONBLOCK : 0), 0);
    if (rank_ == 0) {
        if (::bind(fd, raw, length) != 0 || ::listen(fd, 1) != 0) failed_ = true;
        int peer = -1;
        while (!failed_ && !wire_->aborted && (peer = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC)) < 0) {
            pollfd waiting{fd, POLLIN, 0};
            ::poll(&waiting, 1, kTickMs);
        }
        ::close(fd);
        fd = peer;
    } else {
        while (!wire_->aborted && ::connect(fd, raw, length) != 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(kTickMs));
    }
    wire_->fd = fd;
    met_ = true;
}

bool Comm::post(std::vector<Message> messages) {
    if (in_progress()) return false;
    posting_ = true;
    if (poster_.joinable()) poster_.join();
    poster_ = std::thread([this, messages = std::move(messages)]() mutable {
        std::this_thread::sleep_for(kPostDelay);
        struct Work {
            std::shared_ptr<Wire> wire;
            std::vector<Message> messages;
        };
        void* stream = messages.front().stream;
        auto* work = new Work{wire_, std::move(messages)};
        cuLaunchHostFunc(
            stream,
            [](void* data) {
                const std::unique_ptr<Work> mine(static_cast<Work*>(data));
                mine->wire->run(mine->messages);
            },
            work);
        posting_ = false;
    });
    return true;
}

}  // namespace fake_nccl
