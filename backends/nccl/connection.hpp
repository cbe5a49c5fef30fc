// SPDX-License-Identifier: Apache-2.0
// connection.hpp - one control connection: a non-blocking stream socket, and the frames that wait on both sides of it.
#pragma once

#include "wire.hpp"

namespace nccl_backend {

struct Frame {
    FrameType type{};
    ByteSpan body;  // valid until the next call of the connection
};

// One thread at a time. A connection that is lost stays so.
class Connection {
public:
    Connection() = default;
    ~Connection() { close(); }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    void watched_by(int epoll_fd) noexcept { epoll_fd_ = epoll_fd; }
    void adopt(int fd);
    // Begins to connect. False: the address is none, or nobody listens there.
    bool connect(const Address& address);
    void close() noexcept;

    template <class Body>
    void send(FrameType type, const Body& body) {
        put_frame(out_, type, body);
    }
    void send(FrameType type, const Bytes& body) { put_frame(out_, type, ByteSpan(body)); }
    // What epoll says about it: there is something to read, or room to write.
    void woken(int fd) noexcept { woken_ = woken_ || fd == fd_; }
    // Moves what the socket takes and gives without waiting, when it was woken or has frames to send.
    void work();
    // The next whole frame, or false. Bytes that are no frame, or a body larger than `most`, lose the connection.
    bool next(std::uint32_t most, Frame& out);

    bool open() const noexcept { return fd_ >= 0; }
    bool lost() const noexcept { return lost_; }
    bool broken_protocol() const noexcept { return broken_protocol_; }
    bool flushed() const noexcept { return sent_ == out_.size(); }

private:
    void flush();
    void receive();
    void watch();

    int fd_ = -1, epoll_fd_ = -1;
    std::uint32_t watched_ = 0;
    bool woken_ = false, connecting_ = false, lost_ = false, broken_protocol_ = false;
    Bytes in_, out_;
    std::size_t taken_ = 0, sent_ = 0;
};

// A listening socket on a numeric address; -1 with errno when there is none to be had. `port` gets the port.
int listen_on(const char* host, std::uint16_t wanted, std::uint16_t* port);

}  // namespace nccl_backend
