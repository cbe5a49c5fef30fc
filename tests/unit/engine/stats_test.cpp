// SPDX-License-Identifier: Apache-2.0
// What an engine says of itself: where the bytes of the pool are, how long blocks stayed, what queries missed.
#include <numeric>

#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/unit/engine/replica.hpp"

namespace pegaflow {
namespace {

using testing::make_hashes;
using testing::query;
using testing::Replica;

constexpr std::uint64_t kBlock = 8192;  // of a replica: 4 layers x 2 x 1 KiB

class StatsTest : public ::testing::Test {
protected:
    void start(EngineOptions options) {
        if (options.pool_bytes == EngineOptions{}.pool_bytes) options.pool_bytes = 8 << 20;
        auto engine = Engine::create(options, *fabric_);
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = std::move(*engine);
    }
    std::string refusal(EngineOptions options) {
        options.pool_bytes = 8 << 20;
        const auto engine = Engine::create(options, *fabric_);
        return engine ? "" : engine.error().message;
    }

    std::unique_ptr<Fabric> fabric_ = *Fabric::open({.backends = {"host"}});
    std::unique_ptr<Engine> engine_;
};

std::uint64_t total(const Distribution& distribution) {
    EXPECT_EQ(distribution.counts.size(), distribution.bounds.size() + 1);
    return std::accumulate(distribution.counts.begin(), distribution.counts.end(), std::uint64_t{0});
}

TEST_F(StatsTest, BytesOfIncompleteBlocksAreOfThoseAlone) {
    start({});
    Replica first({.tp_size = 2, .world_size = 2}), second({.tp_rank = 1, .tp_size = 2, .world_size = 2, .device_id = 1});
    ASSERT_TRUE(engine_->register_worker(first.registration()));
    ASSERT_TRUE(engine_->register_worker(second.registration()));
    const auto hashes = make_hashes(3);
    ASSERT_TRUE(first.save(*engine_, {0, 1, 2}, hashes));
    EXPECT_EQ(engine_->stats().incomplete_bytes, 3 * kBlock);
    ASSERT_TRUE(second.save(*engine_, {0}, {hashes[0]}));
    const EngineStats one = engine_->stats();
    EXPECT_EQ(one.incomplete_bytes, 2 * kBlock) << "both pages of the first one are resident";
    EXPECT_EQ(one.resident_bytes, 2 * kBlock);
    EXPECT_EQ(one.pool_used_bytes, 4 * kBlock);
    EXPECT_EQ(one.staging_bytes, 0U);
    ASSERT_TRUE(engine_->unregister_instance("replica"));
    EXPECT_EQ(engine_->stats().incomplete_bytes, 0U);
    EXPECT_EQ(engine_->stats().resident_bytes, 2 * kBlock);
}

TEST_F(StatsTest, BlocksThatGoSayHowLongTheyStayedAndWhy) {
    start({.pool_bytes = 8 * kBlock});
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(20);
    for (std::size_t i = 0; i < 20; ++i) ASSERT_TRUE(replica.save(*engine_, {1}, {hashes[i]})) << i;
    const EngineStats full = engine_->stats();
    EXPECT_EQ(full.evictions, 12U);
    EXPECT_EQ(full.evictions_offered, 0U) << "there is no tier";
    EXPECT_EQ(total(full.evicted_residence), 12U);
    EXPECT_LT(full.evicted_residence.sum, 12 * 60) << "no block is older than this test";
    EXPECT_EQ(full.evicted_residence.counts.back(), 0U);
    EXPECT_EQ(total(full.erased_residence), 0U);
    ASSERT_TRUE(engine_->flush());
    EXPECT_EQ(engine_->cleanup_memory().evicted_blocks, 8U);
    EXPECT_EQ(total(engine_->stats().erased_residence), 8U);
    EXPECT_EQ(total(engine_->stats().evicted_residence), 12U);
}

TEST_F(StatsTest, DistinctMissesAreEstimatedForQueriesOfTheFirstGroup) {
    start({.distinct_windows = {std::chrono::minutes(15)}});
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(4);
    ASSERT_TRUE(replica.save(*engine_, {0, 1}, {hashes[0], hashes[1]}));
    for (int i = 0; i < 3; ++i) {
        const auto found = query(*engine_, "replica", hashes);
        ASSERT_TRUE(found) << found.error().message;
        ASSERT_TRUE(engine_->release(*found->lease));
    }
    const auto windows = engine_->distinct_windows();
    ASSERT_EQ(windows.size(), 1U);
    EXPECT_EQ(windows[0].length, std::chrono::minutes(15));
    EXPECT_EQ(windows[0].asked, 12U);
    EXPECT_NEAR(windows[0].distinct_missed, 2, 0.1);
    start({});
    EXPECT_TRUE(engine_->distinct_windows().empty());
    EXPECT_NE(refusal({.distinct_windows = {std::chrono::seconds(1)}}), "");
}

}  // namespace
}  // namespace pegaflow
