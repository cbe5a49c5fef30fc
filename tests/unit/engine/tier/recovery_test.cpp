// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/recovery.hpp"

#include "engine/tier/wire.hpp"
#include "tests/unit/engine/tier/fake_device.hpp"

namespace pegaflow::engine::tier {
namespace {

class RecoveryTest : public ::testing::Test {
protected:
    RecoveryTest() : host_(8 << 20), device_(small_superblock(4), host_) {
        Bench bench(device_, host_);
        bench.write(0, 120);  // a sealed segment and an open one
    }
    FoundSegment scan(std::uint64_t slot, const ScanOptions& options = {}) {
        auto found = scan_segment(device_.reader(), device_.superblock, slot, options);
        EXPECT_TRUE(found);
        return std::move(*found);
    }
    std::byte& byte(std::uint64_t slot, std::uint64_t at) { return device_.durable[device_.superblock.segment_at(slot) + at]; }

    FakeHost host_;
    FakeDevice device_;
};

TEST_F(RecoveryTest, TellsSealedOpenAndEmptySegmentsApart) {
    EXPECT_EQ(scan(0).kind, FoundSegment::Kind::kSealed);
    EXPECT_EQ(scan(1).kind, FoundSegment::Kind::kOpen);
    EXPECT_EQ(scan(2).kind, FoundSegment::Kind::kEmpty);
    EXPECT_EQ(scan(0).records.size() + scan(1).records.size(), 120U);
    for (std::uint64_t slot = 0; slot < 4; ++slot) EXPECT_TRUE(scan(slot).problems.empty());
}

TEST_F(RecoveryTest, TableAndExtentsOfASealedSegmentAgree) {
    const auto by_table = scan(0);
    const auto walked = scan(0, {.walk_sealed = true});
    EXPECT_TRUE(walked.problems.empty()) << walked.problems.front();
    EXPECT_EQ(walked.records.size(), by_table.records.size());
    byte(0, kMinSegmentBytes - 100) ^= std::byte{1};  // in the trailer
    const auto by_extents = scan(0);
    EXPECT_EQ(by_extents.kind, FoundSegment::Kind::kOpen);
    EXPECT_EQ(by_extents.problems.size(), 1U);
    ASSERT_EQ(by_extents.records.size(), by_table.records.size()) << "a damaged trailer loses nothing";
    for (std::size_t i = 0; i < by_table.records.size(); ++i) {
        EXPECT_EQ(by_extents.records[i].hash, by_table.records[i].hash);
        EXPECT_EQ(by_extents.records[i].offset, by_table.records[i].offset);
    }
}

TEST_F(RecoveryTest, ADamagedTableIsReplacedByTheExtents) {
    const std::uint64_t table = load_le<std::uint64_t>(&byte(0, kMinSegmentBytes - kBlockBytes + 24));
    byte(0, table + 20) ^= std::byte{0x10};
    const auto found = scan(0);
    EXPECT_FALSE(found.problems.empty());
    EXPECT_EQ(found.records.size() + scan(1).records.size(), 120U);
}

TEST_F(RecoveryTest, ATornPageOfAnOpenSegmentIsDropped) {
    const auto before = scan(1);
    byte(1, before.records[3].offset + 5000) ^= std::byte{1};
    const auto found = scan(1);
    EXPECT_EQ(found.dropped_records, 1U);
    EXPECT_EQ(found.records.size(), before.records.size() - 1);
    EXPECT_EQ(found.data_end, before.data_end) << "what comes behind it is still there";
}

TEST_F(RecoveryTest, LeftoversOfAnEarlierUseAreNotTakenForTheLog) {
    // The same slot begun anew: header of a later sequence, old extents behind it.
    SegmentHeader header;
    header.container = device_.superblock.container;
    header.slot = 0;
    header.sequence = 99;
    encode(header, std::span(&byte(0, 0), kBlockBytes));
    const auto found = scan(0);
    EXPECT_EQ(found.kind, FoundSegment::Kind::kOpen);
    EXPECT_EQ(found.records.size(), 0U);
    EXPECT_EQ(found.data_end, kBlockBytes);
}

TEST_F(RecoveryTest, ASegmentWithAnythingOfAnotherVersionIsLeftAlone) {
    const std::vector<std::byte> whole = device_.durable;
    const auto first = load_le<std::uint32_t>(&byte(1, kBlockBytes + 12));
    const struct {
        const char* what;
        std::uint64_t slot, at, length;
    } places[] = {{"header", 0, 0, kBlockBytes},
                  {"trailer", 0, kMinSegmentBytes - kBlockBytes, kBlockBytes},
                  {"extent of the segment that would go on", 1, kBlockBytes, first}};
    for (const auto& [what, slot, at, length] : places) {
        for (const std::uint32_t version : {kFormatVersion - 1, kFormatVersion + 1}) {
            device_.durable = whole;
            set_version({&byte(slot, at), length}, version);
            const std::vector<std::byte> before(&byte(slot, 0), &byte(slot, 0) + kMinSegmentBytes);
            const auto found = scan(slot);
            EXPECT_EQ(found.kind, FoundSegment::Kind::kForeign) << what;
            EXPECT_EQ(found.problems.size(), 1U) << what;
            EXPECT_TRUE(found.records.empty()) << what;
            Bench bench(device_, host_);
            EXPECT_EQ(bench.catalog.usage(bench.container).foreign_segments, 1U) << what;
            bench.write(1000, 400);
            bench.stop();
            EXPECT_TRUE(std::equal(before.begin(), before.end(), &byte(slot, 0))) << what << ": it is never written";
        }
    }
}

// The newest of all: what is begun while nobody knows of it comes after it all the same.
TEST_F(RecoveryTest, ASegmentThatCannotBeReadIsLeftAloneAndItsSequenceIsNotUsedAgain) {
    device_.unreadable_at = device_.superblock.segment_at(1);
    device_.unreadable_times = 2;
    const std::vector<std::byte> before(&byte(1, 0), &byte(1, 0) + kMinSegmentBytes);
    {
        Bench bench(device_, host_);
        EXPECT_EQ(bench.catalog.usage(bench.container).foreign_segments, 1U);
        bench.write(1000, 400);
        for (std::uint64_t i = 1380; i < 1400; ++i) EXPECT_TRUE(bench.right(i)) << i;
    }
    EXPECT_TRUE(std::equal(before.begin(), before.end(), &byte(1, 0)));
    std::set<std::uint64_t> sequences;
    for (std::uint64_t slot = 0; slot < 4; ++slot) sequences.insert(scan(slot).header.sequence);
    EXPECT_EQ(sequences.size(), 4U);
    Bench again(device_, host_);
    EXPECT_EQ(again.catalog.usage(again.container).foreign_segments, 0U);
    again.write(2000, 400);
    for (std::uint64_t i = 2380; i < 2400; ++i) EXPECT_TRUE(again.right(i)) << i;
}

TEST_F(RecoveryTest, ASegmentThatCanBeReadTheSecondTimeIsAsGoodAsAnother) {
    device_.unreadable_at = device_.superblock.segment_at(1);
    device_.unreadable_times = 1;
    Bench bench(device_, host_);
    EXPECT_EQ(bench.catalog.blocks(), 120U);
}

TEST_F(RecoveryTest, AVersionOfWhichABitHasChangedIsDamageAndTheSegmentDoesNotGoOn) {
    byte(1, kBlockBytes + 8) ^= std::byte{1};
    const auto found = scan(1);
    EXPECT_EQ(found.kind, FoundSegment::Kind::kOpen);
    EXPECT_TRUE(found.damaged);
    EXPECT_EQ(found.problems.size(), 1U);
    Bench bench(device_, host_);
    bench.write(500, 1);
    EXPECT_TRUE(bench.right(500));
    bench.stop();
    device_.flush([](const Result<void>& result) { EXPECT_TRUE(result); });
    EXPECT_EQ(scan(2).kind, FoundSegment::Kind::kOpen) << "another one was begun";
}

// Some of the last extents may lack the one before them after a power cut, but not more than are written at one time.
TEST(RecoveryLogTest, AGapWithManyExtentsBehindItIsDamage) {
    for (const std::uint64_t behind : {kMostExtentsUnstored - 1, kMostExtentsUnstored}) {
        FakeHost host(8 << 20);
        FakeDevice device(small_superblock(4), host);
        {
            Bench bench(device, host);
            for (std::uint64_t i = 0; i < 2 + behind; ++i) bench.write(i, 1);
        }
        device.flush([](const Result<void>& result) { EXPECT_TRUE(result); });
        const std::uint64_t second = device.superblock.segment_at(0) + 2 * kBlockBytes + 12'288;
        std::fill_n(&device.durable[second], kBlockBytes, std::byte{0});
        const auto found = scan_segment(device.reader(), device.superblock, 0, {.walk_sealed = true});
        ASSERT_TRUE(found);
        EXPECT_EQ(found->records.size(), 1U);
        EXPECT_EQ(found->problems.empty(), behind < kMostExtentsUnstored);
    }
}

TEST_F(RecoveryTest, AFlippedBitAnywhereNeverBringsAWrongBlock) {
    const std::vector<std::byte> whole = device_.durable;
    std::mt19937_64 random(5);
#if defined(__SANITIZE_THREAD__)
    constexpr int kRounds = 40;  // one thread does all of it
#else
    constexpr int kRounds = 400;
#endif
    for (int round = 0; round < kRounds; ++round) {
        device_.durable = whole;
        const std::uint64_t at = device_.superblock.segment_at(0) + random() % (2 * kMinSegmentBytes);
        device_.durable[at] ^= std::byte{1} << (random() % 8);
        Bench bench(device_, host_);
        std::uint64_t wrong = 0, missing = 0;
        for (std::uint64_t i = 0; i < 120; ++i) {
            if (!bench.has(i)) {
                ++missing;
            } else if (!bench.right(i)) {
                ++wrong;  // its digest says so: the reader drops it
            }
        }
        EXPECT_LE(wrong, 1U);
        if (wrong == 1) {
            EXPECT_EQ(missing, 0U);
        }
    }
}

// What a container says of sizes is not believed further than they can be: nothing of that size is read or kept.
TEST(RecoveryHostileTest, SizesThatCannotBeAreNotRead) {
    Superblock superblock = small_superblock(1);
    superblock.segment_bytes = kMaxSegmentBytes;
    std::map<std::uint64_t, std::vector<std::byte>> blocks;  // the others are zero
    SegmentHeader header;
    header.container = superblock.container;
    header.sequence = 1;
    encode(header, blocks.try_emplace(0, kBlockBytes).first->second);
    ExtentHeader extent;
    extent.sequence = 1;
    extent.chain = closing_digest(blocks[0]);
    extent.table_bytes = 3'000'000'000;
    extent.descriptor_bytes = static_cast<std::uint32_t>(descriptor_bytes(extent.table_bytes));
    std::vector<std::byte>& start = blocks.try_emplace(kBlockBytes, kBlockBytes).first->second;
    ExtentHeader small = extent;
    small.table_bytes = 8;
    small.descriptor_bytes = kBlockBytes;
    encode_extent(small, {}, start);
    store_le(&start[12], extent.descriptor_bytes);
    store_le(&start[40], extent.table_bytes);
    SegmentTrailer trailer;
    trailer.sequence = 1;
    trailer.data_end = trailer.table_at = 2 * kBlockBytes;
    trailer.table_bytes = 3'000'000'000;
    encode(trailer, blocks.try_emplace(kMaxSegmentBytes - kBlockBytes, kBlockBytes).first->second);
    std::size_t most = 0;
    const ReadBytes read = [&](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
        most = std::max(most, out.size());
        std::ranges::fill(out, std::byte{0});
        for (const auto& [at, bytes] : blocks) {
            const std::uint64_t place = kSegmentsAt + at;
            if (place >= offset && place + kBlockBytes <= offset + out.size())
                std::ranges::copy(bytes, out.begin() + static_cast<std::ptrdiff_t>(place - offset));
        }
        return {};
    };
    const auto found = scan_segment(read, superblock, 0);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->problems.size(), 2U);
    EXPECT_TRUE(found->damaged);
    EXPECT_LE(most, 1U << 20);
}

}  // namespace
}  // namespace pegaflow::engine::tier
