// SPDX-License-Identifier: Apache-2.0
// The nvme back end on real files: stripes, sizes that are no multiple of anything, files that shrink.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/wait.h"
#include "pegaflow/transfer.hpp"
#include "tests/unit/backends/nvme/test_file.hpp"

namespace pegaflow {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kMiB = 1 << 20;

using nvme_test::noise;
using nvme_test::TestFile;

class NvmeTest : public ::testing::Test {
protected:
    void start(std::map<std::string, std::string> options = {}) {
        FabricOptions fabric_options{.backends = {"nvme"}};
        fabric_options.options["nvme"] = std::move(options);
        auto opened = Fabric::open(std::move(fabric_options));
        if (!opened) GTEST_SKIP() << opened.error().message;
        fabric = std::move(*opened);
        auto found = fabric->device("nvme:0");
        ASSERT_TRUE(found) << found.error().message;
        device = *found;
        auto open = device->open_channel();
        ASSERT_TRUE(open) << open.error().message;
        channel = std::move(*open);
    }

    Result<Region> file(const std::vector<std::string>& paths, std::uint64_t length, std::uint64_t offset = 0,
                        std::uint32_t flags = 0) {
        std::string handle;
        for (const std::string& path : paths) handle += (handle.empty() ? "" : std::string(1, '\0')) + path;
        pega_memory memory{};
        memory.size = sizeof memory;
        memory.kind = PEGA_MEMORY_FILE;
        memory.source = PEGA_SOURCE_PATH;
        memory.flags = flags;
        memory.length = length;
        memory.offset = offset;
        memory.handle = handle.data();
        memory.handle_length = handle.size();
        return device->register_memory(memory);
    }

    Result<std::uint64_t> run(Transfer& transfer) {
        PEGA_ASSIGN(const Completion done, channel.submit_wait(transfer));
        return done.wait();
    }

    std::unique_ptr<Fabric> fabric;
    Device* device = nullptr;
    Channel channel;
};

#define PEGA_START(...)                \
    do {                               \
        start(__VA_ARGS__);            \
        if (device == nullptr) return; \
    } while (false)

TEST_F(NvmeTest, HostMemoryIsWrittenToAFileAndReadBack) {
    PEGA_START();
    const TestFile target(std::vector<std::uint8_t>(4 * kMiB));
    auto region = file({target.path}, 4 * kMiB);
    auto memory = device->allocate(PEGA_MEMORY_HOST, 4 * kMiB);
    ASSERT_TRUE(region && memory);
    const auto data = noise(4 * kMiB, 1);
    std::memcpy(memory->address(), data.data(), data.size());
    Transfer transfer;
    transfer.flat(*memory, *region).range(0, 0, 4 * kMiB).durable();
    ASSERT_EQ(run(transfer).value_or(0), 4 * kMiB);
    EXPECT_EQ(target.bytes(), data);
    std::memset(memory->address(), 0, data.size());
    transfer.clear().read().flat(*memory, *region).range(0, 0, 4 * kMiB);
    ASSERT_EQ(run(transfer).value_or(0), 4 * kMiB);
    EXPECT_EQ(std::memcmp(memory->address(), data.data(), data.size()), 0);
}

TEST_F(NvmeTest, SeveralPathsAreStripedInTurns) {
    PEGA_START({{"stripe_bytes", "64K"}});
    constexpr std::uint64_t kStripe = 64 << 10;
    constexpr std::uint64_t kLength = 7 * kStripe + 5000;  // the third file gets two whole turns, the second one the rest
    const TestFile a(std::vector<std::uint8_t>(3 * kStripe + 4096));
    const TestFile b(std::vector<std::uint8_t>(3 * kStripe + 4096));
    const TestFile c(std::vector<std::uint8_t>(2 * kStripe + 4096));
    auto region = file({a.path, b.path, c.path}, kLength, 4096);
    ASSERT_TRUE(region) << region.error().message;
    EXPECT_EQ(region->length(), kLength);
    const auto data = noise(kLength, 2);
    auto memory = device->register_address(const_cast<std::uint8_t*>(data.data()), kLength);
    ASSERT_TRUE(memory);
    Transfer transfer;
    transfer.flat(*memory, *region).range(0, 0, kLength);
    ASSERT_EQ(run(transfer).value_or(0), kLength);
    const std::vector<std::uint8_t> parts[] = {a.bytes(), b.bytes(), c.bytes()};
    for (std::uint64_t i = 0; i < kLength; ++i) {
        const std::uint64_t turn = i / kStripe;
        ASSERT_EQ(parts[turn % 3][4096 + turn / 3 * kStripe + i % kStripe], data[i]) << "byte " << i;
    }
    EXPECT_FALSE(file({a.path, b.path, c.path}, kLength + 3 * kStripe, 4096)) << "longer than the files";
}

TEST_F(NvmeTest, UnalignedWritesThatShareABlockLoseNothing) {
    PEGA_START();
    constexpr std::uint64_t kPiece = 100;
    constexpr std::uint64_t kCount = 500;
    const TestFile target(noise(64 << 10, 3));
    auto expected = target.bytes();
    auto region = file({target.path}, 64 << 10);
    const auto data = noise(kPiece * kCount, 4);
    auto memory = device->register_address(const_cast<std::uint8_t*>(data.data()), data.size());
    ASSERT_TRUE(region && memory);
    // One batch a piece, all at once, in an order that leaves no neighbours to merge.
    std::vector<std::uint64_t> order(kCount);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(5));
    std::vector<Transfer> transfers(kCount);
    std::vector<Completion> completions;
    for (std::uint64_t i = 0; i < kCount; ++i) {
        transfers[i].flat(*memory, *region).range(order[i] * kPiece, 7 + order[i] * kPiece, kPiece);
        auto submitted = channel.submit_wait(transfers[i]);
        ASSERT_TRUE(submitted) << submitted.error().message;
        completions.push_back(*submitted);
    }
    for (auto& completion : completions) EXPECT_EQ(completion.wait().value_or(0), kPiece);
    std::copy(data.begin(), data.end(), expected.begin() + 7);
    EXPECT_EQ(target.bytes(), expected);
}

TEST_F(NvmeTest, AFileOfOddSizeKeepsIt) {
    PEGA_START();
    const TestFile target(noise(10'000, 6));
    auto expected = target.bytes();
    auto region = file({target.path}, 10'000);
    auto memory = device->allocate(PEGA_MEMORY_HOST, 10'000);
    ASSERT_TRUE(region && memory);
    Transfer transfer;
    transfer.read().flat(*memory, *region).range(0, 0, 10'000);
    ASSERT_EQ(run(transfer).value_or(0), 10'000U);
    EXPECT_EQ(std::memcmp(memory->address(), expected.data(), expected.size()), 0);
    const auto data = noise(3000, 7);
    std::memcpy(memory->address(), data.data(), data.size());
    transfer.clear().flat(*memory, *region).range(0, 7000, 3000);
    ASSERT_EQ(run(transfer).value_or(0), 3000U);
    std::copy(data.begin(), data.end(), expected.begin() + 7000);
    EXPECT_EQ(target.bytes(), expected);
}

TEST_F(NvmeTest, AFileThatShrankIsALostRegion) {
    PEGA_START();
    const TestFile target(noise(kMiB, 8));
    auto region = file({target.path}, kMiB);
    auto memory = device->allocate(PEGA_MEMORY_HOST, kMiB);
    ASSERT_TRUE(region && memory);
    ASSERT_EQ(::truncate(target.path.c_str(), 300'000), 0);
    Transfer transfer;
    transfer.read().flat(*memory, *region).range(0, 0, kMiB);
    const auto read = run(transfer);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Code::kRegionLost) << read.error().message;
    transfer.clear().read().flat(*memory, *region).range(0, 0, 200'000);
    EXPECT_EQ(run(transfer).value_or(0), 200'000U) << "what is still there can be read";
}

TEST_F(NvmeTest, RegionsAreRefusedWithTheReason) {
    PEGA_START();
    const TestFile target(noise(4096, 9));
    const auto missing = file({target.path + ".not"}, 4096);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, Code::kRegionLost);
    const auto longer = file({target.path}, 8192);
    ASSERT_FALSE(longer);
    EXPECT_EQ(longer.error().code, Code::kRegionLost);
    EXPECT_FALSE(file({target.path}, 4096, UINT64_MAX - 100));
    EXPECT_FALSE(file({"/dev/zero"}, 4096));
    EXPECT_FALSE(file({"/var/tmp"}, 4096));
    auto memory = device->allocate(PEGA_MEMORY_HOST, 4096);
    auto other = device->allocate(PEGA_MEMORY_HOST, 4096);
    auto frozen = file({target.path}, 4096, 0, PEGA_REGION_READ_ONLY);
    ASSERT_TRUE(memory && other && frozen);
    Transfer transfer;
    transfer.flat(*memory, *frozen).range(0, 0, 4096);
    EXPECT_EQ(run(transfer).error().code, Code::kInvalid) << "a write to a region that is read only";
    transfer.clear().read().flat(*memory, *frozen).range(0, 0, 4096);
    EXPECT_EQ(run(transfer).value_or(0), 4096U);
    transfer.clear().flat(*memory, *other).range(0, 0, 4096);
    EXPECT_EQ(run(transfer).error().code, Code::kInvalid) << "memory to memory";
    EXPECT_EQ(memory->flush().error().code, Code::kInvalid);
    EXPECT_EQ(frozen->discard(0, 4096).error().code, Code::kInvalid);
}

TEST_F(NvmeTest, WrongOptionsAreRefusedByName) {
    for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{{"depth", "0"},
                                                                                     {"depth", "many"},
                                                                                     {"io_bytes", "5000"},
                                                                                     {"ring", "square"},
                                                                                     {"poll", "1"},
                                                                                     {"dept", "4"},
                                                                                     {"handles", "65"}}) {
        FabricOptions options{.backends = {"nvme"}};
        options.options["nvme"] = {{key, value}};
        const auto opened = Fabric::open(std::move(options));
        ASSERT_FALSE(opened) << key;
        EXPECT_THAT(opened.error().message, HasSubstr("option " + key));
    }
}

TEST_F(NvmeTest, HandlesMoveSideBySide) {
    PEGA_START({{"handles", "3"}});
    ASSERT_EQ(fabric->devices().size(), 3U);
    const TestFile target(std::vector<std::uint8_t>(3 * kMiB));
    const auto data = noise(3 * kMiB, 10);
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 3; ++i) {
        threads.emplace_back([&, i] {
            Device* const own = *fabric->device("nvme:" + std::to_string(i));
            pega_memory memory{};
            memory.size = sizeof memory;
            memory.kind = PEGA_MEMORY_FILE;
            memory.source = PEGA_SOURCE_PATH;
            memory.length = 3 * kMiB;
            memory.handle = target.path.data();
            memory.handle_length = target.path.size();
            auto region = own->register_memory(memory);
            auto host = own->register_address(const_cast<std::uint8_t*>(data.data()), data.size());
            auto path = own->open_channel();
            ASSERT_TRUE(region && host && path);
            Transfer transfer;
            for (std::uint64_t at = i * kMiB; at < (i + 1) * kMiB; at += 8192) transfer.range(at, at, 8192);
            transfer.flat(*host, *region);
            auto done = path->submit_wait(transfer);
            ASSERT_TRUE(done);
            EXPECT_EQ(done->wait().value_or(0), kMiB);
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(target.bytes(), data);
}

TEST_F(NvmeTest, FileTablesFollowRegionsThatComeAndGo) {
    PEGA_START();
    auto memory = device->allocate(PEGA_MEMORY_HOST, kMiB);
    ASSERT_TRUE(memory);
    for (std::uint64_t round = 0; round < 40; ++round) {
        const auto data = noise(kMiB, 100 + round);
        const TestFile target(data);
        auto region = file({target.path}, kMiB);
        auto again = file({target.path}, kMiB / 2, kMiB / 2);
        ASSERT_TRUE(region && again);
        Transfer transfer;
        transfer.read().flat(*memory, *again).range(0, 0, kMiB / 2);
        ASSERT_EQ(run(transfer).value_or(0), kMiB / 2);
        ASSERT_EQ(std::memcmp(memory->address(), data.data() + kMiB / 2, kMiB / 2), 0) << "round " << round;
        *again = Region();
        transfer.clear().read().flat(*memory, *region).range(0, 0, kMiB);
        ASSERT_EQ(run(transfer).value_or(0), kMiB);
        ASSERT_EQ(std::memcmp(memory->address(), data.data(), kMiB), 0) << "round " << round;
    }
}

TEST_F(NvmeTest, WhatIsGivenBackReadsAsZeros) {
    PEGA_START();
    const TestFile target(noise(kMiB, 11));
    auto region = file({target.path}, kMiB);
    ASSERT_TRUE(region);
    auto expected = target.bytes();
    const auto given = region->discard(kMiB / 4, kMiB / 2);
    if (!given && given.error().code == Code::kUnsupported) GTEST_SKIP() << given.error().message;
    ASSERT_TRUE(given) << given.error().message;
    std::fill(expected.begin() + kMiB / 4, expected.begin() + kMiB / 4 * 3, std::uint8_t{0});
    EXPECT_EQ(target.bytes(), expected);
    EXPECT_TRUE(region->flush());
}

// Else a write, or the flush that makes it last, would wait as long as somebody reads.
TEST_F(NvmeTest, UrgentReadsLeaveOperationsForBulkWrites) {
    PEGA_START({{"depth", "16"}});
    constexpr std::uint64_t kPage = 4096, kPages = 1024, kReads = 2000, kWrites = 3;
    const TestFile target(noise(kPages * kPage, 13));
    auto region = file({target.path}, kPages * kPage);
    auto memory = device->allocate(PEGA_MEMORY_HOST, kPages * kPage);
    auto writer = device->open_channel();
    ASSERT_TRUE(region && memory && writer);
    std::atomic<bool> written{false};
    std::thread reader([&] {
        std::array<Transfer, 2> reads;
        for (Transfer& batch : reads) {
            batch.read().flat(*memory, *region).priority(2);
            for (std::uint64_t i = 0; i < kReads; ++i) {
                const std::uint64_t page = 2 * (i * 7919 % (kPages / 2));  // no neighbours, and none of those that are written
                batch.range(page * kPage, page * kPage, kPage);
            }
        }
        // Reads wait all the time: of two batches one is always behind the other. They end by themselves if no write ever does.
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        auto ahead = channel.submit_wait(reads[0]);
        for (std::size_t next = 1; !written && std::chrono::steady_clock::now() < give_up; next = 1 - next) {
            auto behind = channel.submit_wait(reads[next]);
            ASSERT_TRUE(ahead && behind);
            EXPECT_EQ(ahead->wait().value_or(0), kReads * kPage);
            ahead = std::move(behind);
        }
        EXPECT_EQ(ahead->wait().value_or(0), kReads * kPage);
        EXPECT_TRUE(written) << "no write came between the reads";
    });
    Transfer write;
    for (std::uint64_t i = 0; i < kWrites; ++i) {
        write.clear().flat(*memory, *region).range((2 * i + 1) * kPage, (2 * i + 1) * kPage, kPage);
        if (i % 2 == 0) write.durable();
        const auto writing = writer->submit_wait(write);
        EXPECT_TRUE(writing && writing->wait().value_or(0) == kPage);
    }
    written = true;
    reader.join();
}

// Vectors longer than one request takes, and a region that is larger than what fits between two completions.
TEST_F(NvmeTest, ManyMemoryPiecesOfOneFileRange) {
    PEGA_START({{"depth", "4"}});
    constexpr std::uint64_t kPiece = 512;
    constexpr std::uint64_t kCount = 4000;
    const TestFile target(std::vector<std::uint8_t>(kPiece * kCount));
    auto region = file({target.path}, kPiece * kCount);
    auto memory = device->allocate(PEGA_MEMORY_HOST, 2 * kPiece * kCount);
    ASSERT_TRUE(region && memory);
    const auto data = noise(2 * kPiece * kCount, 12);
    std::memcpy(memory->address(), data.data(), data.size());
    Transfer transfer;
    transfer.flat(*memory, *region);
    for (std::uint64_t i = 0; i < kCount; ++i) transfer.range(2 * i * kPiece, i * kPiece, kPiece);
    ASSERT_EQ(run(transfer).value_or(0), kPiece * kCount);
    const auto written = target.bytes();
    for (std::uint64_t i = 0; i < kCount; ++i)
        ASSERT_EQ(std::memcmp(written.data() + i * kPiece, data.data() + 2 * i * kPiece, kPiece), 0) << "piece " << i;
}

}  // namespace
}  // namespace pegaflow
