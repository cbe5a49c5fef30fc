// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/format.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "engine/tier/wire.hpp"

namespace pegaflow::engine::tier {
namespace {

std::vector<Record> some_records() {
    return {{"ns", "fp", 0, "hash-a", 8192, {{kBlockBytes - 8, 0x1111111122222222}, {kBlockBytes + 8, 0x2222222233333333}}},
            {"ns", "fp", 1, "hash-b", 8192 + 3 * kBlockBytes, {{64, 0x33333333}}},
            {"other", "fp", 0, "hash-a", 8192 + 4 * kBlockBytes, {{4 * kBlockBytes, 0xfedcba9876543210}}}};
}

TEST(FormatTest, NumbersAreLittleEndianWhateverTheMachine) {
    std::byte bytes[8];
    store_le<std::uint32_t>(bytes, 0x01020304);
    EXPECT_EQ(std::to_integer<int>(bytes[0]), 4);
    EXPECT_EQ(std::to_integer<int>(bytes[3]), 1);
    EXPECT_EQ(load_le<std::uint32_t>(bytes), 0x01020304U);
    store_le<std::uint64_t>(bytes, 0xfedcba9876543210);
    EXPECT_EQ(std::to_integer<int>(bytes[7]), 0xfe);
    EXPECT_EQ(load_le<std::uint64_t>(bytes), 0xfedcba9876543210U);
}

TEST(FormatTest, TheSuperblockHasItsDocumentedBytes) {
    Superblock from;
    from.container.fill(std::byte{0xAB});
    from.segment_bytes = 64 << 20;
    from.segment_count = 7;
    from.created_seconds = 0x1122334455;
    std::vector<std::byte> block(kBlockBytes);
    encode(from, block);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(block.data()), 8), "PEGATIER");
    EXPECT_EQ(load_le<std::uint32_t>(&block[8]), 2U);
    EXPECT_EQ(load_le<std::uint32_t>(&block[12]), 4096U);
    EXPECT_EQ(block[16], std::byte{0xAB});
    EXPECT_EQ(load_le<std::uint64_t>(&block[32]), 64U << 20);
    EXPECT_EQ(load_le<std::uint64_t>(&block[40]), 1U << 20);
    EXPECT_EQ(load_le<std::uint64_t>(&block[48]), 7U);
    const auto back = decode_superblock(block);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->container, from.container);
    EXPECT_EQ(back->segment_count, 7U);
    EXPECT_EQ(back->created_seconds, from.created_seconds);
    EXPECT_EQ(back->segment_at(2), (1U << 20) + 2 * (64U << 20));
}

TEST(FormatTest, EveryFlippedBitOfABlockIsNoticed) {
    Superblock super;
    super.segment_bytes = kMinSegmentBytes;
    std::vector<std::byte> block(kBlockBytes);
    encode(super, block);
    for (std::size_t bit = 0; bit < kBlockBytes * 8; bit += 37) {
        block[bit / 8] ^= std::byte{1} << (bit % 8);
        EXPECT_FALSE(decode_superblock(block)) << bit;
        block[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    EXPECT_TRUE(decode_superblock(block));
}

TEST(FormatTest, AnotherVersionIsToldApartFromDamage) {
    std::vector<std::byte> block(kBlockBytes);
    encode(SegmentHeader{}, block);
    EXPECT_EQ(decode_superblock(block).error().code, Code::kNotFound);
    store_le<std::uint32_t>(&block[8], 1);
    EXPECT_EQ(decode_segment_header(block).error().code, Code::kCorrupt) << "the checksum is that of the known version";
    store_le(&block[kBlockBytes - 4], base::crc32c(block.data(), kBlockBytes - 4));
    EXPECT_EQ(decode_segment_header(block).error().code, Code::kUnsupported);
    encode(SegmentHeader{}, block);
    block[3] ^= std::byte{16};
    EXPECT_EQ(decode_segment_header(block).error().code, Code::kCorrupt) << "one bit of the magic";
    block[3] ^= std::byte{16};
    block[100] ^= std::byte{1};
    EXPECT_EQ(decode_segment_header(block).error().code, Code::kCorrupt);
}

TEST(FormatTest, HeaderAndTrailerComeBack) {
    std::vector<std::byte> block(kBlockBytes);
    SegmentHeader header;
    header.sequence = 42;
    header.slot = 3;
    header.written_before = 1ULL << 50;
    encode(header, block);
    EXPECT_EQ(decode_segment_header(block)->sequence, 42U);
    EXPECT_EQ(decode_segment_header(block)->written_before, 1ULL << 50);
    const SegmentTrailer trailer{42, 1 << 20, 1234, 0xdeadbeef, 17, 1 << 19, 0xcafe};
    encode(trailer, block);
    const auto back = decode_segment_trailer(block);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->table_at, 1U << 20);
    EXPECT_EQ(back->table_digest, 0xdeadbeefU);
    EXPECT_EQ(back->extents, 17U);
    EXPECT_EQ(back->chain, 0xcafeU);
}

TEST(FormatTest, ATableComesBackWithEveryFieldOfEveryRecord) {
    const auto records = some_records();
    std::vector<std::byte> table(table_bytes(records));
    encode_table(records, table);
    const auto back = decode_table(table, 4096, 1 << 20);
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_EQ(back->size(), records.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
        EXPECT_EQ((*back)[i].name_space, records[i].name_space);
        EXPECT_EQ((*back)[i].fingerprint, records[i].fingerprint);
        EXPECT_EQ((*back)[i].group, records[i].group);
        EXPECT_EQ((*back)[i].hash, records[i].hash);
        EXPECT_EQ((*back)[i].offset, records[i].offset);
        ASSERT_EQ((*back)[i].pages.size(), records[i].pages.size());
        EXPECT_EQ((*back)[i].pages[0].digest, records[i].pages[0].digest);
        EXPECT_EQ((*back)[i].bytes(), records[i].bytes());
    }
}

TEST(FormatTest, APageHasItsDocumentedBytes) {
    const std::vector<Record> records = {{"ns", "fp", 0, "hash", 8192, {{4096 + 64, 0xfedcba9876543210}}}};
    std::vector<std::byte> table(table_bytes(records));
    encode_table(records, table);
    const std::size_t page = table.size() - 12;
    EXPECT_EQ(load_le<std::uint32_t>(&table[page]), 4096U + 64);
    EXPECT_EQ(load_le<std::uint64_t>(&table[page + 4]), 0xfedcba9876543210U);
    const auto back = decode_table(table, 4096, 1 << 20);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ((*back)[0].bytes(), 8192U) << "it takes up whole blocks";
    for (const std::uint32_t impossible : {0U, 4095U, UINT32_MAX}) {
        store_le(&table[page], impossible);
        EXPECT_FALSE(decode_table(table, 4096, 1 << 20)) << impossible;
    }
}

TEST(FormatTest, ATableThatIsCutOrReachesOutsideIsRefused) {
    const auto records = some_records();
    std::vector<std::byte> table(table_bytes(records));
    encode_table(records, table);
    for (std::size_t length = 0; length < table.size(); ++length)
        EXPECT_FALSE(decode_table(std::span(table).first(length), 0, 1 << 20)) << length;
    EXPECT_FALSE(decode_table(table, 0, records[2].offset + records[2].bytes() - 1)) << "the last page ends behind the end";
    EXPECT_FALSE(decode_table(table, records[0].offset + 1, 1 << 20)) << "the first page begins before the start";
    EXPECT_TRUE(decode_table(table, records[0].offset, records[2].offset + records[2].bytes()));
}

TEST(FormatTest, GarbageIsRefusedAndNothingElseHappens) {
    std::uint64_t state = 7;
    std::vector<std::byte> bytes(512);
    for (int round = 0; round < 2000; ++round) {
        for (std::byte& b : bytes) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            b = static_cast<std::byte>(state >> 56);
        }
        // Small counts, so that the decoder gets beyond the first check.
        store_le<std::uint32_t>(bytes.data(), static_cast<std::uint32_t>(state % 3));
        const auto table = decode_table(bytes, 0, 1 << 20);
        if (table) {
            EXPECT_LE(table->size(), bytes.size() / 14);
        }
        EXPECT_FALSE(decode_extent_header(bytes, 1 << 20));
    }
}

TEST(FormatTest, AnExtentIsCheckedAsAWhole) {
    auto records = some_records();
    ExtentHeader header;
    header.table_bytes = static_cast<std::uint32_t>(table_bytes(records));
    header.descriptor_bytes = static_cast<std::uint32_t>(descriptor_bytes(header.table_bytes));
    header.sequence = 9;
    header.number = 2;
    header.chain = 77;
    header.payload_bytes = 8 * kBlockBytes;
    ASSERT_EQ(header.descriptor_bytes, kBlockBytes);
    std::vector<std::byte> descriptor(header.descriptor_bytes);
    encode_extent(header, records, descriptor);
    const auto back = decode_extent_header(descriptor, 1 << 20);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->chain, 77U);
    EXPECT_EQ(back->number, 2U);
    EXPECT_FALSE(decode_extent_header(descriptor, 4 * kBlockBytes)) << "more than there is room for";
    const auto inside = decode_extent(*back, descriptor, 4096);
    ASSERT_TRUE(inside) << inside.error().message;
    EXPECT_EQ(inside->size(), 3U);
    for (std::size_t byte = 0; byte < descriptor.size(); byte += 13) {
        descriptor[byte] ^= std::byte{0x40};
        const auto again = decode_extent_header(descriptor, 1 << 20);
        EXPECT_FALSE(again && decode_extent(*again, descriptor, 4096)) << byte;
        descriptor[byte] ^= std::byte{0x40};
    }
}

}  // namespace
}  // namespace pegaflow::engine::tier
