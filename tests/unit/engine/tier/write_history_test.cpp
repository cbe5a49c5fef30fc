// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/write_history.hpp"

namespace pegaflow::engine::tier {
namespace {

FoundSegment segment(std::uint64_t sequence, std::uint64_t seconds, std::uint64_t before, std::uint64_t data_end,
                     std::uint64_t closing = 0) {
    FoundSegment out;
    out.kind = closing != 0 ? FoundSegment::Kind::kSealed : FoundSegment::Kind::kOpen;
    out.header.sequence = sequence;
    out.header.created_seconds = seconds;
    out.header.written_before = before;
    out.data_end = data_end;
    out.closing_bytes = closing;
    return out;
}

TEST(WriteHistoryTest, ANewContainerHasNone) {
    WriteHistory history;
    history.add(FoundSegment{});
    EXPECT_EQ(history.lifetime_bytes(), 0U);
    EXPECT_TRUE(history.written(100).empty());
    EXPECT_TRUE(history.whole());
}

// The header of the second segment was written when 600 bytes of the first were on the device.
TEST(WriteHistoryTest, WhatASegmentGotAfterTheNextOneWasBegunCounts) {
    WriteHistory history;
    history.add(segment(2, 200, 600, 300));
    history.add(segment(1, 100, 0, 900, 100));
    EXPECT_EQ(history.lifetime_bytes(), 1300U);
    EXPECT_TRUE(history.whole());
    const auto written = history.written(1000);
    ASSERT_EQ(written.size(), 3U);
    EXPECT_EQ(written[1].seconds, 200U);
    EXPECT_EQ(written[1].bytes, 600U);
    EXPECT_EQ(written[2].seconds, 1000U);
    EXPECT_EQ(written[2].bytes, 700U);
}

TEST(WriteHistoryTest, WhatWasOverwrittenIsKnownByItsSumAndClocksMayBeWrong) {
    WriteHistory history;
    history.add(segment(8, 5000, 70'000, 100));
    history.add(segment(7, 9000, 60'000, 100, 10));
    EXPECT_FALSE(history.whole());
    EXPECT_EQ(history.lifetime_bytes(), 70'100U);
    const auto written = history.written(6000);
    ASSERT_EQ(written.size(), 3U);
    EXPECT_EQ(written[0].bytes, 0U);
    EXPECT_EQ(written[0].seconds, 6000U) << "not in the future";
    EXPECT_EQ(written[1].seconds, 6000U) << "nor before what came before it";
    EXPECT_EQ(written[1].bytes, 10'000U);
}

}  // namespace
}  // namespace pegaflow::engine::tier
