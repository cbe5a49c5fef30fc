// SPDX-License-Identifier: Apache-2.0
#include "contention.hpp"

#include <gtest/gtest.h>

namespace {

using cuda_backend::Contention;

constexpr std::uint64_t kMillisecond = 1000000;

// `count` batches one after the other, each of which takes `took` and should take `expected`.
std::uint64_t run(Contention& contention, int count, std::uint64_t took, double expected, std::uint64_t now) {
    for (int i = 0; i < count; ++i, now += took) {
        contention.begin(Contention::kKernels, false, now);
        contention.end(Contention::kKernels, false, now + took, expected);
    }
    return now;
}

TEST(Contention, BatchesAsFastAsMeasuredChangeNothing) {
    Contention contention;
    const std::uint64_t now = run(contention, 100, kMillisecond, 0.95 * kMillisecond, 1);
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1);
}

TEST(Contention, WaitingKernelsAreSeenAndTriedAgainNowAndThen) {
    Contention contention;
    std::uint64_t now = run(contention, 20, 3 * kMillisecond, kMillisecond, 1);
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1) << "the first to ask finds out whether it is still so";
    EXPECT_NEAR(contention.share(Contention::kKernels, false, now), 1.0 / 3, 0.01);
    EXPECT_EQ(contention.share(Contention::kKernels, true, now), 1) << "the other direction is for itself";
    EXPECT_EQ(contention.share(Contention::kEngine, false, now), 1) << "and so is the copy engine";
    now += 1000 * kMillisecond;
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1);
    EXPECT_LT(contention.share(Contention::kKernels, false, now), 0.5);
    // The model is gone: one batch that finds out is enough.
    now = run(contention, 1, kMillisecond, kMillisecond, now);
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1);
}

TEST(Contention, OneSlowBatchIsNoContention) {
    Contention contention;
    std::uint64_t now = run(contention, 1, 50 * kMillisecond, kMillisecond, 1);
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1);
    now = run(contention, 2, 50 * kMillisecond, kMillisecond, now);
    contention.share(Contention::kKernels, false, now);
    EXPECT_LT(contention.share(Contention::kKernels, false, now), 1);
}

TEST(Contention, BatchesSideBySideShareTheTime) {
    Contention contention;
    std::uint64_t now = 1;
    contention.begin(Contention::kKernels, false, now);
    for (int i = 0; i < 50; ++i) {  // two in flight at all times, one ends each millisecond
        contention.begin(Contention::kKernels, false, now);
        now += kMillisecond;
        contention.end(Contention::kKernels, false, now, kMillisecond);
    }
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1);
}

TEST(Contention, IdleTimeAndFailedBatchesSayNothing) {
    Contention contention;
    std::uint64_t now = 1;
    for (int i = 0; i < 20; ++i) now = run(contention, 1, kMillisecond, kMillisecond, now) + 50 * kMillisecond;
    for (int i = 0; i < 20; ++i) now = run(contention, 1, 30 * kMillisecond, 0, now);
    EXPECT_EQ(contention.share(Contention::kKernels, false, now), 1);
}

}  // namespace
