// SPDX-License-Identifier: Apache-2.0
#include "paths.hpp"

#include <gtest/gtest.h>

namespace cuda_backend {
namespace {

constexpr unsigned kAll = (1U << kPaths) - 1;

PathTable flat(double rate) {
    PathTable table;
    for (const bool to_gpu : {false, true}) {
        for (std::size_t p = 0; p < kPaths; ++p) {
            for (std::size_t f = 0; f < kFragments.size(); ++f) {
                for (std::size_t b = 0; b < kBatches.size(); ++b) table.at(to_gpu, static_cast<Path>(p), f, b) = rate;
            }
        }
    }
    return table;
}

void set(PathTable& table, Path path, double rate) {
    for (std::size_t f = 0; f < kFragments.size(); ++f) {
        for (std::size_t b = 0; b < kBatches.size(); ++b) table.at(false, path, f, b) = rate;
    }
}

TEST(PathTable, MeasuredPointsComeBackAndWhatLiesBetweenIsBetween) {
    PathTable table = flat(1);
    table.at(false, Path::kBulk, 0, 2) = 10;
    table.at(false, Path::kBulk, 1, 2) = 20;
    const std::uint64_t batch = kBatches[2];
    EXPECT_DOUBLE_EQ(table.expect(Path::kBulk, {false, kFragments[0], batch, batch}), 10);
    EXPECT_DOUBLE_EQ(table.expect(Path::kBulk, {false, kFragments[1], batch, batch}), 20);
    EXPECT_DOUBLE_EQ(table.expect(Path::kBulk, {false, 4U << 10, batch, batch}), 15)
        << "half way from 2 to 8 KiB, in logarithms";
    EXPECT_DOUBLE_EQ(table.expect(Path::kBulk, {false, 1, batch, batch}), 10) << "below the first point";
}

TEST(PathTable, BetweenTwoBatchesTimesLieOnALine) {
    PathTable table = flat(1);
    const auto set_time = [&](std::size_t b, double seconds) {
        table.at(false, Path::kBulk, 0, b) = static_cast<double>(kBatches[b]) / seconds;
    };
    set_time(0, 11);
    set_time(1, 18);
    const auto seconds = [&](std::uint64_t bytes) {
        return static_cast<double>(bytes) / table.expect(Path::kBulk, {false, kFragments[0], bytes, bytes});
    };
    EXPECT_NEAR(seconds(4U << 20), 14, 1e-9) << "ten for the batch, one for each MiB";
    table.at(false, Path::kBulk, 0, 0) = 0;
    EXPECT_EQ(table.expect(Path::kBulk, {false, kFragments[0], 4U << 20, 4U << 20}), 0) << "it cannot be used";
}

TEST(PathTable, StagingIsForBatchesThatFollowEachOther) {
    PathTable table = flat(0);
    set(table, Path::kBulk, 100);
    set(table, Path::kStaged, 99);
    for (std::size_t b = 0; b < kBatches.size(); ++b) table.at(false, Path::kLoop, kFragments.size() - 1, b) = 99;
    constexpr unsigned kKernels = kAll & ~(1U << static_cast<unsigned>(Path::kLoop));
    EXPECT_EQ(table.choose({false, 16U << 10, 2U << 20, 4U << 20}, kKernels).path, Path::kBulk);
    EXPECT_EQ(table.choose({false, 16U << 10, 2U << 20, 64U << 20}, kKernels).path, Path::kStaged);
}

TEST(PathTable, TheCopyEngineIsPreferredUnlessKernelsAreClearlyFaster) {
    PathTable table = flat(0);
    set(table, Path::kBatch, 100);
    set(table, Path::kBulk, 101);
    Workload workload{false, 64U << 10, 1U << 20, 64U << 20};
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kBatch);
    workload.fragment = 32U << 10;
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kBulk) << "a busy processor does not queue so many copies";
    workload.fragment = 64U << 10;
    set(table, Path::kBulk, 110);
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kBulk);
    EXPECT_EQ(table.choose(workload, kAll & ~(1U << static_cast<unsigned>(Path::kBulk))).path, Path::kBatch)
        << "what cannot be used";
}

TEST(PathTable, KernelsThatWaitForTheModelShareTheWorkWithTheCopyEngine) {
    PathTable table = flat(0);
    set(table, Path::kBatch, 60);
    set(table, Path::kStaged, 100);
    for (std::size_t b = 0; b < kBatches.size(); ++b) table.at(false, Path::kLoop, kFragments.size() - 1, b) = 100;
    constexpr unsigned kNoBatches = kAll & ~(1U << static_cast<unsigned>(Path::kBatch));
    Workload workload{false, 16U << 10, 2U << 20, 64U << 20, false};
    EXPECT_FALSE(table.choose(workload, kAll).shared);
    workload.crowded = true;
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kStaged);
    EXPECT_TRUE(table.choose(workload, kAll).shared);
    EXPECT_FALSE(table.choose(workload, kNoBatches).shared) << "nobody to share with";
    set(table, Path::kBatch, 95);
    EXPECT_TRUE(table.choose(workload, kAll).shared) << "so many copies are not queued fast enough beside a model";
    workload.fragment = 64U << 10;
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kBatch) << "the copy engine alone is as good";
    EXPECT_FALSE(table.choose(workload, kAll).shared);
}

TEST(PathTable, KernelsThatHoldUpTheModelGiveWay) {
    PathTable table = flat(0);
    set(table, Path::kBulk, 100);
    set(table, Path::kBatch, 10);
    Workload workload{false, 8U << 10, 8U << 10, 64U << 20, false};
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kBulk);
    EXPECT_TRUE(table.choose(workload, kAll).needs_room);
    workload.crowded = true;
    EXPECT_EQ(table.choose(workload, kAll).path, Path::kBatch);
    EXPECT_FALSE(table.choose(workload, kAll).shared);
    EXPECT_TRUE(table.choose(workload, kAll).needs_room) << "else nobody would see when there is room again";
    set(table, Path::kBatch, 105);
    EXPECT_FALSE(table.choose(workload, kAll).needs_room) << "the copy engine is the fastest anyway";
}

TEST(PathTable, StagingIsNoFasterThanTheCopiesOfThePagesItPacksInto) {
    PathTable table = flat(0);
    set(table, Path::kStaged, 100);
    for (std::size_t b = 0; b < kBatches.size(); ++b) {
        table.at(false, Path::kLoop, 0, b) = 1;                        // pages of 2 KiB
        table.at(false, Path::kLoop, kFragments.size() - 1, b) = 100;  // and of 2 MiB
    }
    EXPECT_DOUBLE_EQ(table.expect(Path::kStaged, {false, 2048, 2048, 64U << 20}), 1);
    EXPECT_DOUBLE_EQ(table.expect(Path::kStaged, {false, 2048, 2U << 20, 64U << 20}), 100);
}

TEST(PathTable, TheBuiltInTableKnowsThatSmallFragmentsNeedKernels) {
    const PathTable table;
    EXPECT_FALSE(table.measured);
    for (const bool to_gpu : {false, true}) {
        EXPECT_EQ(table.choose({to_gpu, 2048, 64U << 20, 64U << 20}, kAll).path, Path::kStaged);
        EXPECT_EQ(table.choose({to_gpu, 2048, 2048, 64U << 20}, kAll & ~(1U << static_cast<unsigned>(Path::kStaged))).path,
                  Path::kBulk);
        EXPECT_LE(static_cast<int>(table.choose({to_gpu, 4U << 20, 64U << 20, 64U << 20}, kAll).path),
                  static_cast<int>(Path::kBatch));
    }
}

}  // namespace
}  // namespace cuda_backend
