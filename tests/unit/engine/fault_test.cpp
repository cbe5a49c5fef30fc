// SPDX-License-Identifier: Apache-2.0
// The engine over a back end that misbehaves (plug-in fault): answers in time, nothing left behind, other requests intact.
#include <cstring>

#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/unit/engine/replica.hpp"

namespace pegaflow {
namespace {

using testing::make_hashes;
using testing::query;
using testing::Replica;

class FaultTest : public ::testing::Test {
protected:
    void start(std::map<std::string, std::string> rules) {
        FabricOptions options{.backends = {"host"}, .wrap = {{"fault", "host"}}};
        options.options["fault"] = std::move(rules);
        auto fabric = Fabric::open(options);
        ASSERT_TRUE(fabric) << fabric.error().message;
        fabric_ = std::move(*fabric);
        auto engine = Engine::create({.pool_bytes = 4 << 20}, *fabric_);
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = std::move(*engine);
        ASSERT_TRUE(engine_->register_worker(replica_.registration()));
    }
    Result<SaveOutcome> save_by(std::chrono::milliseconds limit) {
        const std::vector<std::string_view> views(hashes_.begin(), hashes_.end());
        const std::vector<std::uint32_t> ids = {0};
        std::vector<SaveLayer> layers;
        for (const std::string_view name : replica_.group_names(0)) layers.push_back({name, ids, views});
        return engine_->save(
            {.instance_id = "replica", .layers = layers, .deadline = std::chrono::steady_clock::now() + limit});
    }

    Replica replica_{{}};
    std::vector<std::string> hashes_ = make_hashes(1);
    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
};

TEST_F(FaultTest, AHungPeerIsAnsweredAtTheDeadlineAndLeavesNothing) {
    start({{"hang", "1"}});
    const auto begin = std::chrono::steady_clock::now();
    const auto saved = save_by(std::chrono::milliseconds(50));
    ASSERT_FALSE(saved);
    EXPECT_EQ(saved.error().code, Code::kDeadlineExceeded);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
    EXPECT_TRUE(engine_->unregister_instance("replica"));
}

TEST_F(FaultTest, ACopyThatCannotBeCancelledIsWaitedFor) {
    start({{"stuck", "1"}, {"stuck_ms", "2000"}});
    const auto begin = std::chrono::steady_clock::now();
    const auto saved = save_by(std::chrono::milliseconds(700));
    EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2)) << "the blocks were still written to";
    ASSERT_FALSE(saved) << "whoever waited may have written to the source before it was read";
    EXPECT_EQ(saved.error().code, Code::kDeadlineExceeded);
    EXPECT_FALSE(engine_->contains("replica", hashes_[0]));
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    EXPECT_TRUE(engine_->unregister_instance("replica"));
}

TEST_F(FaultTest, AFailedCopyIsNeverAHitAndCanBeSavedAgain) {
    start({{"fail", "0.5:PEER_LOST"}, {"seed", "3"}});
    replica_.fill(0, 5);
    int failures = 0;
    bool saved = false;
    for (int i = 0; i < 50 && !saved; ++i) {
        const auto outcome = replica_.save(*engine_, {0}, hashes_);
        saved = outcome.has_value();
        if (saved) break;
        ++failures;
        EXPECT_EQ(outcome.error().code, Code::kPeerLost);
        EXPECT_EQ(query(*engine_, "replica", hashes_)->hit_blocks, 0U);
    }
    EXPECT_TRUE(saved);
    bool loaded = false;
    for (int i = 0; i < 50 && !loaded; ++i) {
        const auto found = query(*engine_, "replica", hashes_);
        ASSERT_EQ(found->hit_blocks, 1U);
        replica_.poison(7);
        loaded = replica_.load(*engine_, *found->lease, {7}).has_value();
        failures += loaded ? 0 : 1;
    }
    EXPECT_TRUE(loaded);
    EXPECT_EQ(replica_.wrong(7, 5), 0U);
    EXPECT_GT(failures, 0) << "the seed injects at least one fault";
    EXPECT_EQ(engine_->stats().leases, 0U);
}

TEST_F(FaultTest, DelayedAndReorderedEndsChangeNothingElse) {
    start({{"delay_us", "300"}, {"reorder", "0.5"}, {"seed", "11"}});
    for (std::uint32_t i = 0; i < 8; ++i) {
        replica_.fill(i, i);
        ASSERT_TRUE(replica_.save(*engine_, {i}, {make_hashes(8)[i]}));
    }
    for (std::uint32_t i = 0; i < 8; ++i) {
        const auto found = query(*engine_, "replica", {make_hashes(8)[i]});
        ASSERT_EQ(found->hit_blocks, 1U);
        replica_.poison(20);
        ASSERT_TRUE(replica_.load(*engine_, *found->lease, {20}));
        EXPECT_EQ(replica_.wrong(20, i), 0U);
    }
}

TEST_F(FaultTest, ADroppedBatchSaysThatAllIsWellAndMovesNothing) {
    start({{"drop", "1"}});
    Device& device = **fabric_->device("host:0");
    const Region from = *device.allocate(PEGA_MEMORY_HOST, 64);
    const Region to = *device.allocate(PEGA_MEMORY_HOST, 64);
    std::memset(from.address(), 7, 64);
    std::memset(to.address(), 9, 64);
    Channel channel = *device.open_channel();
    Transfer transfer;
    transfer.flat(from, to).range(0, 0, 64);
    EXPECT_EQ(*channel.submit(transfer)->wait(), 64U);
    EXPECT_EQ(static_cast<const unsigned char*>(to.address())[0], 9);
    EXPECT_EQ(static_cast<const unsigned char*>(to.address())[63], 9);
}

}  // namespace
}  // namespace pegaflow
