// SPDX-License-Identifier: Apache-2.0
// What a save claims: lists of all kinds, and that what cannot be saved costs nobody a block.
#include "toy_worker.hpp"

namespace pegaflow {
namespace {

using toy::Hashes;
using toy::Hold;
using toy::ids;
using toy::ToyWorker;

class SaveClaimsTest : public toy::EngineTest {};

TEST_F(SaveClaimsTest, EveryLayerMayHaveBlocksOfItsOwn) {
    constexpr std::uint32_t kLayers = 40;
    open();
    ToyWorker w("i", 0, 0, 1, 1, kLayers + 1, toy::layers(kLayers, 64));
    enroll(w);
    Hashes hashes(0, kLayers + 1);
    w.write(hashes, ids(0, kLayers + 1));
    // Layer n lacks block n.
    std::vector<std::vector<std::uint32_t>> blocks(kLayers);
    std::vector<std::vector<std::string_view>> names(kLayers);
    auto request = saving(w, hashes, {});
    for (std::uint32_t n = 0; n < kLayers; ++n) {
        for (std::uint32_t block = 0; block <= kLayers; ++block) {
            if (block == n) continue;
            blocks[n].push_back(block);
            names[n].push_back(hashes.views()[block]);
        }
        request->layers[n].block_ids = blocks[n];
        request->layers[n].hashes = names[n];
    }
    std::swap(request->layers.front(), request->layers.back());
    const auto saved = engine_->save(request->request);
    ASSERT_TRUE(saved) << saved.error().message;
    EXPECT_EQ(saved->saved_blocks, std::uint64_t{kLayers} * kLayers);
    EXPECT_EQ(engine_->stats().resident_blocks, 1U) << "the last block has all layers";
    EXPECT_EQ(engine_->stats().incomplete_blocks, std::uint64_t{kLayers});
    fill(w, hashes);
    w.wipe();
    ASSERT_TRUE(load(w, lease_all("i", hashes), ids(0, kLayers + 1)));
    EXPECT_EQ(w.difference(hashes, ids(0, kLayers + 1)), "");
}

TEST_F(SaveClaimsTest, BlocksThatLackTooManyDifferentLayersAreSavedInSmallerParts) {
    constexpr std::uint32_t kLayers = 13, kBlocks = 1 << kLayers;
    open(small(std::uint64_t{64} << 20));
    ToyWorker w("i", 0, 0, 1, 1, kBlocks, toy::layers(kLayers, 16));
    enroll(w);
    for (std::uint32_t n = 0; n < kLayers; ++n) {  // block b has the layers that are its bits
        std::vector<std::uint32_t> blocks;
        std::vector<std::string> texts;
        for (std::uint32_t b = 0; b < kBlocks; ++b) {
            if ((b >> n & 1) == 0) continue;
            blocks.push_back(b);
            texts.push_back(fmt::format("content-hash-{:019}", b));
        }
        const std::vector<std::string_view> views(texts.begin(), texts.end());
        const std::string name = fmt::format("layer.{:02}", n);
        const SaveLayer layer[] = {{name, blocks, views}};
        SaveRequest request;
        request.instance_id = "i";
        request.layers = layer;
        ASSERT_TRUE(engine_->save(request));
    }
    const std::uint64_t used = engine_->stats().pool_used_bytes;
    Hashes all(0, kBlocks), some(0, 500);
    const auto refused = save(w, all, ids(0, kBlocks));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("save fewer at once"));
    EXPECT_EQ(engine_->stats().pool_used_bytes, used) << "nothing of it is left";
    const auto saved = save(w, some, ids(0, 500));
    ASSERT_TRUE(saved) << saved.error().message;
    EXPECT_EQ(query("i", some.views())->hit_blocks, 500U);
}

TEST_F(SaveClaimsTest, AQueueThatIsFullCostsNobodyABlock) {
    EngineOptions options = small(std::uint64_t{64} << 10);  // 16 pages
    options.max_queued_transfers = 1;
    open(options);
    ToyWorker w("i", 0, 0, 1, 1, 32, toy::layers(1, 4096));
    enroll(w);
    Hashes old(0, 15), held(100, 1), late(200, 4);
    fill(w, old);
    Hold hold(*fabric_);
    auto slow = saving(w, held, {20});
    slow->request.local_event = hold.event();
    std::promise<Result<SaveOutcome>> done;
    engine_->save_async(slow->request, [&](Result<SaveOutcome> r) { done.set_value(std::move(r)); });
    const auto full = engine_->save(saving(w, late, ids(24, 4))->request);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, Code::kQueueFull);
    EXPECT_EQ(engine_->stats().evictions, 0U);
    EXPECT_EQ(engine_->stats().resident_blocks, 15U);
    hold.release();
    EXPECT_TRUE(done.get_future().get());
    EXPECT_TRUE(save(w, late, ids(24, 4)));
}

TEST_F(SaveClaimsTest, MoreThanThePoolHoldsDrivesNothingOut) {
    open(small(std::uint64_t{256} << 10));  // 64 pages
    ToyWorker w("i", 0, 0, 1, 1, 128, toy::layers(2, 2048));
    enroll(w);
    Hashes old(0, 16), huge(10, 65), whole(10, 64);
    fill(w, old);
    const auto refused = save(w, huge, ids(20, 65));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kNoMemory);
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("save fewer blocks at once"));
    EXPECT_EQ(engine_->stats().evictions, 0U);
    EXPECT_EQ(query("i", old.views())->hit_blocks, 16U);
    ASSERT_TRUE(engine_->release(lease_all("i", old)));
    // The same block many times, and in a list of its own, is one block.
    std::vector<std::string_view> often(200, old.views()[3]);
    const std::vector<std::uint32_t> blocks(200, 3);
    const SaveLayer layers[] = {{"layer.00", blocks, often},
                                {"layer.01", std::span(blocks).first(1), std::span(often).first(1)}};
    SaveRequest request;
    request.instance_id = "i";
    request.layers = layers;
    EXPECT_EQ(engine_->save(request)->duplicate_blocks, 201U);
}

TEST_F(SaveClaimsTest, APageThatNoSliceHoldsIsRefusedWhenTheInstanceSeals) {
    EngineOptions options = small(std::uint64_t{1} << 20);
    options.pool_slice_bytes = std::uint64_t{64} << 10;
    open(options);
    ToyWorker large("large", 0, 0, 1, 1, 4, toy::layers(2, 33 << 10)), fits("fits", 0, 0, 1, 1, 4, toy::layers(2, 32 << 10));
    const auto refused = engine_->register_worker(large.registration);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_THAT(refused.error().message, ::testing::HasSubstr("more than any slice of the pool"));
    EXPECT_TRUE(engine_->instances().empty());
    enroll(fits);
    Hashes hashes(0, 1);
    fill(fits, hashes);
    EXPECT_EQ(query("fits", hashes.views())->hit_blocks, 1U);
}

}  // namespace
}  // namespace pegaflow
