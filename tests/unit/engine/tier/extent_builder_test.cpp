// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/extent_builder.hpp"

#include <fmt/format.h>

#include <deque>

namespace pegaflow::engine::tier {
namespace {

const ExtentBuilder::Limits kLimits = {kMinSegmentBytes, 64 << 10, 1 << 20, 1 << 20};

class ExtentBuilderTest : public ::testing::Test {
protected:
    Record record(std::uint32_t blocks) {
        names_.push_back(fmt::format("name-{}", names_.size()));
        return {"ns", "fp", 0, names_.back(), 0, {{static_cast<std::uint32_t>(blocks * kBlockBytes), 1}}};
    }
    std::deque<std::string> names_;
    std::vector<std::byte> memory_ = std::vector<std::byte>(1 << 20);
};

TEST_F(ExtentBuilderTest, ExtentsFollowEachOtherWithoutGaps) {
    ExtentBuilder builder(kLimits, 5, 77);
    std::uint64_t at = kBlockBytes;
    for (std::uint32_t i = 0; i < 3; ++i) {
        builder.add(record(2));
        builder.add(record(3));
        const auto extent = builder.finish(memory_);
        EXPECT_EQ(extent.at, at);
        EXPECT_EQ(extent.payload_bytes, 5 * kBlockBytes);
        EXPECT_EQ(extent.records[0].offset, at + extent.descriptor_bytes);
        EXPECT_EQ(extent.records[1].offset, extent.records[0].offset + 2 * kBlockBytes);
        const auto header = decode_extent_header(memory_, kMinSegmentBytes);
        ASSERT_TRUE(header);
        EXPECT_EQ(header->number, i);
        EXPECT_EQ(header->sequence, 5U);
        if (i == 0) {
            EXPECT_EQ(header->chain, 77U);
        }
        at += extent.descriptor_bytes + extent.payload_bytes;
    }
    EXPECT_EQ(builder.data_end(), at);
}

TEST_F(ExtentBuilderTest, WhatFitsLeavesRoomForTheClosingTable) {
    ExtentBuilder builder(kLimits, 1, 0);
    std::vector<Record> all;
    for (bool full = false; !full;) {
        while (true) {
            Record next = record(1);
            if (!builder.fits(next)) {
                full = builder.empty();
                break;
            }
            builder.add(std::move(next));
        }
        if (full) break;
        const auto extent = builder.finish(memory_);
        EXPECT_LE(extent.payload_bytes, kLimits.extent_payload);
        all.insert(all.end(), extent.records.begin(), extent.records.end());
    }
    const std::uint64_t used = builder.close(all, memory_);
    EXPECT_LE(builder.data_end() + used, kMinSegmentBytes);
    EXPECT_GT(builder.data_end() + used + 4 * kBlockBytes, kMinSegmentBytes) << "and wastes little";
    const auto trailer = decode_segment_trailer(std::span(memory_).subspan(used - kBlockBytes, kBlockBytes));
    ASSERT_TRUE(trailer);
    EXPECT_EQ(trailer->table_at, kMinSegmentBytes - used);
    const auto back = decode_table(std::span(memory_).first(trailer->table_bytes), kBlockBytes, trailer->data_end);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->size(), all.size());
}

TEST_F(ExtentBuilderTest, ALargeRecordHasAnExtentOfItsOwn) {
    ExtentBuilder builder(kLimits, 1, 0);
    const Record large = record(32);
    EXPECT_TRUE(builder.fits(large));
    builder.add(record(1));
    EXPECT_FALSE(builder.fits(large));
    builder.finish(memory_);
    EXPECT_TRUE(builder.fits(large));
    EXPECT_FALSE(builder.fits(record(256)));
}

}  // namespace
}  // namespace pegaflow::engine::tier
