// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/write_budget.hpp"

namespace pegaflow::engine::tier {
namespace {

using Clock = WriteBudget::Clock;

TEST(WriteBudgetTest, WithoutALimitEverythingIsGranted) {
    WriteBudget budget(0, Clock::time_point{});
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(budget.take(UINT64_MAX / 2, Clock::time_point{}));
}

TEST(WriteBudgetTest, ADayGrantsADayAndOneBurstAtMost) {
    const std::uint64_t per_day = std::uint64_t{100} << 30;
    Clock::time_point now{};
    WriteBudget budget(per_day, now);
    std::uint64_t granted = 0;
    for (int second = 0; second < 86'400; ++second) {
        now += std::chrono::seconds(1);
        for (int i = 0; i < 4; ++i) granted += budget.take(1 << 20, now) ? 1 << 20 : 0;
    }
    EXPECT_LE(granted, per_day + budget.burst());
    EXPECT_GE(granted, per_day * 99 / 100) << "and not much less";
}

TEST(WriteBudgetTest, AnEmptyBucketFillsEvenly) {
    const std::uint64_t per_day = std::uint64_t{86'400} << 20;  // a MiB a second
    Clock::time_point now{};
    WriteBudget budget(per_day, now);
    EXPECT_TRUE(budget.take(budget.burst(), now));
    EXPECT_FALSE(budget.take(1 << 20, now));
    EXPECT_TRUE(budget.take(1 << 20, now += std::chrono::milliseconds(1001)));
    EXPECT_FALSE(budget.take(1 << 20, now));
}

TEST(WriteBudgetTest, ABlockLargerThanABurstIsGrantedWhenTheBucketIsFull) {
    Clock::time_point now{};
    WriteBudget budget(1 << 20, now);
    EXPECT_TRUE(budget.take(3 << 20, now));
    EXPECT_FALSE(budget.take(1, now += std::chrono::hours(24))) << "the debt is paid first";
    EXPECT_TRUE(budget.take(1, now += std::chrono::hours(48)));
}

TEST(WriteBudgetTest, WhatIsNotWrittenIsGivenBack) {
    Clock::time_point now{};
    WriteBudget budget(1 << 20, now);
    EXPECT_TRUE(budget.take(1 << 20, now));
    EXPECT_FALSE(budget.take(4096, now));
    budget.give_back(8192);
    EXPECT_TRUE(budget.take(8192, now));
    EXPECT_FALSE(budget.take(1, now));
    budget.give_back(5 << 20);
    EXPECT_TRUE(budget.take(1 << 20, now)) << "but never more than the bucket holds";
    EXPECT_FALSE(budget.take(1, now));
}

TEST(WriteBudgetTest, AStartTakesUpWhatWasWrittenBefore) {
    using Written = WriteHistory::Written;
    constexpr std::uint64_t kDay = std::uint64_t{86'400} << 20;  // a MiB a second; the bucket holds an hour
    constexpr std::uint64_t kMiB = 1 << 20, kNow = 1'000'000;
    const struct {
        const char* what;
        std::vector<Written> written;
        bool whole;
        std::uint64_t left;
    } cases[] = {{"nothing", {}, true, 3600 * kMiB},
                 {"all of it, just now", {{kNow - 9, 0}, {kNow, 3600 * kMiB}}, true, 0},
                 {"more than it holds", {{kNow - 9, 0}, {kNow, 9000 * kMiB}}, true, 0},
                 {"some, a while ago", {{kNow - 1000, 3000 * kMiB}, {kNow, 0}}, true, 1600 * kMiB},
                 {"long ago", {{kNow - 90'000, 3600 * kMiB}, {kNow, 0}}, true, 3600 * kMiB},
                 {"nobody knows what before", {{kNow - 100, 0}, {kNow, 0}}, false, 100 * kMiB}};
    for (const auto& [what, written, whole, left] : cases) {
        WriteBudget budget(kDay, Clock::time_point{});
        budget.restore(written, whole, kNow);
        EXPECT_FALSE(left < 3600 * kMiB && budget.take(left + kMiB, Clock::time_point{})) << what;
        EXPECT_TRUE(budget.take(left, Clock::time_point{})) << what;
    }
}

// A day in which the server starts every few minutes and writes what it may.
TEST(WriteBudgetTest, RestartsDoNotAddUp) {
    const std::uint64_t per_day = std::uint64_t{100} << 30;
    WriteHistory history;
    std::uint64_t granted = 0, sequence = 0;
    for (std::uint64_t seconds = 1'000'000; seconds < 1'086'400; seconds += 300) {
        WriteBudget budget(per_day, Clock::time_point{});
        budget.restore(history.written(seconds), history.whole(), seconds);
        std::uint64_t mine = 0;
        while (budget.take(1 << 20, Clock::time_point{})) mine += 1 << 20;
        FoundSegment segment;
        segment.kind = FoundSegment::Kind::kSealed;
        segment.header.sequence = ++sequence;
        segment.header.created_seconds = seconds;
        segment.header.written_before = granted;
        segment.data_end = mine;
        history.add(segment);
        granted += mine;
        EXPECT_EQ(history.lifetime_bytes(), granted);
    }
    EXPECT_LE(granted, per_day + WriteBudget(per_day, Clock::time_point{}).burst());
    EXPECT_GE(granted, per_day / 2);
}

}  // namespace
}  // namespace pegaflow::engine::tier
