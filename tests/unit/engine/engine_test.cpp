// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/engine.hpp"

#include "pegaflow/transfer.hpp"
#include "tests/unit/engine/replica.hpp"

namespace pegaflow {
namespace {

using testing::make_hashes;
using testing::query;
using testing::Replica;
using testing::Shape;

class EngineTest : public ::testing::Test {
protected:
    void SetUp() override { start({}); }

    void start(EngineOptions options) {
        engine_.reset();
        if (!fabric_) {
            auto fabric = Fabric::open({.backends = {"host"}});
            ASSERT_TRUE(fabric) << fabric.error().message;
            fabric_ = std::move(*fabric);
        }
        if (options.pool_bytes == EngineOptions{}.pool_bytes) options.pool_bytes = 8 << 20;
        auto engine = Engine::create(options, *fabric_);
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = std::move(*engine);
    }

    void expect_round_trip(Replica& replica, int seed) {
        const auto hashes = make_hashes(3, seed);
        for (std::uint32_t i = 0; i < 3; ++i) replica.fill(i, seed * 10 + i);
        auto saved = replica.save(*engine_, {0, 1, 2}, hashes);
        ASSERT_TRUE(saved) << saved.error().message;
        EXPECT_EQ(saved->saved_blocks, 3U);
        auto found = query(*engine_, replica.shape().instance, hashes);
        ASSERT_TRUE(found) << found.error().message;
        ASSERT_EQ(found->hit_blocks, 3U);
        for (std::uint32_t i = 5; i < 8; ++i) replica.poison(i);
        auto loaded = replica.load(*engine_, *found->lease, {7, 5, 6});
        ASSERT_TRUE(loaded) << loaded.error().message;
        EXPECT_EQ(replica.wrong(7, seed * 10), 0U);
        EXPECT_EQ(replica.wrong(5, seed * 10 + 1), 0U);
        EXPECT_EQ(replica.wrong(6, seed * 10 + 2), 0U);
    }

    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, SavesAndLoadsSplitLayersByteForByte) {
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    expect_round_trip(replica, 1);
    EXPECT_EQ(engine_->stats().leases, 0U);
    EXPECT_EQ(engine_->stats().load_bytes, 3U * 4 * 2 * 1024);
}

TEST_F(EngineTest, PageFirstWithOneSegment) {
    Replica replica({.split = false, .page_first = true});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    expect_round_trip(replica, 2);
    auto part = replica.save(*engine_, {9}, make_hashes(1, 77), 0, 0, 2);
    ASSERT_FALSE(part);
    EXPECT_NE(part.error().message.find("must cover all 4 layers"), std::string::npos) << part.error().message;
}

TEST_F(EngineTest, ABlockIsAHitOnlyWhenEveryRankHasSavedIt) {
    Replica first({.tp_rank = 0, .tp_size = 2, .world_size = 2, .device_id = 0});
    Replica second({.tp_rank = 1, .tp_size = 2, .world_size = 2, .device_id = 1});
    ASSERT_TRUE(engine_->register_worker(first.registration()));
    const auto hashes = make_hashes(2);
    EXPECT_EQ(first.save(*engine_, {0, 1}, hashes).error().message, "registration incomplete: 1/2 workers registered");
    EXPECT_EQ(query(*engine_, "replica", hashes)->hit_blocks, 0U);
    ASSERT_TRUE(engine_->register_worker(second.registration()));
    for (std::uint32_t i = 0; i < 2; ++i) {
        first.fill(i, i);
        second.fill(i, i);
    }
    ASSERT_TRUE(first.save(*engine_, {0, 1}, hashes));
    EXPECT_EQ(query(*engine_, "replica", hashes)->hit_blocks, 0U);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 2U);
    ASSERT_TRUE(second.save(*engine_, {0, 1}, hashes));
    auto found = query(*engine_, "replica", hashes);
    ASSERT_EQ(found->hit_blocks, 2U);
    ASSERT_TRUE(first.load(*engine_, *found->lease, {10, 11}));
    EXPECT_EQ(engine_->stats().leases, 1U) << "the other rank's share is still there";
    ASSERT_TRUE(second.load(*engine_, *found->lease, {20, 21}));
    EXPECT_EQ(first.wrong(10, 0) + first.wrong(11, 1) + second.wrong(20, 0) + second.wrong(21, 1), 0U);
    EXPECT_EQ(first.load(*engine_, *found->lease, {10, 11}).error().code, Code::kNotFound);
}

TEST_F(EngineTest, ReplicasOfOneRankShareABlock) {
    Replica a({.world_size = 2, .device_id = 0, .split = false, .page_first = true});
    Replica b({.world_size = 2, .device_id = 1, .split = false, .page_first = true});
    ASSERT_TRUE(engine_->register_worker(a.registration()));
    ASSERT_TRUE(engine_->register_worker(b.registration()));
    const auto hashes = make_hashes(2);
    a.fill(0, 5);
    b.fill(3, 6);
    ASSERT_TRUE(a.save(*engine_, {0}, {hashes[0]}));
    ASSERT_TRUE(b.save(*engine_, {3}, {hashes[1]}));
    auto found = query(*engine_, "replica", hashes);
    ASSERT_EQ(found->hit_blocks, 2U);
    ASSERT_TRUE(a.load(*engine_, *found->lease, {8, 9}));
    ASSERT_TRUE(b.load(*engine_, *found->lease, {8, 9}));
    EXPECT_EQ(a.wrong(8, 5) + a.wrong(9, 6) + b.wrong(8, 5) + b.wrong(9, 6), 0U);
}

TEST_F(EngineTest, HybridGroupsAreStoredAndFoundApart) {
    Replica replica({.recurrent_layers = 2});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(4);
    replica.fill(0, 1);
    replica.fill(1, 2);
    ASSERT_TRUE(replica.save(*engine_, {0, 1}, {hashes[0], hashes[1]}));
    ASSERT_TRUE(replica.save(*engine_, {1}, {hashes[1]}, 1));
    EXPECT_EQ(query(*engine_, "replica", hashes)->hit_blocks, 2U);
    auto states = query(*engine_, "replica", hashes, 1);
    ASSERT_TRUE(states);
    EXPECT_EQ(states->hit_positions, std::vector<std::uint32_t>{1});
    replica.poison(6);
    EXPECT_NE(
        replica.load(*engine_, *states->lease, {6}, 0).error().message.find("namespace is shared by incompatible KV layouts"),
        std::string::npos);
    ASSERT_TRUE(replica.load(*engine_, *states->lease, {6}, 1)) << "the failed load burnt nothing";
    EXPECT_EQ(replica.wrong(6, 2, 1), 0U);
    EXPECT_GT(replica.wrong(6, 2, 0), 0U);
    EXPECT_EQ(query(*engine_, "replica", hashes, 2).error().code, Code::kInvalid);
}

TEST_F(EngineTest, LayersMayComeInSeveralSaves) {
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(1);
    replica.fill(2, 9);
    ASSERT_TRUE(replica.save(*engine_, {2}, hashes, 0, 0, 3));
    EXPECT_EQ(query(*engine_, "replica", hashes)->hit_blocks, 0U);
    auto rest = replica.save(*engine_, {2}, hashes);
    EXPECT_EQ(rest->bytes, 2U * 1024) << "only the missing layer moves";
    auto found = query(*engine_, "replica", hashes);
    ASSERT_EQ(found->hit_blocks, 1U);
    ASSERT_TRUE(replica.load(*engine_, *found->lease, {4}));
    EXPECT_EQ(replica.wrong(4, 9), 0U);
}

TEST_F(EngineTest, WhatIsThereIsNotCopiedAgain) {
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(2);
    ASSERT_TRUE(replica.save(*engine_, {0, 1}, hashes));
    auto again = replica.save(*engine_, {0, 1}, hashes);
    EXPECT_EQ(again->saved_blocks, 0U);
    EXPECT_EQ(again->duplicate_blocks, 2U);
    EXPECT_EQ(again->bytes, 0U);
    auto twice = replica.save(*engine_, {4, 5}, {make_hashes(3)[2], make_hashes(3)[2]});
    EXPECT_EQ(twice->saved_blocks, 1U);
}

TEST_F(EngineTest, AnotherLayoutInTheSameNamespaceIsAMiss) {
    Replica small({});
    Replica large({.instance = "other", .bytes = 2048});
    ASSERT_TRUE(engine_->register_worker(small.registration()));
    ASSERT_TRUE(engine_->register_worker(large.registration()));
    const auto hashes = make_hashes(1);
    ASSERT_TRUE(small.save(*engine_, {0}, hashes));
    EXPECT_EQ(query(*engine_, "other", hashes)->hit_blocks, 0U);
    Replica twin({.instance = "twin"});
    ASSERT_TRUE(engine_->register_worker(twin.registration()));
    EXPECT_EQ(query(*engine_, "twin", hashes)->hit_blocks, 1U) << "an equal layout shares";
}

TEST_F(EngineTest, AFullPoolEvictsTheOldestAndNeverAPinnedBlock) {
    start({.pool_bytes = 8 * 8192});  // eight pages of 4 layers x 2 x 1 KiB
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(20);
    replica.fill(0, 1);
    ASSERT_TRUE(replica.save(*engine_, {0}, {hashes[0]}));
    auto pinned = query(*engine_, "replica", {hashes[0]});
    for (std::size_t i = 1; i < 20; ++i) ASSERT_TRUE(replica.save(*engine_, {1}, {hashes[i]})) << i;
    EXPECT_TRUE(engine_->contains("replica", hashes[0]));
    EXPECT_TRUE(engine_->contains("replica", hashes[19]));
    EXPECT_FALSE(engine_->contains("replica", hashes[1]));
    EXPECT_EQ(engine_->stats().evictions, 12U) << "just enough";
    EXPECT_EQ(engine_->stats().resident_blocks, 8U);
    ASSERT_TRUE(replica.load(*engine_, *pinned->lease, {3}));
    EXPECT_EQ(replica.wrong(3, 1), 0U);
}

TEST_F(EngineTest, APoolOfPinnedBlocksAnswersInsteadOfHanging) {
    start({.pool_bytes = 4 * 8192});
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(5);
    ASSERT_TRUE(replica.save(*engine_, {0, 1, 2, 3}, {hashes[0], hashes[1], hashes[2], hashes[3]}));
    auto pinned = query(*engine_, "replica", hashes);
    ASSERT_EQ(pinned->hit_blocks, 4U);
    auto full = replica.save(*engine_, {4}, {hashes[4]});
    ASSERT_FALSE(full);
    EXPECT_NE(full.error().message.find("pinned pool exhausted while allocating"), std::string::npos);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    ASSERT_TRUE(engine_->release(*pinned->lease));
    EXPECT_TRUE(replica.save(*engine_, {4}, {hashes[4]}));
    EXPECT_EQ(engine_->release(*pinned->lease).error().message, "query lease is unknown or expired");
}

TEST_F(EngineTest, RefusesBadRequestsAndSaysWhy) {
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    EXPECT_EQ(engine_->register_worker(replica.registration()).error().code, Code::kExists);
    auto other = replica.registration();
    other.tp_size = 2;
    EXPECT_NE(engine_->register_worker(other).error().message.find("topology mismatch: instance replica exists with tp=1"),
              std::string::npos);
    EXPECT_EQ(replica.save(*engine_, {99}, make_hashes(1)).error().code, Code::kInvalid);
    EXPECT_EQ(replica.save(*engine_, {1, 2}, make_hashes(1)).error().message,
              "block_ids length 2 does not match block_hashes 1 for layer layer.100");
    EXPECT_EQ(replica.save(*engine_, {1}, {std::string(65, 'h')}).error().code, Code::kInvalid);
    EXPECT_EQ(query(*engine_, "nobody", make_hashes(1)).error().message, "instance nobody not found");
    EXPECT_EQ(engine_->query({.instance_id = "replica"}).error().message, "req_id must not be empty");
    EXPECT_EQ(replica.load(*engine_, LeaseId{}, {1}).error().message, "query lease is unknown or expired");
}

TEST_F(EngineTest, AFailedLoadBurnsNoShare) {
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(2);
    ASSERT_TRUE(replica.save(*engine_, {0, 1}, hashes));
    auto found = query(*engine_, "replica", hashes);
    EXPECT_NE(replica.load(*engine_, *found->lease, {1})
                  .error()
                  .message.find("block count 2 does not match destination block count 1"),
              std::string::npos);
    EXPECT_EQ(replica.load(*engine_, *found->lease, {1, 999}).error().code, Code::kInvalid);
    EXPECT_TRUE(replica.load(*engine_, *found->lease, {4, kNoBlock}));
}

class EventTest : public EngineTest {
protected:
    void SetUp() override {
        EngineTest::SetUp();
        device_ = *fabric_->device("host:0");
        stream_ = static_cast<const pega_ext_stream*>(device_->extension(PEGA_EXT_STREAM));
        ASSERT_EQ(stream_->create(device_->handle(), PEGA_EVENT_SHARED, &event_), PEGA_OK);
        std::uint64_t length = 0;
        exported_.resize(256);
        ASSERT_EQ(stream_->export_event(event_, exported_.data(), exported_.size(), &length), PEGA_OK);
        exported_.resize(length);
        ASSERT_TRUE(engine_->register_worker(replica_.registration()));
    }
    void TearDown() override { stream_->destroy(event_); }

    SaveRequest request(std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max()) {
        return {.instance_id = "replica", .layers = layers_, .wait_event = exported_, .deadline = deadline};
    }

    Replica replica_{Shape{.layers = 1}};
    Device* device_ = nullptr;
    const pega_ext_stream* stream_ = nullptr;
    pega_event* event_ = nullptr;
    std::string exported_;
    std::vector<std::uint32_t> ids_ = {0};
    std::vector<std::string> hashes_ = make_hashes(1);
    std::vector<std::string_view> views_{hashes_.begin(), hashes_.end()};
    std::vector<SaveLayer> layers_ = {{"layer.100", ids_, views_}};
};

TEST_F(EventTest, ASaveReadsItsSourceOnlyAfterTheClientsEvent) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "the exported event is another mapping of the same memory, through which the sanitizer sees no order";
#endif
    replica_.poison(0);
    std::atomic<int> done{0};
    engine_->save_async(request(), [&](Result<SaveOutcome> outcome) { done = outcome ? 1 : -1; });
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(done, 0);
    replica_.fill(0, 12);  // what the GPU would still be writing
    stream_->signal(event_, nullptr);
    while (done == 0) std::this_thread::yield();
    auto found = query(*engine_, "replica", hashes_);
    ASSERT_EQ(found->hit_blocks, 1U);
    ASSERT_TRUE(replica_.load(*engine_, *found->lease, {1}));
    EXPECT_EQ(replica_.wrong(1, 12), 0U);
}

TEST_F(EventTest, ADeadlineEndsASaveThatWaitsAndLeavesNothing) {
    auto outcome = engine_->save(request(std::chrono::steady_clock::now() + std::chrono::milliseconds(30)));
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Code::kDeadlineExceeded);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
}

TEST_F(EventTest, UnregisterWaitsForCopiesThatRun) {
    std::atomic<int> done{0};
    engine_->save_async(request(), [&](Result<SaveOutcome> outcome) { done = outcome ? 1 : -1; });
    std::atomic<bool> gone{false};
    std::thread unregister([&] {
        EXPECT_TRUE(engine_->unregister_instance("replica"));
        gone = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(gone);
    stream_->signal(event_, nullptr);
    unregister.join();
    EXPECT_EQ(done, 1);
    EXPECT_EQ(engine_->stats().instances, 0U);
}

TEST_F(EventTest, CloseCancelsAtItsDeadline) {
    std::atomic<int> done{0};
    engine_->save_async(request(), [&](Result<SaveOutcome> outcome) { done = outcome ? 1 : -1; });
    engine_->close(std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
    EXPECT_EQ(done, -1);
    EXPECT_EQ(engine_->save(request()).error().code, Code::kCanceled);
}

TEST_F(EngineTest, PartlyFilledBlocksAreDroppedAfterTheirTime) {
    start({.pool_bytes = 1 << 20, .incomplete_block_time = std::chrono::seconds(2)});
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    ASSERT_TRUE(replica.save(*engine_, {0}, make_hashes(1), 0, 0, 2));
    EXPECT_EQ(engine_->stats().incomplete_blocks, 1U);
    // The page is free, and the block counted, a moment after the index has let go of it.
    for (int i = 0; i < 1000 && (engine_->stats().incomplete_dropped == 0 || engine_->stats().pool_used_bytes != 0); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
    EXPECT_EQ(engine_->stats().incomplete_dropped, 1U);
}

TEST_F(EngineTest, CleanupDropsWhatNobodyUses) {
    Replica replica({});
    ASSERT_TRUE(engine_->register_worker(replica.registration()));
    const auto hashes = make_hashes(3);
    ASSERT_TRUE(replica.save(*engine_, {0, 1, 2}, hashes));
    ASSERT_TRUE(engine_->flush());
    auto pinned = query(*engine_, "replica", {hashes[0]});
    const MemoryCleanup cleanup = engine_->cleanup_memory();
    EXPECT_EQ(cleanup.evicted_blocks, 2U);
    EXPECT_EQ(cleanup.still_referenced_blocks, 1U);
    EXPECT_EQ(engine_->stats().resident_blocks, 1U);
    EXPECT_TRUE(engine_->contains("replica", hashes[0])) << "leased, so it stays";
    EXPECT_TRUE(replica.load(*engine_, *pinned->lease, {5}));
    for (int i = 0; i < 1000 && (engine_->stats().resident_blocks != 0 || engine_->stats().pool_used_bytes != 0); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_FALSE(engine_->contains("replica", hashes[0]));
    EXPECT_EQ(engine_->stats().pool_used_bytes, 0U);
}

TEST_F(EngineTest, ManyThreadsSaveQueryAndLoadUnderPressure) {
    start({.pool_bytes = 40 * 8192, .eviction_policy = "lru"});
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    std::atomic<int> loaded{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Replica replica({.instance = "replica-" + std::to_string(t)});
            if (!engine_->register_worker(replica.registration())) ++wrong;
            for (int round = 0; round < 60; ++round) {
                const int seed = (round * 7 + t) % 23;  // the replicas share contents
                const auto hashes = make_hashes(2, seed);
                replica.fill(0, seed * 2);
                replica.fill(1, seed * 2 + 1);
                if (!replica.save(*engine_, {0, 1}, hashes)) continue;
                auto found = query(*engine_, replica.shape().instance, hashes);
                if (!found) ++wrong;
                if (!found || found->hit_blocks != 2) {
                    if (found && found->lease) (void)engine_->release(*found->lease);
                    continue;
                }
                replica.poison(8);
                replica.poison(9);
                if (!replica.load(*engine_, *found->lease, {8, 9})) ++wrong;
                if (replica.wrong(8, seed * 2) + replica.wrong(9, seed * 2 + 1) != 0) ++wrong;
                ++loaded;
            }
            if (!engine_->unregister_instance(replica.shape().instance)) ++wrong;
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(loaded, 0);
    EXPECT_EQ(engine_->stats().leases, 0U);
    EXPECT_EQ(engine_->stats().incomplete_blocks, 0U);
}

}  // namespace
}  // namespace pegaflow
