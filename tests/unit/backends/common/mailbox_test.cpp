// SPDX-License-Identifier: Apache-2.0
#include "common/mailbox.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace backend_common {
namespace {

bool readable(const Mailbox& box) {
    pollfd waiting{box.wait_fd(), POLLIN, 0};
    return ::poll(&waiting, 1, 0) == 1;
}

TEST(Mailbox, ValuesToItselfAreCounted) {
    Mailbox box;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    Peer self;
    ASSERT_EQ(box.connect(box.address(), self), PEGA_OK);
    EXPECT_EQ(box.consume(5, 1), PEGA_RETRY);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(box.send(self, 5), PEGA_OK);
    EXPECT_EQ(box.count(5), 3U);
    EXPECT_EQ(box.consume(5, 4), PEGA_RETRY);
    EXPECT_EQ(box.consume(5, 3), PEGA_OK);
    EXPECT_EQ(box.consume(5, 0), PEGA_OK);
    EXPECT_EQ(box.count(5), 0U);
    box.disconnect(self);
}

TEST(Mailbox, ValuesOfAPeerArriveWhenPolled) {
    Mailbox here;
    Mailbox there;
    ASSERT_EQ(here.open("TESTBOX1"), PEGA_OK);
    ASSERT_EQ(there.open("TESTBOX1"), PEGA_OK);
    EXPECT_FALSE(readable(there));
    Peer peer;
    ASSERT_EQ(here.connect(there.address(), peer), PEGA_OK);
    for (std::uint32_t value = 0; value < 100; ++value) ASSERT_EQ(here.send(peer, value % 10), PEGA_OK);
    EXPECT_TRUE(readable(there));
    there.poll();  // the connection
    there.poll();  // what it brought
    EXPECT_FALSE(readable(there));
    EXPECT_EQ(there.connected(), 1U);
    for (std::uint32_t value = 0; value < 10; ++value) EXPECT_EQ(there.count(value), 10U);
    here.disconnect(peer);
    there.poll();
    EXPECT_EQ(there.connected(), 0U);
    EXPECT_EQ(there.count(3), 10U) << "what a peer sent stays when it goes";
}

TEST(Mailbox, AValueInPiecesIsOneValue) {
    Mailbox here;
    Mailbox there;
    ASSERT_EQ(here.open("TESTBOX1"), PEGA_OK);
    ASSERT_EQ(there.open("TESTBOX1"), PEGA_OK);
    Peer peer;
    ASSERT_EQ(here.connect(there.address(), peer), PEGA_OK);
    there.poll();
    const std::uint32_t value = 0x01020304;
    const auto* bytes = reinterpret_cast<const char*>(&value);
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(there.count(value), 0U);
        ASSERT_EQ(::send(peer.fd, bytes + i, 1, 0), 1);
        there.poll();
    }
    EXPECT_EQ(there.count(value), 1U);
    here.disconnect(peer);
}

TEST(Mailbox, ALostPeerIsSeenBySendingAndByPolling) {
    Mailbox here;
    ASSERT_EQ(here.open("TESTBOX1"), PEGA_OK);
    Peer sends;
    Peer waits;
    {
        Mailbox there;
        ASSERT_EQ(there.open("TESTBOX1"), PEGA_OK);
        ASSERT_EQ(here.connect(there.address(), sends), PEGA_OK);
        ASSERT_EQ(here.connect(there.address(), waits), PEGA_OK);
        there.poll();
        here.poll();
        EXPECT_FALSE(waits.lost.load());
        EXPECT_FALSE(here.gone(waits));
    }
    EXPECT_TRUE(here.gone(sends));
    EXPECT_TRUE(readable(here));
    here.poll();
    EXPECT_TRUE(waits.lost.load());
    EXPECT_FALSE(readable(here)) << "a loss is told once";
    EXPECT_EQ(here.send(sends, 1), PEGA_PEER_LOST);
    here.disconnect(sends);
    here.disconnect(waits);
}

TEST(Mailbox, AFullSocketAsksToTryAgain) {
    Mailbox here;
    Mailbox there;
    ASSERT_EQ(here.open("TESTBOX1"), PEGA_OK);
    ASSERT_EQ(there.open("TESTBOX1"), PEGA_OK);
    Peer peer;
    ASSERT_EQ(here.connect(there.address(), peer), PEGA_OK);
    std::uint64_t sent = 0;
    while (here.send(peer, 1) == PEGA_OK) ++sent;
    EXPECT_EQ(here.send(peer, 1), PEGA_RETRY);
    there.poll();
    there.poll();
    EXPECT_EQ(there.count(1), sent);
    EXPECT_EQ(here.send(peer, 1), PEGA_OK);
    here.disconnect(peer);
}

TEST(Mailbox, AddressesOfOthersAreRefused) {
    Mailbox box;
    Mailbox other;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    ASSERT_EQ(other.open("OTHERBOX"), PEGA_OK);
    Peer peer;
    EXPECT_EQ(box.connect(other.address(), peer), PEGA_CORRUPT);
    EXPECT_EQ(box.connect({}, peer), PEGA_CORRUPT);
    EXPECT_EQ(box.connect(std::vector<std::uint8_t>(500, 'x'), peer), PEGA_CORRUPT);
    auto nobody = box.address();
    nobody.back() ^= 1;
    EXPECT_EQ(box.connect(nobody, peer), PEGA_PEER_LOST);
    EXPECT_EQ(peer.fd, -1);
}

// As a process that knows no mailbox would connect.
int stranger(const Mailbox& box) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un there{};
    there.sun_family = AF_UNIX;
    const std::span name = std::span(box.address()).subspan(8);
    std::memcpy(there.sun_path + 1, name.data(), name.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&there), length), 0);
    return fd;
}

TEST(Mailbox, AFloodTakesNoMoreThanItsTurn) {
    Mailbox box;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    const int flooder = stranger(box);
    const std::vector<std::uint32_t> flood(16 << 10, 7);
    const ssize_t sent = ::send(flooder, flood.data(), flood.size() * sizeof flood[0], MSG_DONTWAIT);
    ASSERT_GT(sent, 8192);
    box.poll();
    box.poll();
    EXPECT_GT(box.count(7), 0U);
    EXPECT_LE(box.count(7), 1024U) << "one turn";
    for (int i = 0; i < 100 && readable(box); ++i) box.poll();
    EXPECT_EQ(box.count(7), static_cast<std::uint64_t>(sent) / sizeof flood[0]) << "and loses nothing";
    ::close(flooder);
}

TEST(Mailbox, APeerThatBringsTooManyValuesIsCutOff) {
    Mailbox box;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    Peer self;
    ASSERT_EQ(box.connect(box.address(), self), PEGA_OK);
    for (std::uint32_t value = 0; value < Mailbox::kMostValues; ++value) ASSERT_EQ(box.send(self, value), PEGA_OK);
    EXPECT_EQ(box.send(self, 5), PEGA_OK) << "one that is there";
    EXPECT_EQ(box.send(self, Mailbox::kMostValues), PEGA_NO_MEMORY);
    const int peer = stranger(box);
    box.poll();
    ASSERT_EQ(box.connected(), 1U);
    const std::uint32_t more = Mailbox::kMostValues + 1;
    ASSERT_EQ(::send(peer, &more, sizeof more, 0), static_cast<ssize_t>(sizeof more));
    box.poll();
    EXPECT_EQ(box.connected(), 0U);
    char byte = 0;
    EXPECT_EQ(::recv(peer, &byte, 1, 0), 0) << "the peer is told";
    EXPECT_EQ(box.consume(9, 1), PEGA_OK);
    EXPECT_EQ(box.send(self, Mailbox::kMostValues), PEGA_OK) << "there is room again";
    ::close(peer);
}

TEST(Mailbox, ManyPeersAreTurnedAway) {
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    const rlimit before = limit;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4 * Mailbox::kMostPeers);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 3 * Mailbox::kMostPeers) GTEST_SKIP() << "too few descriptors";
    Mailbox box;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    std::vector<int> peers;
    for (std::size_t i = 0; i < Mailbox::kMostPeers + 3; ++i) {
        peers.push_back(stranger(box));
        box.poll();
    }
    EXPECT_EQ(box.connected(), Mailbox::kMostPeers);
    char byte = 0;
    EXPECT_EQ(::recv(peers.back(), &byte, 1, 0), 0);
    for (const int fd : peers) ::close(fd);
    ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST(Mailbox, WithoutDescriptorsNobodySpinsAndThePeerComesLater) {
    Mailbox box;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    const int peer = stranger(box);
    rlimit limit{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    const rlimit before = limit;
    limit.rlim_cur = static_cast<rlim_t>(peer);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    EXPECT_TRUE(readable(box));
    box.poll();
    EXPECT_EQ(box.connected(), 0U);
    EXPECT_FALSE(readable(box)) << "what cannot be accepted keeps nobody awake";
    ::setrlimit(RLIMIT_NOFILE, &before);
    pollfd waiting{box.wait_fd(), POLLIN, 0};
    for (int i = 0; i < 3 && box.connected() == 0; ++i) {
        ASSERT_EQ(::poll(&waiting, 1, 30'000), 1);
        box.poll();
    }
    EXPECT_EQ(box.connected(), 1U);
    ::close(peer);
}

TEST(Mailbox, ProcessesOfOtherUsersAreNoPeers) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
    constexpr uid_t kNobody = 65534;
    Mailbox box;
    ASSERT_EQ(box.open("TESTBOX1"), PEGA_OK);
    const int same = stranger(box);
    ASSERT_EQ(::seteuid(kNobody), 0);
    const int other = stranger(box);
    ASSERT_EQ(::seteuid(0), 0);
    box.poll();
    box.poll();
    EXPECT_EQ(box.connected(), 1U);
    char byte = 0;
    EXPECT_EQ(::recv(other, &byte, 1, 0), 0);
    EXPECT_EQ(::recv(same, &byte, 1, MSG_DONTWAIT), -1) << "stays";
    ::close(same);
    ::close(other);
}

}  // namespace
}  // namespace backend_common
