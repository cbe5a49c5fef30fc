// SPDX-License-Identifier: Apache-2.0
// Digests of pages: those that the copy of a save brings, those of the digest thread, and blocks that have some of each.
#include "toy_worker.hpp"

namespace pegaflow {
namespace {

using toy::Hashes;
using toy::ids;
using toy::ToyLayer;
using toy::ToyWorker;

class DigestTest : public toy::EngineTest {
protected:
    void SetUp() override {
        EngineTest::SetUp();
        start();
    }
    void start(std::uint64_t pool_bytes = std::uint64_t{32} << 20) {
        EngineOptions options = small(pool_bytes);
        options.verify_on_load = true;
        open(options);
    }
    // From now on a byte of what every save moves is changed behind the copy's back.
    void start_with_corrupt_saves() {
        engine_.reset();
        FabricOptions options{.backends = {"host"}, .wrap = {{"fault", "host"}}};
        options.options["fault"] = {{"corrupt", "1"}, {"op", "write"}};
        auto fabric = Fabric::open(options);
        ASSERT_TRUE(fabric) << fabric.error().message;
        fabric_ = std::move(*fabric);
        start();
    }
    // Saves block after block, layer by layer: no copy fills a page.
    void fill_by_layers(ToyWorker& worker, const Hashes& hashes) {
        worker.write(hashes, ids(0, hashes.size()));
        for (const std::string_view name : worker.layer_names())
            ASSERT_TRUE(save(worker, hashes, ids(0, hashes.size()), {name}));
    }
    void expect_right(ToyWorker& worker, const Hashes& hashes, std::string_view instance = "i") {
        worker.wipe();
        const auto loaded = load(worker, lease_all(instance, hashes), ids(0, hashes.size()));
        ASSERT_TRUE(loaded) << loaded.error().message;
        EXPECT_EQ(worker.difference(hashes, ids(0, hashes.size())), "");
        EXPECT_EQ(engine_->stats().digest_mismatches, 0U);
    }
};

TEST_F(DigestTest, WhatGoesWrongInTheCopyOfASaveIsFound) {
    start_with_corrupt_saves();
    ToyWorker worker{"i", 0, 0, 1, 1, 64, toy::layers(3, 512)};
    enroll(worker);
    const Hashes hashes{0, 1};
    fill(worker, hashes);
    const auto bad = load(worker, lease_all("i", hashes), ids(20, 1));
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().code, Code::kCorrupt);
    EXPECT_TRUE(worker.untouched(20));
    EXPECT_EQ(engine_->stats().digest_mismatches, 1U);
    EXPECT_EQ(engine_->stats().quarantined_blocks, 1U);
}

// The digest thread sees only what is in the pool already: that this passes shows that the digests above are the copy's.
TEST_F(DigestTest, SavesByLayerGetTheirDigestsAfterwards) {
    start_with_corrupt_saves();
    ToyWorker worker{"i", 0, 0, 1, 1, 64, toy::layers(3, 512)};
    enroll(worker);
    const Hashes hashes{0, 1};
    fill_by_layers(worker, hashes);
    EXPECT_TRUE(load(worker, lease_all("i", hashes), ids(20, 1)));
    EXPECT_EQ(engine_->stats().digest_mismatches, 0U);
}

TEST_F(DigestTest, EveryWayToFillAPageGivesTheSameDigest) {
    ToyWorker worker{"i", 0, 0, 1, 1, 64, toy::layers(5, 328, 2, true)};
    enroll(worker);
    const Hashes whole{0, 8}, by_layers{100, 8};
    fill(worker, whole);
    expect_right(worker, whole);
    fill_by_layers(worker, by_layers);
    expect_right(worker, by_layers);
}

TEST_F(DigestTest, GapsBetweenLayersCountAndPaddingDoesNot) {
    for (const std::uint64_t bytes : {8U, 72U, 200U, 1024U, 4096U, 70'000U}) {
        start();
        // What was there before is left in the gaps.
        ToyWorker first{"first", 0, 0, 1, 1, 8, toy::layers(4, 65'536)};
        enroll(first);
        fill(first, Hashes{500, 8});
        static_cast<void>(engine_->cleanup_memory());
        ToyWorker worker{"i", 1, 0, 1, 1, 16, toy::layers(3, bytes)};
        enroll(worker);
        const Hashes hashes{0, 16};
        fill(worker, hashes);
        expect_right(worker, hashes);
    }
}

TEST_F(DigestTest, LayersThatAreNoWholeWordsAreLeftToTheThread) {
    std::vector<ToyLayer> layers = toy::layers(3, 1020);
    layers[1].segment_bytes = 13;
    ToyWorker worker{"i", 0, 0, 1, 1, 16, layers};
    enroll(worker);
    const Hashes hashes{0, 16};
    fill(worker, hashes);
    expect_right(worker, hashes);
}

TEST_F(DigestTest, ABlockWithPagesOfBothKinds) {
    ToyWorker whole{"i", 0, 0, 2, 2, 16, toy::layers(3, 512)};
    ToyWorker by_layers{"i", 1, 1, 2, 2, 16, toy::layers(3, 512)};
    enroll(whole);
    enroll(by_layers);
    const Hashes hashes{0, 16}, more{100, 16};
    fill(whole, hashes);
    fill_by_layers(by_layers, hashes);
    fill_by_layers(by_layers, more);
    fill(whole, more);
    for (const Hashes* these : {&hashes, &more}) {
        const LeaseId lease = lease_all("i", *these);
        for (ToyWorker* worker : {&whole, &by_layers}) {
            worker->wipe();
            ASSERT_TRUE(load(*worker, lease, ids(0, 16)));
            EXPECT_EQ(worker->difference(*these, ids(0, 16)), "");
        }
    }
    EXPECT_EQ(engine_->stats().digest_mismatches, 0U);
}

TEST_F(DigestTest, ReusedPagesHaveTheDigestsOfTheirNewBlocks) {
    start(256 << 10);
    ToyWorker worker{"i", 0, 0, 1, 1, 16, toy::layers(3, 1000)};
    enroll(worker);
    for (std::uint32_t round = 0; round < 40; ++round) {
        const Hashes hashes{round * 16, 16};
        round % 3 == 2 ? fill_by_layers(worker, hashes) : fill(worker, hashes);
        expect_right(worker, hashes);
    }
    EXPECT_GT(engine_->stats().evictions, 0U);
}

// No digest is waited for: a full pool takes one save after another.
TEST_F(DigestTest, ABlockThatHasItsDigestsCanGoAtOnce) {
    start(256 << 10);
    ToyWorker worker{"i", 0, 0, 1, 1, 16, toy::layers(1, 4096)};
    enroll(worker);
    for (std::uint32_t round = 0; round < 200; ++round) {
        const Hashes hashes{round * 16, 16};
        worker.write(hashes, ids(0, 16));
        ASSERT_TRUE(engine_->save(saving(worker, hashes, ids(0, 16))->request));
    }
    EXPECT_EQ(engine_->stats().pool_alloc_failures, 0U);
    EXPECT_EQ(engine_->cleanup_memory().still_referenced_blocks, 0U);
}

}  // namespace
}  // namespace pegaflow
