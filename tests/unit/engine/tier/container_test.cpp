// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/container.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

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
    void put(FakeDevice& device) const {
        encode(device.superblock, std::span(device.durable).first(kBlockBytes));
        encode(device.superblock, std::span(device.durable).subspan(kSuperblockCopyAt, kBlockBytes));
        fs::create_directories(path_);
        std::ofstream(file(), std::ios::binary)
            .write(reinterpret_cast<const char*>(device.durable.data()), static_cast<std::streamsize>(device.durable.size()));
    }
    void flip(std::uint64_t at, unsigned bit = 2) const {
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        data.seekg(static_cast<std::streamoff>(at));
        const int old = data.get();
        data.seekp(static_cast<std::streamoff>(at));
        data.put(static_cast<char>(old ^ (1U << bit)));
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
    set_version(block, 1);
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
    flip(40);
    flip(8);
    EXPECT_TRUE(open()) << "no other version: bits of the number have changed";
    EXPECT_EQ(check_container(path_)->problems.size(), 1U);
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

TEST_F(ContainerTest, MoreSegmentsThanThereAreIsRefused) {
    Superblock superblock = (*open())->superblock();
    superblock.segment_count = std::uint64_t{1} << 31;
    std::vector<std::byte> block(kBlockBytes);
    encode(superblock, block);
    {
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        data.write(reinterpret_cast<const char*>(block.data()), kBlockBytes);
    }
    EXPECT_EQ(Container::open_read_only(path_).error().code, Code::kCorrupt);
    EXPECT_EQ(check_container(path_).error().code, Code::kCorrupt);
    EXPECT_EQ((*open())->superblock().segment_count, 7U) << "a server goes by its capacity";
}

TEST_F(ContainerTest, APipeKeepsNobody) {
    fs::create_directories(path_);
    ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
    EXPECT_EQ(open().error().code, Code::kInvalid);
    EXPECT_EQ(check_container(path_).error().code, Code::kInvalid);
}

// The offline check looks whether a server has the lock by having it for a moment.
TEST_F(ContainerTest, AMomentaryLockIsWaitedFor) {
    ASSERT_TRUE(open());
    const int other = ::open(file().c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(::flock(other, LOCK_SH), 0);
    std::thread unlock([other] {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        ::close(other);
    });
    EXPECT_TRUE(open());
    unlock.join();
}

// A trailer that is wholly lost looks like a segment that was not full yet, but not for long.
TEST_F(ContainerTest, ASegmentWithoutATableIsReportedWhenManyWereBegunAfterIt) {
    FakeHost host(4 << 20);
    FakeDevice device(small_superblock(20), host);
    {
        Bench bench(device, host, {.linger = std::chrono::seconds(10)});  // extents are full
        bench.write(0, 1400);
    }
    device.flush([](const Result<void>& result) { EXPECT_TRUE(result); });
    put(device);
    EXPECT_TRUE(check_container(path_)->problems.empty());
    for (const auto& [slot, problems] : {std::pair<std::uint64_t, std::size_t>{0, 1}, {12, 0}}) {
        std::vector<std::byte> lost(kBlockBytes);
        std::swap_ranges(lost.begin(), lost.end(), &device.durable[device.superblock.segment_at(slot + 1) - kBlockBytes]);
        put(device);
        EXPECT_EQ(check_container(path_)->problems.size(), problems) << slot;
        std::swap_ranges(lost.begin(), lost.end(), &device.durable[device.superblock.segment_at(slot + 1) - kBlockBytes]);
    }
}

class FlippedBitTest : public ContainerTest {
protected:
    FlippedBitTest() : host_(4 << 20), device_(small_superblock(4), host_) {
        {
            Bench bench(device_, host_);
            bench.write(0, 110);
            for (std::uint64_t i = 110; i < 114; ++i) bench.write(i, 1);  // an extent each
        }
        put(device_);
    }
    std::size_t problems_with(std::uint64_t at, unsigned bit) {
        flip(at, bit);
        const auto report = check_container(path_, {.threads = 1});
        flip(at, bit);
        EXPECT_TRUE(report);
        return report ? report->problems.size() : 0;
    }
    // Flips a bit of every `step`th byte from `from` on.
    void expect_found(std::uint64_t from, std::uint64_t length, std::uint64_t step, const char* where) {
        for (std::uint64_t i = 0; i < length; i += step)
            EXPECT_NE(problems_with(from + i, i / step % 8), 0U) << where << ": byte " << i << " of what begins at " << from;
    }
    // Where the first extents of a segment lie in the file, and how long they are.
    std::vector<std::pair<std::uint64_t, std::uint64_t>> extents(std::uint64_t slot) {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> out;
        const std::uint64_t base = device_.superblock.segment_at(slot);
        const auto found = scan_segment(device_.reader(), device_.superblock, slot);
        for (std::uint64_t at = kBlockBytes; at < found->data_end && out.size() < 6;) {
            const auto header =
                decode_extent_header(std::span(device_.durable).subspan(base + at, kBlockBytes), kMinSegmentBytes);
            const std::uint64_t length = header->descriptor_bytes + header->payload_bytes;
            out.emplace_back(base + at, length);
            at += length;
        }
        return out;
    }

    FakeHost host_;
    FakeDevice device_;
};

TEST_F(FlippedBitTest, OfAnythingThatIsUsedIsFoundByTheCheck) {
    const auto clean = check_container(path_);
    ASSERT_TRUE(clean) << clean.error().message;
    ASSERT_TRUE(clean->problems.empty()) << clean->problems.front();
    EXPECT_EQ(clean->blocks, 114U);
    EXPECT_EQ(clean->sealed_segments, 1U);
    EXPECT_EQ(clean->open_segments, 1U);
    EXPECT_EQ(clean->pages_read, 228U);
    expect_found(0, kBlockBytes, 131, "superblock");
    expect_found(kSuperblockCopyAt, kBlockBytes, 131, "its copy");
    for (const std::uint64_t slot : {0, 1}) {
        expect_found(device_.superblock.segment_at(slot), 64, 1, "segment header");
        expect_found(device_.superblock.segment_at(slot), kBlockBytes, 131, "segment header");
        for (const auto& [at, length] : extents(slot)) {
            expect_found(at, kExtentHeaderBytes, 1, "extent");
            expect_found(at + kExtentHeaderBytes, std::min(length, 8 * kBlockBytes) - kExtentHeaderBytes, 1511,
                         "table and pages of an extent");
        }
    }
    EXPECT_GE(extents(1).size(), 4U);
    const std::uint64_t trailer = device_.superblock.segment_at(1) - kBlockBytes;
    const auto table_at = load_le<std::uint64_t>(&device_.durable[trailer + 24]);
    const auto table_bytes = load_le<std::uint64_t>(&device_.durable[trailer + 32]);
    expect_found(device_.superblock.segment_at(0) + table_at, table_bytes, 97, "table");
    expect_found(trailer, 64, 1, "trailer");
    expect_found(trailer, kBlockBytes, 131, "trailer");
    EXPECT_TRUE(check_container(path_)->problems.empty()) << "all of them are as they were";
}

TEST_F(FlippedBitTest, OfWhatIsNotUsedIsNoProblem) {
    const std::uint64_t open = device_.superblock.segment_at(1);
    const auto end = scan_segment(device_.reader(), device_.superblock, 1)->data_end;
    for (const std::uint64_t at :
         {std::uint64_t{3} * kBlockBytes, kSegmentsAt - 1, open + end + 100, open + kMinSegmentBytes - 9})
        EXPECT_EQ(problems_with(at, 3), 0U) << at;
}

}  // namespace
}  // namespace pegaflow::engine::tier
