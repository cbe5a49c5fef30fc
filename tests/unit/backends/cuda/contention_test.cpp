// SPDX-License-Identifier: Apache-2.0
#include "contention.hpp"

#include <gtest/gtest.h>

namespace {

using cuda_backend::Contention;

constexpr std::uint64_t kMillisecond = 1000000;

// `count` batches one after the other, each of which takes `took` and should take `expected`.
std::uint64_t run(Contention& contention, int count, std::uint64_t took, double expected, std::uint64_t now) {
    for (int i = 0; i < count; ++i, now += took) {
        contention.begin(false, now);
        contention.end(false, now + took, expected);
    }
    return now;
}

TEST(Contention, BatchesAsFastAsMeasuredChangeNothing) {
    Contention contention;
    const std::uint64_t now = run(contention, 100, kMillisecond, 0.95 * kMillisecond, 1);
    EXPECT_FALSE(contention.crowded(false, now));
}

TEST(Contention, WaitingKernelsAreSeenAndTriedAgainNowAndThen) {
    Contention contention;
    std::uint64_t now = run(contention, 20, 3 * kMillisecond, kMillisecond, 1);
    EXPECT_FALSE(contention.crowded(false, now)) << "the first to ask finds out whether it is still so";
    EXPECT_TRUE(contention.crowded(false, now));
    EXPECT_FALSE(contention.crowded(true, now)) << "the other direction is for itself";
    now += 1000 * kMillisecond;
    EXPECT_FALSE(contention.crowded(false, now));
    EXPECT_TRUE(contention.crowded(false, now));
    // The model is gone: one batch that finds out is enough.
    now = run(contention, 1, kMillisecond, kMillisecond, now);
    EXPECT_FALSE(contention.crowded(false, now));
}

TEST(Contention, OneSlowBatchIsNoContention) {
    Contention contention;
    std::uint64_t now = run(contention, 1, 50 * kMillisecond, kMillisecond, 1);
    EXPECT_FALSE(contention.crowded(false, now));
    now = run(contention, 2, 50 * kMillisecond, kMillisecond, now);
    contention.crowded(false, now);
    EXPECT_TRUE(contention.crowded(false, now));
}

TEST(Contention, BatchesSideBySideShareTheTime) {
    Contention contention;
    std::uint64_t now = 1;
    contention.begin(false, now);
    for (int i = 0; i < 50; ++i) {  // two in flight at all times, one ends each millisecond
        contention.begin(false, now);
        now += kMillisecond;
        contention.end(false, now, kMillisecond);
    }
    EXPECT_FALSE(contention.crowded(false, now));
}

TEST(Contention, IdleTimeAndFailedBatchesSayNothing) {
    Contention contention;
    std::uint64_t now = 1;
    for (int i = 0; i < 20; ++i) now = run(contention, 1, kMillisecond, kMillisecond, now) + 50 * kMillisecond;
    for (int i = 0; i < 20; ++i) now = run(contention, 1, 30 * kMillisecond, 0, now);
    EXPECT_FALSE(contention.crowded(false, now));
}

}  // namespace
