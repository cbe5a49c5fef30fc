// SPDX-License-Identifier: Apache-2.0
// Two GPUs in one process: bytes, marks, notifications, refusals, cancellation and loss over NCCL itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "side.hpp"

namespace pegaflow::nccl_test {
namespace {

constexpr std::uint64_t kBytes = 8U << 20;

class NcclPeers : public ::testing::Test {
protected:
    void SetUp() override {
        if (const std::string why = prepare(); !why.empty()) GTEST_SKIP() << why;
    }
    // Moves random ranges both ways and compares both sides with a model. `slot` bytes of room for each.
    static void ranges(Side& here, Side& there, std::uint64_t slot, std::uint64_t unit, std::uint64_t least, int rounds) {
        std::mt19937_64 random(slot + unit);
        auto local = Side::pattern(kBytes, 1);
        auto remote = Side::pattern(kBytes, 2);
        here.write(local);
        there.write(remote);
        const Region imported = here.import(there.descriptor());
        Channel channel = here.connect(there);
        for (int round = 0; round < rounds; ++round) {
            const bool reads = round % 2 == 0;
            std::vector<std::uint64_t> order(kBytes / slot);
            std::iota(order.begin(), order.end(), 0);
            std::shuffle(order.begin(), order.end(), random);
            Transfer transfer;
            transfer.flat(here.region(), imported);
            if (reads) transfer.read();
            std::uint64_t total = 0;
            for (std::uint64_t i = 0; i < order.size(); ++i) {
                const std::uint64_t length = least + random() % ((slot - least) / unit + 1) * unit;
                const std::uint64_t a = order[i] * slot + random() % ((slot - length) / unit + 1) * unit;
                const std::uint64_t b = i * slot + random() % ((slot - length) / unit + 1) * unit;
                transfer.range(a, b, length);
                total += length;
                if (reads) std::memcpy(local.data() + a, remote.data() + b, length);
                if (!reads) std::memcpy(remote.data() + b, local.data() + a, length);
            }
            const auto moved = run(channel, transfer);
            ASSERT_TRUE(moved) << moved.error().message;
            EXPECT_EQ(*moved, total);
            ASSERT_TRUE(here.read() == local) << "here, round " << round;
            ASSERT_TRUE(there.read() == remote) << "there, round " << round;
        }
    }
};

TEST_F(NcclPeers, PackedRangesOfAnySize) {
    Side here(0, kBytes, {{"chunk_bytes", "131072"}});
    Side there(1, kBytes, {{"chunk_bytes", "262144"}});
    ranges(here, there, 8192, 1, 1, 4);
    ranges(here, there, 65536, 16, 16, 4);
}

TEST_F(NcclPeers, LargePagesAreMessagesOfTheirOwn) {
    Side here(0, kBytes, {{"direct_bytes", "65536"}});
    Side there(1, kBytes);
    ranges(here, there, 256U << 10, 16, 65536, 6);
    ranges(here, there, 256U << 10, 8, 8192, 6);  // mixed with small ones
}

TEST_F(NcclPeers, PinnedHostMemoryOnEitherSide) {
    Side host(0, kBytes, {}, PEGA_MEMORY_HOST);
    Side gpu(1, kBytes);
    ranges(host, gpu, 4U << 20, 1, 1, 2);
    ranges(gpu, host, 65536, 8, 8, 2);
}

TEST_F(NcclPeers, BothOpenAChannelAndUseItAtOnce) {
    Side first(0, 2 * kBytes);
    Side second(1, 2 * kBytes);
    first.write(Side::pattern(2 * kBytes, 5));
    second.write(Side::pattern(2 * kBytes, 6));
    const Region of_second = first.import(second.descriptor());
    const Region of_first = second.import(first.descriptor());
    Channel forth = first.connect(second);
    Channel back = second.connect(first);
    Transfer write;
    write.flat(first.region(), of_second).range(0, kBytes, kBytes);
    Transfer push;
    push.flat(second.region(), of_first).range(0, kBytes, kBytes);
    for (int i = 0; i < 10; ++i) {
        auto a = forth.submit_wait(write);
        auto b = back.submit_wait(push);
        ASSERT_TRUE(a && b);
        ASSERT_TRUE(a->wait() && b->wait());
    }
    const auto one = Side::pattern(2 * kBytes, 5);
    const auto two = Side::pattern(2 * kBytes, 6);
    const auto at_first = first.read();
    const auto at_second = second.read();
    EXPECT_TRUE(std::equal(at_second.begin() + kBytes, at_second.end(), one.begin()));
    EXPECT_TRUE(std::equal(at_first.begin() + kBytes, at_first.end(), two.begin()));
}

TEST_F(NcclPeers, LayersAreMarkedInOrder) {
    Side here(0, kBytes);
    Side there(1, kBytes);
    here.write(Side::pattern(kBytes, 3));
    const Region imported = here.import(there.descriptor());
    Channel channel = here.connect(there);
    const std::uint64_t layers = 16;
    const std::uint64_t page = 4096;
    const std::uint64_t count = kBytes / layers / page;
    std::vector<std::uint64_t> index(count);
    std::iota(index.begin(), index.end(), 0);
    auto back = index;
    std::reverse(back.begin(), back.end());
    Transfer transfer;
    transfer.indices(index, back).mark_every(4);
    for (std::uint64_t l = 0; l < layers; ++l) {
        const std::uint64_t base = l * count * page;
        transfer.span({here.region().handle(), imported.handle(), base, page, 0, base, page, 0, page, 1, 0});
    }
    std::vector<std::uint64_t> landed;
    transfer.on_mark([&](std::uint64_t spans) { landed.push_back(spans); });
    ASSERT_TRUE(run(channel, transfer));
    EXPECT_EQ(landed, (std::vector<std::uint64_t>{4, 8, 12, 16}));
    const auto got = there.read();
    const auto sent = Side::pattern(kBytes, 3);
    for (std::uint64_t l = 0; l < layers; ++l) {
        for (std::uint64_t i = 0; i < count; ++i) {
            const std::uint64_t base = l * count * page;
            ASSERT_EQ(std::memcmp(got.data() + base + back[i] * page, sent.data() + base + i * page, page), 0) << l << " " << i;
        }
    }
}

TEST_F(NcclPeers, AValueArrivesOnceAfterTheBytes) {
    Side here(0, kBytes);
    Side there(1, kBytes);
    here.write(Side::pattern(kBytes, 9));
    const Region imported = here.import(there.descriptor());
    Channel channel = here.connect(there);
    Transfer write;
    write.flat(here.region(), imported).range(0, 0, kBytes).notify(77);
    ASSERT_TRUE(run(channel, write));
    ASSERT_TRUE(there.device().wait_notify(77, 1, std::chrono::seconds(10)));
    EXPECT_TRUE(there.read() == Side::pattern(kBytes, 9));
    Transfer read;
    read.read().flat(here.region(), imported).range(0, 0, 4096).notify(78);
    ASSERT_TRUE(run(channel, read));
    EXPECT_TRUE(there.device().wait_notify(78, 1, std::chrono::seconds(10)));
    Transfer nothing;
    nothing.flat(here.region(), imported).notify(79);
    ASSERT_TRUE(run(channel, nothing));
    EXPECT_TRUE(there.device().wait_notify(79, 1, std::chrono::seconds(10)));
    for (const std::uint32_t value : {77U, 78U, 79U})
        EXPECT_FALSE(there.device().wait_notify(value, 1, std::chrono::milliseconds(20))) << "a second " << value;
}

// The owner has the last word: what it no longer has, or lets nobody write, is refused, and no value tells otherwise.
TEST_F(NcclPeers, TheOwnerRefuses) {
    Side here(0, kBytes, {{"chunk_bytes", "65536"}});
    Side there(1, kBytes);
    Side fixed(1, kBytes, {}, PEGA_MEMORY_GPU, PEGA_REGION_READ_ONLY);
    Region gone = *there.device().allocate(PEGA_MEMORY_GPU, kBytes);
    const Region of_gone = here.import(*gone.export_descriptor());
    const Region of_there = here.import(there.descriptor());
    const Region of_fixed = here.import(fixed.descriptor());
    gone = {};
    Channel channel = here.connect(there);
    Transfer lost;
    lost.flat(here.region(), of_gone).range(0, 0, kBytes).notify(5);
    const auto refused = run(channel, lost);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kRegionLost);
    Transfer good;
    good.flat(here.region(), of_there).range(0, 0, kBytes).notify(6);
    ASSERT_TRUE(run(channel, good)) << "the channel goes on after a refusal";
    ASSERT_TRUE(there.device().wait_notify(6, 1, std::chrono::seconds(10)));
    EXPECT_FALSE(there.device().wait_notify(5, 1, std::chrono::milliseconds(20)));
    Channel other = here.connect(fixed);
    Transfer written;
    written.flat(here.region(), of_fixed).range(0, 0, 4096);
    EXPECT_FALSE(run(other, written)) << "a write to what is read only";
    written.read();
    EXPECT_TRUE(run(other, written));
    Transfer crossed;
    crossed.flat(here.region(), of_there).range(0, 0, 4096);
    EXPECT_FALSE(run(other, crossed)) << "a region of another device than the channel's";
}

TEST_F(NcclPeers, CancelledBatchesEndOnceAndTheNextGoesOn) {
    Side here(0, 64U << 20, {{"chunk_bytes", "262144"}});
    Side there(1, 64U << 20);
    const Region imported = here.import(there.descriptor());
    Channel channel = here.connect(there);
    int ended = 0;
    for (int i = 0; i < 8; ++i) {
        Transfer transfer;
        std::atomic<int> ends{0};
        transfer.flat(here.region(), imported).notify(3).on_done([&](const pega_completion&) { ++ends; });
        for (std::uint64_t at = 0; at < 1024; ++at) transfer.range(at * 65536, (1023 - at) * 65536, 60000);
        auto done = channel.submit_wait(transfer);
        ASSERT_TRUE(done);
        std::this_thread::sleep_for(std::chrono::milliseconds(i));
        (void)channel.cancel(transfer);
        const auto moved = done->wait_for(std::chrono::seconds(20));
        EXPECT_EQ(ends, 1);
        EXPECT_TRUE(moved || moved.error().code == Code::kCanceled) << moved.error().message;
        ended += moved ? 1 : 0;
    }
    const auto values = static_cast<std::uint64_t>(ended);
    EXPECT_TRUE(values == 0 || there.device().wait_notify(3, values, std::chrono::seconds(10)));
    EXPECT_FALSE(there.device().wait_notify(3, 1, std::chrono::milliseconds(20))) << "a value of a cancelled batch";
    Transfer last;
    last.flat(here.region(), imported).range(0, 0, 1U << 20);
    EXPECT_TRUE(run(channel, last));
}

TEST_F(NcclPeers, AClosedPeerIsLost) {
    Side here(0, kBytes);
    auto there = std::make_unique<Side>(1, kBytes);
    const Region imported = here.import(there->descriptor());
    Channel channel = here.connect(*there);
    Transfer transfer;
    transfer.flat(here.region(), imported).range(0, 0, kBytes);
    ASSERT_TRUE(run(channel, transfer));
    there.reset();
    for (int i = 0; i < 500 && channel.state() == PEGA_OK; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(channel.state(), PEGA_PEER_LOST);
    const auto refused = run(channel, transfer);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kPeerLost);
}

TEST_F(NcclPeers, NobodyThereIsLostAndOneGpuIsRefused) {
    Side here(0, kBytes, {{"timeout_ms", "500"}});
    auto there = std::make_unique<Side>(1, kBytes);
    const auto address = there->address();
    const Region imported = here.import(there->descriptor());
    there.reset();
    auto channel = here.device().open_channel(address);
    if (channel) {
        Transfer transfer;
        transfer.flat(here.region(), imported).range(0, 0, kBytes);
        const auto refused = run(*channel, transfer);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Code::kPeerLost);
    }
    Side same(0, kBytes);
    const auto unsupported = here.device().open_channel(same.address());
    ASSERT_FALSE(unsupported);
    EXPECT_EQ(unsupported.error().code, Code::kUnsupported);
}

}  // namespace
}  // namespace pegaflow::nccl_test
