// SPDX-License-Identifier: Apache-2.0
// Blocks that are in the pool in part, or on their way there, while the tier has the whole.
#include "tests/unit/base/no_threads.hpp"
#include "tests/unit/engine/tier/tier_fixture.hpp"
#include "toy_worker.hpp"

namespace pegaflow {
namespace {

class TieringTest : public TierFixture {
protected:
    // Block 0 is in the tier, and not in the pool.
    void store_one() {
        start();
        if (IsSkipped()) return;
        save(0, 1);
        engine_->cleanup_memory();
        ASSERT_FALSE(engine_->contains("replica", hash_));
        replica_.fill(0, 0);
    }

    const std::string hash_ = make_hashes(1)[0];
};

TEST_F(TieringTest, ABlockSavedInPartDoesNotHideTheWholeOne) {
    store_one();
    if (IsSkipped()) return;
    ASSERT_TRUE(replica_.save(*engine_, {0}, {hash_}, 0, 0, 2));  // two of its four layers
    EXPECT_EQ(engine_->stats().incomplete_blocks, 1U);
    EXPECT_TRUE(hit(0));
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    EXPECT_EQ(stats().read_blocks, 1U);
    EXPECT_TRUE(hit(0));
    EXPECT_EQ(stats().read_blocks, 1U) << "it is in the pool now";
    ASSERT_TRUE(replica_.save(*engine_, {0}, {hash_}, 0, 2, 2)) << "the rest of it comes late";
    EXPECT_TRUE(hit(0));
}

TEST_F(TieringTest, WhatIsBeingCopiedIsNotFetched) {
    store_one();
    if (IsSkipped()) return;
    toy::Hold hold(*fabric_);
    const std::string_view view = hash_;
    const std::uint32_t block = 0;
    const std::string names[] = {"layer.100", "layer.101", "layer.102", "layer.103"};
    std::vector<SaveLayer> layers;
    for (const std::string& name : names) layers.push_back({name, {&block, 1}, {&view, 1}});
    SaveRequest request;
    request.instance_id = "replica";
    request.layers = layers;
    request.local_event = hold.event();
    std::promise<Result<SaveOutcome>> done;
    engine_->save_async(request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    EXPECT_FALSE(hit(0));
    EXPECT_EQ(stats().read_blocks, 0U);
    hold.release();
    EXPECT_TRUE(done.get_future().get());
    EXPECT_TRUE(hit(0));
    EXPECT_EQ(stats().read_blocks, 0U);
}

TEST_F(TieringTest, MoreQueriesThanMayWaitAreToldToTryAgain) {
    options_.tier.max_prefetch_requests = 1;
    start();
    if (IsSkipped()) return;
    save(0, 2);
    engine_->cleanup_memory();
    const auto hashes = make_hashes(2);  // one for each query: what the first brought would be a hit of the second
    const auto query = [&](std::size_t number) {
        const std::string_view view = hashes[number];
        return engine_->query({.instance_id = "replica", .hashes = {&view, 1}, .request_id = view});
    };
    const auto first = query(0), second = query(1);
    ASSERT_TRUE(first);
    EXPECT_TRUE(first->loading);
    ASSERT_FALSE(second) << "the first was not asked for again, and holds its place";
    EXPECT_EQ(second.error().code, Code::kQueueFull);
    EXPECT_EQ(engine_->stats().queue_full, 1U);
    EXPECT_EQ(stats().prefetch_queue_full, 1U);
    for (const std::string& hash : hashes) EXPECT_EQ(ask({hash}, hash).hit_blocks, 1U);
}

TEST_F(TieringTest, AnEngineThatGetsNoThreadsForItsTierEndsWhatHadBegun) {
    store_one();
    if (IsSkipped()) return;
    engine_.reset();  // its devices stay open
    {
        const testing::NoThreads none;
        const auto engine = Engine::create(options_, *fabric_);
        ASSERT_FALSE(engine);
        EXPECT_EQ(engine.error().code, Code::kNoMemory) << engine.error().message;
    }
    auto engine = Engine::create(options_, *fabric_);
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = std::move(*engine);
    ASSERT_TRUE(engine_->register_worker(replica_.registration()));
    EXPECT_TRUE(hit(0));
}

TEST_F(TieringTest, SomeQueryMayWait) {
    start();
    if (IsSkipped()) return;
    options_.tier.max_prefetch_requests = 0;
    const auto engine = Engine::create(options_, *fabric_);
    ASSERT_FALSE(engine);
    EXPECT_EQ(engine.error().code, Code::kInvalid);
}

}  // namespace
}  // namespace pegaflow
