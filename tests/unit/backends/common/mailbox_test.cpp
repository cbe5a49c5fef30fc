// SPDX-License-Identifier: Apache-2.0
#include "common/mailbox.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>

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

}  // namespace
}  // namespace backend_common
