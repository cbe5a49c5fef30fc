// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/container.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/crc32c.hpp"
#include "engine/tier/checker.hpp"
#include "engine/tier/wire.hpp"
#include "tests/unit/engine/tier/fake_device.hpp"

namespace pegaflow::engine::tier {
namespace {

namespace fs = std::filesystem;

class ContainerTest : public ::testing::Test {
protected:
    ContainerTest() : path_(fmt::format("{}/pegaflow_container_{}", ::testing::TempDir(), ::getpid())) {}
    ~ContainerTest() override {
        std::error_code error;
        fs::remove_all(path_, error);
    }
    Result<std::unique_ptr<Container>> open(std::uint64_t capacity = 8 << 20) {
        return Container::open(path_, capacity, kMinSegmentBytes);
    }
    std::string file() const { return path_ + "/" + kContainerFile; }
    void flip(std::uint64_t at) const {
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        data.seekg(static_cast<std::streamoff>(at));
        const int old = data.get();
        data.seekp(static_cast<std::streamoff>(at));
        data.put(static_cast<char>(old ^ 4));
    }
    std::string path_;
};

TEST_F(ContainerTest, IsMadeOnceAndRecognisedAfterwards) {
    Uuid identity;
    {
        const auto made = open();
        ASSERT_TRUE(made) << made.error().message;
        identity = (*made)->superblock().container;
        EXPECT_EQ((*made)->superblock().segment_count, 7U);
        EXPECT_EQ(fs::file_size(file()), (*made)->superblock().total_bytes());
        EXPECT_EQ(open().error().code, Code::kNotReady) << "one at a time";
    }
    const auto again = open();
    ASSERT_TRUE(again);
    EXPECT_EQ((*again)->superblock().container, identity);
    EXPECT_NE(identity, Uuid{});
}

TEST_F(ContainerTest, GrowsAndShrinksWithTheCapacity) {
    ASSERT_TRUE(open());
    EXPECT_EQ((*open(16 << 20))->superblock().segment_count, 15U);
    EXPECT_EQ((*open(5 << 20))->superblock().segment_count, 4U);
    EXPECT_EQ(open(4 << 20).error().code, Code::kNoMemory);
    EXPECT_EQ((*Container::open_read_only(path_))->superblock().segment_count, 4U) << "a refusal changes nothing";
}

// The first version had other digests of pages.
TEST_F(ContainerTest, AnOlderVersionIsReportedAndLeftAsItIs) {
    const auto superblock = (*open())->superblock();
    std::vector<std::byte> block(kBlockBytes);
    encode(superblock, block);
    store_le<std::uint32_t>(&block[8], 1);
    store_le(&block[kBlockBytes - 4], base::crc32c(block.data(), kBlockBytes - 4));
    const auto put = [&](std::uint64_t at) {
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        data.seekp(static_cast<std::streamoff>(at));
        data.write(reinterpret_cast<const char*>(block.data()), kBlockBytes);
    };
    const auto bytes = [&] {
        std::ifstream data(file(), std::ios::binary);
        return std::string(std::istreambuf_iterator<char>(data), {});
    };
    put(0);
    put(kSuperblockCopyAt);
    const std::string before = bytes();
    for (const std::uint64_t capacity : {8U << 20, 16U << 20}) {
        const auto refused = open(capacity);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Code::kUnsupported);
        EXPECT_NE(refused.error().message.find("version 1"), std::string::npos) << refused.error().message;
    }
    EXPECT_EQ(check_container(path_).error().code, Code::kUnsupported);
    EXPECT_TRUE(before == bytes());
}

TEST_F(ContainerTest, ADamagedSuperblockIsReplacedByItsCopyAndTwoAreTooMany) {
    ASSERT_TRUE(open());
    flip(40);
    EXPECT_TRUE(open());
    const auto report = check_container(path_);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->problems.size(), 1U);
    flip(kSuperblockCopyAt + 40);
    const auto refused = open();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_FALSE(check_container(path_));
}

TEST_F(ContainerTest, WhatItDoesNotKnowIsLeftAlone) {
    fs::create_directories(path_);
    {
        std::ofstream(file()) << std::string(100'000, 'x');
    }
    EXPECT_EQ(open().error().code, Code::kInvalid);
    EXPECT_EQ(fs::file_size(file()), 100'000U);
    EXPECT_EQ(Container::open(file(), 8 << 20, kMinSegmentBytes).error().code, Code::kInvalid)
        << "a file is no place for a cache";
    EXPECT_EQ(Container::open_read_only(path_ + "/nowhere").error().code, Code::kNotFound);
}

// What other programs write far from the start counts as well: a block device goes through the same check.
TEST_F(ContainerTest, SignaturesOfOthersAreFoundWhereverTheyKeepThem) {
    constexpr std::uint64_t kLength = std::uint64_t{80} << 20;
    const struct {
        const char* whose;
        std::uint64_t at;
    } places[] = {{"btrfs", 65'536 + 64},
                  {"VMFS", 1 << 20},
                  {"the copy of btrfs", (std::uint64_t{64} << 20) + 64},
                  {"md 0.90", kLength - 65'536},
                  {"ZFS", kLength - (std::uint64_t{512} << 10) + 16'384},
                  {"md 1.0", kLength - 8192},
                  {"GPT", kLength - 512},
                  {"the last byte", kLength - 1}};
    fs::create_directories(path_);
    for (const auto& [whose, at] : places) {
        std::ofstream(file(), std::ios::binary | std::ios::trunc).close();
        fs::resize_file(file(), kLength);
        flip(at);
        const auto refused = open();
        ASSERT_FALSE(refused) << whose;
        EXPECT_EQ(refused.error().code, Code::kInvalid) << whose;
        EXPECT_NE(refused.error().message.find(fmt::format("byte {} is not zero", at)), std::string::npos)
            << refused.error().message;
        EXPECT_NE(refused.error().message.find("wipefs"), std::string::npos) << refused.error().message;
        EXPECT_EQ(fs::file_size(file()), kLength) << whose << " is left as it is";
        flip(at);
    }
    EXPECT_TRUE(open()) << "zeros are nobody's";
}

TEST_F(ContainerTest, AFlippedBitOfAnythingThatIsUsedIsFoundByTheCheck) {
    FakeHost host(4 << 20);
    FakeDevice device(small_superblock(4), host);
    {
        Bench bench(device, host);
        bench.write(0, 110);
    }
    encode(device.superblock, std::span(device.durable).first(kBlockBytes));
    encode(device.superblock, std::span(device.durable).subspan(kSuperblockCopyAt, kBlockBytes));
    fs::create_directories(path_);
    std::ofstream(file(), std::ios::binary)
        .write(reinterpret_cast<const char*>(device.durable.data()), static_cast<std::streamsize>(device.durable.size()));
    const auto clean = check_container(path_);
    ASSERT_TRUE(clean) << clean.error().message;
    ASSERT_TRUE(clean->problems.empty()) << clean->problems.front();
    EXPECT_EQ(clean->blocks, 110U);
    EXPECT_EQ(clean->sealed_segments, 1U);
    EXPECT_EQ(clean->open_segments, 1U);
    EXPECT_EQ(clean->pages_read, 220U);
    const auto sealed = scan_segment(device.reader(), device.superblock, 0);
    ASSERT_TRUE(sealed);
    std::mt19937_64 random(9);
    for (int i = 0; i < 60; ++i) {
        const std::uint64_t at = kSegmentsAt + random() % sealed->data_end;
        flip(at);
        const auto report = check_container(path_, {.threads = 1});
        ASSERT_TRUE(report);
        EXPECT_FALSE(report->problems.empty()) << "flipped at " << at;
        flip(at);
    }
    EXPECT_TRUE(check_container(path_)->problems.empty());
}

}  // namespace
}  // namespace pegaflow::engine::tier
