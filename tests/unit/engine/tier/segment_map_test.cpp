// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/segment_map.hpp"

namespace pegaflow::engine::tier {
namespace {

TEST(SegmentMapTest, SegmentsGoRoundInTheOrderInWhichTheyWereBegun) {
    SegmentMap map(3);
    for (std::uint64_t sequence = 1; sequence <= 3; ++sequence) {
        const auto slot = map.begin(sequence);
        ASSERT_TRUE(slot);
        map.seal(*slot);
    }
    EXPECT_FALSE(map.begin(4));
    EXPECT_EQ(map.oldest(), 0U);
    EXPECT_TRUE(map.release(0));
    EXPECT_EQ(map.oldest(), 1U);
    EXPECT_EQ(map.begin(4), 0U);
    EXPECT_EQ(map.oldest(), 1U) << "an open segment is not given up";
}

TEST(SegmentMapTest, AReaderKeepsASegmentUntilItHasGone) {
    SegmentMap map(1);
    map.begin(1);
    map.seal(0);
    map.pin(0);
    map.pin(0);
    EXPECT_FALSE(map.release(0));
    EXPECT_EQ(map.state(0), SegmentState::kDraining);
    EXPECT_FALSE(map.begin(2));
    EXPECT_FALSE(map.unpin(0));
    EXPECT_TRUE(map.unpin(0));
    EXPECT_EQ(map.begin(2), 0U);
}

TEST(SegmentMapTest, WhatWasFoundAtTheStartIsPutBack) {
    SegmentMap map(4);
    map.restore(2, 9, SegmentState::kSealed);
    map.restore(0, 12, SegmentState::kOpen);
    map.restore(3, 0, SegmentState::kForeign);
    EXPECT_EQ(map.free(), 1U);
    EXPECT_EQ(map.oldest(), 2U);
    EXPECT_EQ(map.begin(13), 1U);
    EXPECT_FALSE(map.begin(14)) << "what belongs to somebody else is never taken";
    map.seal(0);
    EXPECT_EQ(map.sequence(*map.oldest()), 9U);
}

TEST(SegmentMapTest, TwoOfOneSequenceAreBothGivenUpOnce) {
    SegmentMap map(2);
    map.restore(0, 7, SegmentState::kSealed);
    map.restore(1, 7, SegmentState::kSealed);
    EXPECT_EQ(map.oldest(), 0U);
    EXPECT_TRUE(map.release(0));
    EXPECT_EQ(map.oldest(), 1U);
    EXPECT_TRUE(map.release(1));
    EXPECT_FALSE(map.oldest());
    EXPECT_EQ(map.free(), 2U);
}

TEST(SegmentMapTest, SegmentsWithoutSpaceComeBackWhenAsked) {
    SegmentMap map(2);
    map.set_aside(*map.begin(1));
    EXPECT_EQ(map.in_state(SegmentState::kNoSpace), 1U);
    EXPECT_EQ(map.begin(2), 1U);
    EXPECT_FALSE(map.begin(3));
    map.retry_space();
    EXPECT_EQ(map.begin(3), 0U);
}

}  // namespace
}  // namespace pegaflow::engine::tier
