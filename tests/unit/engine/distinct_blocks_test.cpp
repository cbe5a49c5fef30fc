// SPDX-License-Identifier: Apache-2.0
#include "engine/distinct_blocks.hpp"

#include <fmt/format.h>

#include <memory>
#include <thread>

namespace pegaflow::engine {
namespace {

using namespace std::chrono_literals;
using Clock = DistinctBlocks::Clock;

const Clock::time_point kStart{};

// Misses blocks [first, first + count) in one query.
void miss(DistinctBlocks& blocks, std::size_t first, std::size_t count, std::uint64_t scope = 1) {
    std::vector<std::string> hashes;
    for (std::size_t i = 0; i < count; ++i) hashes.push_back(fmt::format("{:032}", first + i));
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    blocks.count(scope, count, views);
}

std::unique_ptr<DistinctBlocks> make_blocks(const std::vector<std::chrono::nanoseconds>& windows) {
    return std::make_unique<DistinctBlocks>(windows, kStart);
}

TEST(DistinctBlocks, EstimatesFewAndMany) {
    const auto blocks = make_blocks({15min});
    EXPECT_EQ(blocks->read()[0].distinct_missed, 0);
    miss(*blocks, 0, 100);
    EXPECT_NEAR(blocks->read()[0].distinct_missed, 100, 3);
    miss(*blocks, 0, 100);
    EXPECT_NEAR(blocks->read()[0].distinct_missed, 100, 3) << "the same ones again";
    EXPECT_EQ(blocks->read()[0].asked, 200U);
    miss(*blocks, 0, 100, 2);
    EXPECT_NEAR(blocks->read()[0].distinct_missed, 200, 6) << "of another layout";
    miss(*blocks, 1000, 200'000);
    EXPECT_NEAR(blocks->read()[0].distinct_missed, 200'200, 200'200 * 0.04);
}

TEST(DistinctBlocks, WindowsForgetAsTimeGoesOn) {
    const auto blocks = make_blocks({1min, 15min, 24h});
    miss(*blocks, 0, 1000);
    blocks->tick(kStart + 30s);
    EXPECT_NEAR(blocks->read()[0].distinct_missed, 1000, 40) << "the minute that runs counts";
    blocks->tick(kStart + 1min);
    EXPECT_EQ(blocks->read()[0].asked, 0U) << "the minute is over";
    EXPECT_EQ(blocks->read()[1].asked, 1000U);
    for (int minute = 2; minute <= 14; ++minute) blocks->tick(kStart + minute * 1min);
    miss(*blocks, 1000, 1000);
    EXPECT_NEAR(blocks->read()[1].distinct_missed, 2000, 80);
    blocks->tick(kStart + 15min);
    EXPECT_NEAR(blocks->read()[1].distinct_missed, 1000, 40) << "the first ones are 15 minutes old";
    EXPECT_NEAR(blocks->read()[2].distinct_missed, 2000, 80);
    for (int minute = 16; minute <= 24 * 60; ++minute) blocks->tick(kStart + minute * 1min);
    EXPECT_EQ(blocks->read()[2].asked, 0U);
    EXPECT_EQ(blocks->read()[2].distinct_missed, 0);
}

TEST(DistinctBlocks, CountsFromManyThreadsAcrossMinutes) {
    const auto blocks = make_blocks({1h});
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (std::size_t i = 0; i < 100; ++i) miss(*blocks, (t * 100 + i) * 10, 10);
        });
    }
    for (int minute = 1; minute <= 10; ++minute) blocks->tick(kStart + minute * 1min);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(blocks->read()[0].asked, 4000U);
    EXPECT_NEAR(blocks->read()[0].distinct_missed, 4000, 160);
}

TEST(DistinctBlocks, RefusesWindowsThatAreNone) {
    EXPECT_TRUE(check_windows({}));
    const std::chrono::nanoseconds fine[] = {1min, 1h}, brief[] = {59s}, endless[] = {32 * 24h}, twice[] = {60min, 1h};
    EXPECT_TRUE(check_windows(fine));
    EXPECT_THAT(check_windows(brief).error().message, ::testing::HasSubstr("a minute to 31 days long"));
    EXPECT_FALSE(check_windows(endless));
    EXPECT_THAT(check_windows(twice).error().message, ::testing::HasSubstr("named twice"));
}

}  // namespace
}  // namespace pegaflow::engine
