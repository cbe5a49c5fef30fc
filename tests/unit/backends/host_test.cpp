// SPDX-License-Identifier: Apache-2.0
// The host back end: it computes the digests that it is asked for, whatever the shape of the pages and however many threads.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "pegaflow/digest.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

class HostTest : public ::testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        FabricOptions options{.backends = {"host"}};
        options.options["host"]["threads"] = GetParam();
        auto opened = Fabric::open(std::move(options));
        ASSERT_TRUE(opened) << opened.error().message;
        fabric = std::move(*opened);
        device = *fabric->device("host:0");
        auto open = device->open_channel();
        ASSERT_TRUE(open) << open.error().message;
        channel = std::move(*open);
    }

    Region memory(std::uint64_t bytes) const {
        auto region = device->allocate(PEGA_MEMORY_HOST, bytes);
        EXPECT_TRUE(region);
        std::mt19937_64 random(bytes);
        auto* at = static_cast<std::uint8_t*>(region->address());
        for (std::uint64_t i = 0; i < bytes; ++i) at[i] = static_cast<std::uint8_t>(random());
        return std::move(*region);
    }
    void run(Transfer& transfer) {
        auto done = channel.submit_wait(transfer);
        ASSERT_TRUE(done) << done.error().message;
        ASSERT_TRUE(done->wait());
    }

    std::unique_ptr<Fabric> fabric;
    Device* device = nullptr;
    Channel channel;
};

TEST_P(HostTest, ComputesTheDigestsOfWholePages) {
    constexpr std::uint64_t kPages = 6;
    for (const std::uint64_t fragment : {8U, 200U, 1024U, 65536U, 1'600'000U}) {
        constexpr std::uint64_t kLayers = 2;
        const Region local = memory(fragment * kPages * kLayers);
        const Region remote = memory(fragment * kPages * kLayers);
        std::vector<std::uint64_t> from(kPages), to(kPages);
        for (std::uint64_t i = 0; i < kPages; ++i) {
            from[i] = kPages - 1 - i;
            to[i] = (i * 5 + 2) % kPages;
        }
        for (const bool write : {true, false}) {
            Transfer transfer;
            transfer.indices(from, to).digests();
            write ? transfer.write() : transfer.read();
            for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
                transfer.span({local.handle(), remote.handle(), layer * kPages * fragment, fragment, 0, layer * fragment,
                               kLayers * fragment, 0, fragment, 1, 0});
            }
            run(transfer);
            const auto sums = transfer.digest_sums();
            ASSERT_EQ(sums.size(), kPages) << fragment;
            for (std::uint64_t i = 0; i < kPages; ++i) {
                const std::uint64_t page = kLayers * fragment;
                const auto* at = static_cast<const std::uint8_t*>(remote.address()) + to[i] * page;
                EXPECT_EQ(sums[i], digest_part(at, page)) << fragment << " page " << i;
            }
        }
    }
}

TEST_P(HostTest, ComputesNothingThatNobodyAskedFor) {
    const Region local = memory(4096);
    const Region remote = memory(4096);
    const std::vector<std::uint64_t> zero = {0};
    Transfer transfer;
    transfer.write().indices(zero, zero).span({local.handle(), remote.handle(), 0, 4096, 0, 0, 4096, 0, 4096, 1, 0});
    run(transfer);
    EXPECT_TRUE(transfer.digest_sums().empty());
    transfer.digests();
    run(transfer);
    EXPECT_EQ(transfer.digest_sums().size(), 1U);
    transfer.clear().write().indices(zero, zero).digests();
    transfer.span({local.handle(), remote.handle(), 0, 4096, 0, 0, 4096, 0, 4095, 1, 0});
    run(transfer);
    EXPECT_TRUE(transfer.digest_sums().empty()) << "a length that is no multiple of 8";
}

// Pages that overlap what they come from move as memmove does, and have the digest of what moved.
TEST_P(HostTest, AMoveWithinOneRegionKeepsItsBytes) {
    constexpr std::uint64_t kBytes = 200'000, kBy = 4096;
    const Region region = memory(kBytes + kBy);
    auto* at = static_cast<std::uint8_t*>(region.address());
    const std::vector<std::uint8_t> before(at, at + kBytes);
    const std::vector<std::uint64_t> zero = {0};
    Transfer transfer;
    transfer.write().indices(zero, zero).digests();
    transfer.span({region.handle(), region.handle(), 0, 0, 0, kBy, 0, 0, kBytes, 1, 0});
    run(transfer);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), at + kBy));
    ASSERT_EQ(transfer.digest_sums().size(), 1U);
    EXPECT_EQ(transfer.digest_sums()[0], digest_part(before.data(), kBytes, kBy));
}

INSTANTIATE_TEST_SUITE_P(Threads, HostTest, ::testing::Values("1", "4"),
                         [](const auto& threads) { return std::string("of_") + threads.param; });

}  // namespace
}  // namespace pegaflow
