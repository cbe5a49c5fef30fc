// SPDX-License-Identifier: Apache-2.0
// mailbox.hpp - notifications between the processes of one host: values of 32 bits, counted at the device that they arrive at.
//
// A value is four bytes on a stream socket in the abstract namespace: nothing is left on disk, none is lost, and a peer's death
// is seen at once. A mailbox belongs to one device; its peers are the channels of that device. Only processes of the same user,
// and those of root, can be peers; what one of them can take of this process is bounded, whatever it sends.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "pegaflow/abi/ext/notify.h"

namespace backend_common {

// Where a channel's values go: another process, or, unless it was connected, the device itself.
struct Peer {
    int fd = -1;
    std::atomic<bool> lost{false};
};

class Mailbox {
public:
    static constexpr std::size_t kMostPeers = 1024;       // that have connected; more are turned away
    static constexpr std::size_t kMostValues = 1U << 20;  // different ones that nobody has consumed

    Mailbox() = default;
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;
    ~Mailbox();

    // Starts listening. `kind`, eight characters, begins the address: only back ends of one kind are peers. OK, NO_MEMORY.
    pega_status open(const char* kind);
    // A descriptor that is readable when `poll` has something to do, or when what `watch` added is readable.
    int wait_fd() const noexcept { return epoll_fd_; }
    // Adds a descriptor that its owner reads. [any]
    bool watch(int fd) noexcept;

    // The bytes with which a peer connects. [any]
    const std::vector<std::uint8_t>& address() const noexcept { return address_; }
    // Connects to the mailbox with this address, or to itself. OK, CORRUPT, PEER_LOST, RETRY (its queue is full), NO_MEMORY.
    // `peer` stays where it is until `disconnect`. [any]
    pega_status connect(std::span<const std::uint8_t> address, Peer& peer);
    void disconnect(Peer& peer) noexcept;

    // OK, RETRY (no room in the socket now), PEER_LOST, or NO_MEMORY (to itself: kMostValues). [data]
    pega_status send(Peer& peer, std::uint32_t value);
    // Whether the peer is gone, asked of its socket; `peer.lost` then says so too. [any]
    bool gone(Peer& peer) noexcept;
    // Accepts peers, counts what they sent, some of it a call, and notes which are gone. A peer that brings more than
    // kMostValues is dropped: its own side finds it lost, and no value goes missing unseen. [serial]
    void poll();

    // As in pega_ext_notify. [any]
    std::uint64_t count(std::uint32_t value);
    pega_status consume(std::uint32_t value, std::uint64_t wanted);
    // Peers that have connected to this mailbox and are still there. [serial], with poll
    std::size_t connected() const noexcept { return partial_.size(); }

private:
    bool count_arrival(std::uint32_t value);  // false when there is no room for it
    void accept();
    void rest(bool resting) noexcept;
    void read(int fd);
    void drop(int fd);

    int epoll_fd_ = -1;
    int listen_fd_ = -1;
    int rest_fd_ = -1;  // a timer: readable when peers can be accepted again
    std::vector<std::uint8_t> address_;
    std::unordered_map<int, std::vector<std::uint8_t>> partial_;  // accepted sockets, and bytes of a value that came in pieces

    std::mutex mutex_;
    std::vector<Peer*> peers_;                                  // connected by us; guarded by mutex_
    std::unordered_map<std::uint32_t, std::uint64_t> arrived_;  // guarded by mutex_
};

// The notify extension of devices whose mailbox is the member `kMember`.
template <auto kMember>
constexpr pega_ext_notify notify_table() {
    return {sizeof(pega_ext_notify), 0,
            [](pega_device* device, std::uint32_t value) { return (device->*kMember).count(value); },
            [](pega_device* device, std::uint32_t value, std::uint64_t wanted) {
                return (device->*kMember).consume(value, wanted);
            }};
}

}  // namespace backend_common
