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

// Reads of `bytes` that take `took`, `depth` at one time.
void read(CostModel& model, CostModel::Clock::time_point& now, int times, std::uint64_t bytes, CostModel::Clock::duration took,
          int depth = 1) {
    for (int i = 0; i < times; ++i) {
        for (int k = 0; k < depth; ++k) model.started(now);
        for (int k = 0; k < depth; ++k) model.ended(bytes, now, now + took);
        now += took;
    }
}

TEST(CostModelTest, FollowsADeviceThatBecomesSlowAndOneThatRecovers) {
    for (const int depth : {1, 4}) {
        CostModel model(100'000, 4'000'000'000);
        CostModel::Clock::time_point now{};
        read(model, now, 60, 1'000'000, 100ms, depth);
        EXPECT_LT(model.bytes_per_second(), 1.5e7 * depth) << depth;
        EXPECT_GT(model.bytes_per_second(), 0.9e7 * depth) << depth;
        // Now and then one of a second.
        for (int i = 0; i < 15; ++i) {
            read(model, now, 1, 1'000'000, 500us, depth);
            now += 1s;
        }
        EXPECT_GT(model.bytes_per_second(), 1.9e9 * depth) << depth;
        EXPECT_LT(model.latency_seconds(), 0.001);
    }
}

TEST(CostModelTest, TheFirstReadsDoNotReplaceWhatTheBackEndSays) {
    CostModel model(100'000, 2'000'000'000);
    CostModel::Clock::time_point now{};
    read(model, now, 1, 1'000'000, 200ms, 4);  // a device that wakes up
    EXPECT_GT(model.bytes_per_second(), 1e8);
}

TEST(CostModelTest, ReadsOneAfterAnotherSayNothingAgainstTheBandwidth) {
    CostModel model(100'000, 2'000'000'000);
    CostModel::Clock::time_point now{};
    for (int i = 0; i < 2000; ++i) read(model, now, 1, 4096, std::chrono::microseconds(100 + 10 * (i % 7)));
    EXPECT_GE(model.bytes_per_second(), 1.999e9);
    read(model, now, 100, 4'000'000, 1ms);
    EXPECT_NEAR(model.bytes_per_second(), 4e9, 1e8) << "but for it";
}

TEST(CostModelTest, WhatFailedBroughtNothing) {
    CostModel model(0, 2'000'000'000);
    CostModel::Clock::time_point now{};
    for (int i = 0; i < 100; ++i) {
        for (int k = 0; k < 4; ++k) model.started(now);
        model.ended(1'000'000, now, now + 2ms);
        for (int k = 0; k < 3; ++k) model.failed(now, now + 2ms);
        now += 2ms;
    }
    EXPECT_NEAR(model.bytes_per_second(), 0.5e9, 0.1e9);
    const double before = model.bytes_per_second();
    for (int i = 0; i < 100; ++i) {
        model.started(now);
        model.failed(now, now + 1us);
        now += 1s;
    }
    EXPECT_EQ(model.bytes_per_second(), before) << "failures at once do not make it look fast or slow";
}

}  // namespace
}  // namespace pegaflow::engine::tier
