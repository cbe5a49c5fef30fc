// SPDX-License-Identifier: Apache-2.0
#include "engine/read_pace.hpp"

namespace pegaflow::engine {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kFew = 32 << 10, kSmall = 64 << 10, kLarge = 1 << 20;

class ReadPaceTest : public ::testing::Test {
protected:
    // Reads that take `took` land, one every `between`, and are taken at once.
    void land(int count, std::chrono::nanoseconds took, std::chrono::nanoseconds between) {
        for (int i = 0; i < count; ++i) {
            now_ += between;
            land_one(took);
            pace_.taken(kSmall);
            pace_.ended(kSmall);
        }
    }
    void land_one(std::chrono::nanoseconds took, std::uint64_t bytes = kSmall) {
        pace_.started();
        pace_.landed(bytes, now_ - took, now_);
    }

    ReadPace pace_;
    ReadPace::Clock::time_point now_{1h};
};

TEST_F(ReadPaceTest, PreparesManySmallReadsAndFewLargeOnes) {
    EXPECT_TRUE(pace_.short_ahead());
    std::size_t small = 0;
    for (; pace_.room_ahead(); ++small) pace_.prepare(kSmall);
    EXPECT_EQ(small, 16U);
    EXPECT_FALSE(pace_.short_ahead());
    for (int i = 0; i < 8; ++i) pace_.unprepare(kSmall);
    EXPECT_TRUE(pace_.short_ahead()) << "half of them are gone";
    ReadPace large;
    std::size_t count = 0;
    for (; large.room_ahead(); ++count) large.prepare(kLarge);
    EXPECT_EQ(count, 4U);
    large.unprepare(kLarge);
    EXPECT_FALSE(large.short_ahead());
    large.unprepare(kLarge);
    EXPECT_TRUE(large.short_ahead());
}

TEST_F(ReadPaceTest, WithoutReadsAheadTheDeviceWantsForOneWhenThereIsNone) {
    ReadPace pace(0);
    EXPECT_FALSE(pace.room_ahead());
    EXPECT_TRUE(pace.short_ahead());
}

TEST_F(ReadPaceTest, TheLastReadUnderWayIsDueAtOnce) {
    pace_.started();
    land_one(100us);
    EXPECT_FALSE(pace_.due());
    pace_.landed(kSmall, now_ - 100us, now_);
    EXPECT_TRUE(pace_.due());
}

TEST_F(ReadPaceTest, ManyOrLargeReadsAreDueAtOnce) {
    pace_.started();
    for (int i = 0; i < 7; ++i) land_one(100us, 4096);
    EXPECT_FALSE(pace_.due());
    land_one(100us, 4096);
    EXPECT_TRUE(pace_.due());
    ReadPace large;
    large.started();
    large.started();
    large.landed(kLarge, now_ - 100us, now_);
    EXPECT_TRUE(large.due());
    EXPECT_FALSE(large.piles_up());
    large.taken(kLarge);
    large.started();
    large.landed(kLarge, now_ - 100us, now_);
    EXPECT_TRUE(large.piles_up()) << "one is being checked, one waits";
}

TEST_F(ReadPaceTest, ReadsWaitForOthersAsLongAsTheDeviceIsSlow) {
    pace_.started();  // and lags
    land(64, 100us, 100us);
    EXPECT_EQ(pace_.patience(), 500us);
    land_one(100us);
    now_ += 600us;
    EXPECT_FALSE(pace_.due()) << "seen when the next one lands";
    land_one(100us);
    EXPECT_TRUE(pace_.due());
    pace_.taken(kSmall);
    pace_.taken(kSmall);
    EXPECT_FALSE(pace_.due());
    land(64, 6ms, 100us);
    EXPECT_GT(pace_.patience(), 2ms);
    EXPECT_LE(pace_.patience(), 3ms);
    land_one(6ms);
    now_ += 600us;
    land_one(6ms);
    EXPECT_FALSE(pace_.due());
    EXPECT_EQ(pace_.nap(), 5ms);
}

TEST_F(ReadPaceTest, SmallReadsAreCheckedWhereTheyLandUnlessTheyLandTooFast) {
    land(1024, 1ms, 200us);
    EXPECT_TRUE(pace_.here(kSmall));
    EXPECT_FALSE(pace_.here(kSmall + 1));
    for (int i = 0; i < 1024; ++i) pace_.done_here(20us);
    EXPECT_TRUE(pace_.here(kFew)) << "a check every 200 us takes 20";
    EXPECT_FALSE(pace_.here(kSmall)) << "a tenth of the thread's time is too much for what lies in one piece";
    land(1024, 1ms, 400us);
    EXPECT_TRUE(pace_.here(kSmall));
    land(1024, 1ms, 40us);
    EXPECT_FALSE(pace_.here(kFew)) << "half of the thread's time";
    land(1024, 1ms, 200us);
    EXPECT_TRUE(pace_.here(kFew));
}

TEST_F(ReadPaceTest, AThreadThatLostItsProcessorForAMomentGoesOnChecking) {
    land(1024, 1ms, 100us);
    for (int i = 0; i < 1024; ++i) pace_.done_here(20us);
    pace_.done_here(3ms);
    EXPECT_TRUE(pace_.here(kFew));
}

TEST_F(ReadPaceTest, WhatTookLongIsTriedAgain) {
    land(1024, 1ms, 100us);
    for (int i = 0; i < 1024; ++i) pace_.done_here(50us);
    int landed = 0;
    while (!pace_.here(kFew) && landed < 10'000) ++landed;
    EXPECT_GT(landed, 100) << "half of the thread's time is too much for a while";
    EXPECT_LT(landed, 1000);
}

TEST_F(ReadPaceTest, ReadsThatLandInBurstsAreCheckedWhereTheyLandByTheirMeanPace) {
    for (int burst = 0; burst < 256; ++burst) {
        land(1, 1ms, 2ms);
        for (int i = 0; i < 15; ++i) {
            EXPECT_TRUE(pace_.here(kFew)) << "burst " << burst << ", read " << i;
            land(1, 1ms, 1us);
            pace_.done_here(20us);
        }
    }
}

TEST_F(ReadPaceTest, OneThreadIsWokenForWhatNoneIsAtWorkFor) {
    EXPECT_FALSE(pace_.should_wake(false)) << "there is nothing to do";
    EXPECT_TRUE(pace_.should_wake(true));
    EXPECT_FALSE(pace_.should_wake(true)) << "it was told, and has not looked yet";
    pace_.looked();
    pace_.at_work();
    EXPECT_FALSE(pace_.should_wake(true)) << "it comes to that";
    for (int i = 0; i < 4; ++i) land_one(1ms, kLarge);
    EXPECT_TRUE(pace_.should_wake(false)) << "too much landed for one";
    pace_.looked();
    pace_.asleep();
    EXPECT_TRUE(pace_.should_wake(false));
}

}  // namespace
}  // namespace pegaflow::engine
