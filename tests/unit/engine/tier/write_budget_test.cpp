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

}  // namespace
}  // namespace pegaflow::engine::tier
