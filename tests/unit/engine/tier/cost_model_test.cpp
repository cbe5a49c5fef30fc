// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/cost_model.hpp"

namespace pegaflow::engine::tier {
namespace {

using namespace std::chrono_literals;

TEST(CostModelTest, BelievesTheBackEndUntilItHasMeasured) {
    const CostModel model(100'000, 1'000'000'000);
    EXPECT_NEAR(model.seconds(1'000'000, 0), 0.0011, 1e-6);
    EXPECT_NEAR(model.seconds(1'000'000, 4'000'000), 0.0051, 1e-6);
}

TEST(CostModelTest, LearnsTheRateOfBusyTimeOnly) {
    CostModel model(0, 1);
    CostModel::Clock::time_point now{};
    for (int i = 0; i < 200; ++i) {
        model.started(now);
        model.ended(2'000'000, now, now + 1ms);  // 2 GB/s while busy
        now += 100ms;                            // mostly idle
    }
    EXPECT_NEAR(model.bytes_per_second(), 2e9, 1e8);
}

TEST(CostModelTest, ReadsSideBySideAddUp) {
    CostModel model(0, 1);
    CostModel::Clock::time_point now{};
    for (int i = 0; i < 100; ++i) {
        for (int k = 0; k < 4; ++k) model.started(now);
        for (int k = 0; k < 4; ++k) model.ended(1'000'000, now, now + 2ms);
        now += 2ms;
    }
    EXPECT_NEAR(model.bytes_per_second(), 2e9, 1e8);
}

TEST(CostModelTest, FollowsADeviceThatBecomesSlow) {
    CostModel model(0, 4'000'000'000);
    CostModel::Clock::time_point now{};
    for (int i = 0; i < 100; ++i) {
        model.started(now);
        model.ended(1'000'000, now, now + 100ms);
        now += 100ms;
    }
    EXPECT_NEAR(model.bytes_per_second(), 1e7, 1e6);
    EXPECT_GT(model.seconds(10'000'000, 0), 0.9);
}

}  // namespace
}  // namespace pegaflow::engine::tier
