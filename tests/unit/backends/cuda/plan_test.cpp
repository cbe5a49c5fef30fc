// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <gtest/gtest.h>

#include "device.hpp"

namespace cuda_backend {
namespace {

constexpr std::uint64_t kGpu = 1U << 30, kHost = 1U << 20;

class PlanTest : public ::testing::Test {
protected:
    PlanTest() {
        for (pega_region* region : {&gpu_, &host_}) {
            region->device = device();
            region->length = 1U << 26;
        }
        gpu_.kind = PEGA_MEMORY_GPU;
        gpu_.base = kGpu;
        host_.kind = PEGA_MEMORY_HOST;
        host_.base = kHost;
    }
    pega_device* device() { return reinterpret_cast<pega_device*>(this); }  // compared, never used
    pega_batch spans(std::uint32_t op) {
        pega_batch batch{};
        batch.size = sizeof batch;
        batch.op = op;
        batch.format = PEGA_FORMAT_SPANS;
        batch.span_size = sizeof(pega_span);
        batch.spans = spans_.data();
        batch.span_count = spans_.size();
        batch.local_index = local_.data();
        batch.remote_index = remote_.data();
        batch.index_count = local_.size();
        return batch;
    }
    // Layers of K and V on the GPU, each a tensor; pages on the host with everything of a block.
    void llama(std::uint32_t layers, std::uint64_t fragment, std::uint64_t blocks) {
        for (std::uint32_t l = 0; l < layers; ++l) {
            spans_.push_back({&gpu_, &host_, l * 2 * blocks * fragment, fragment, blocks * fragment, l * 2 * fragment,
                              layers * 2 * fragment, fragment, fragment, 2, 0});
        }
    }
    pega_region gpu_, host_;
    std::vector<pega_span> spans_;
    std::vector<std::uint64_t> local_, remote_;
    Plan plan_;
};

TEST_F(PlanTest, PagesOfAllLayersAreOneRunOnTheHost) {
    llama(4, 2048, 64);
    local_ = {9, 3, 40};
    remote_ = {5, 6, 7};
    const pega_batch batch = spans(PEGA_OP_WRITE);
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_FALSE(plan_.to_a);
    EXPECT_TRUE(plan_.b_is_host);
    EXPECT_TRUE(plan_.aligned);
    ASSERT_EQ(plan_.groups.size(), 1U);
    EXPECT_TRUE(plan_.groups[0].dense);
    EXPECT_EQ(plan_.groups[0].block_bytes, 4 * 2 * 2048U);
    EXPECT_EQ(plan_.bytes, 3 * 4 * 2 * 2048U);
    EXPECT_EQ(plan_.fragment, 2048U);
    EXPECT_EQ(plan_.page_run, plan_.bytes) << "three pages that follow each other";
}

TEST_F(PlanTest, PagesInAnyOrderAreSortedWhereTheyAreDense) {
    llama(2, 4096, 64);
    local_ = {1, 2, 3, 4};
    remote_ = {3, 0, 2, 1};
    const pega_batch batch = spans(PEGA_OP_READ);
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_TRUE(plan_.to_a);
    EXPECT_EQ(plan_.page_run, plan_.bytes);
    for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(plan_.pair(i).b, i);
    EXPECT_EQ(plan_.pair(0).a, 2U) << "pairs stay pairs";
    EXPECT_EQ(plan_.pair(3).a, 1U);
}

TEST_F(PlanTest, DigestsKeepTheOriginOfSortedPairsAndThePlaceOfTiles) {
    llama(2, 4096, 64);
    local_ = {1, 2, 3, 4};
    remote_ = {3, 0, 2, 1};
    const pega_batch batch = spans(PEGA_OP_WRITE);
    ASSERT_EQ(plan_.build(batch, device(), true), PEGA_OK);
    ASSERT_TRUE(plan_.digestible);
    const std::vector<std::uint64_t> origins = {1, 3, 2, 0};
    for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(plan_.origin(i), origins[i]);
    for (const cuda_backend::Tile& tile : plan_.tiles) EXPECT_EQ(tile.b, kHost + tile.place);
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_FALSE(plan_.digestible);
}

TEST_F(PlanTest, OddPlacesHaveNoDigests) {
    spans_.push_back({&gpu_, &host_, 0, 1024, 0, 4, 1024, 0, 512, 1, 0});
    local_ = remote_ = {1, 2};
    ASSERT_EQ(plan_.build(spans(PEGA_OP_WRITE), device(), true), PEGA_OK);
    EXPECT_FALSE(plan_.digestible);
}

TEST_F(PlanTest, PlacesThatTheKernelsCannotCountHaveNoDigests) {
    host_.length = std::uint64_t{1} << 36;
    local_ = remote_ = {0, 1};
    spans_.push_back({&gpu_, &host_, 0, 1024, 0, (std::uint64_t{1} << 35) - 512, 512, 0, 512, 1, 0});
    ASSERT_EQ(plan_.build(spans(PEGA_OP_WRITE), device(), true), PEGA_OK);
    EXPECT_TRUE(plan_.digestible);
    spans_.back().remote_base = std::uint64_t{1} << 35;
    ASSERT_EQ(plan_.build(spans(PEGA_OP_WRITE), device(), true), PEGA_OK);
    EXPECT_FALSE(plan_.digestible);
}

TEST_F(PlanTest, ScatteredPagesKeepTheCallersOrder) {
    llama(1, 4096, 64);
    local_ = {1, 2, 3};
    remote_ = {900, 20, 400};
    const pega_batch batch = spans(PEGA_OP_READ);
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_EQ(plan_.pair(0).b, 900U);
    EXPECT_EQ(plan_.page_run, 8192U);
}

TEST_F(PlanTest, NeighboursOnBothSidesAreOneRun) {
    spans_.push_back({&gpu_, &host_, 0, 1024, 0, 0, 1024, 0, 1024, 1, 0});
    local_ = {4, 5, 6, 20};
    remote_ = {0, 1, 2, 3};
    const pega_batch batch = spans(PEGA_OP_WRITE);
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    Cursor cursor;
    cuda_backend::Run run;
    ASSERT_TRUE(plan_.next_run(cursor, 1, run));
    EXPECT_EQ(run.a, kGpu + 4 * 1024);
    EXPECT_EQ(run.b, kHost);
    EXPECT_EQ(run.bytes, 3 * 1024U);
    ASSERT_TRUE(plan_.next_run(cursor, 1, run));
    EXPECT_EQ(run.bytes, 1024U);
    EXPECT_FALSE(plan_.next_run(cursor, 1, run));
    EXPECT_EQ(plan_.fragment, 2048U);
}

TEST_F(PlanTest, MarksMakeGroups) {
    llama(6, 1024, 16);
    local_ = {0, 1};
    remote_ = {0, 1};
    pega_batch batch = spans(PEGA_OP_READ);
    batch.mark_every = 4;
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    ASSERT_EQ(plan_.groups.size(), 2U);
    EXPECT_EQ(plan_.groups[0].spans_after, 4U);
    EXPECT_EQ(plan_.groups[0].tile_count, 8U);
    EXPECT_EQ(plan_.groups[1].spans_after, 6U);
    EXPECT_EQ(plan_.groups[1].tile_count, 4U);
}

TEST_F(PlanTest, AlignmentAndNarrownessFollowFromStridesAndIndices) {
    spans_.push_back({&gpu_, &host_, 0, 1, 0, 0, 1, 0, 512, 1, 0});
    local_ = {0, 512, 1024};
    remote_ = {4096, 8192, 512};
    pega_batch batch = spans(PEGA_OP_WRITE);
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_TRUE(plan_.aligned);
    EXPECT_EQ(plan_.index_bytes, 2U);
    EXPECT_EQ(plan_.index_shift, 9U);
    local_[1] = 513;
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_FALSE(plan_.aligned);
    EXPECT_EQ(plan_.index_shift, 0U);
    remote_[1] = 0x10000;
    ASSERT_EQ(plan_.build(batch, device(), false), PEGA_OK);
    EXPECT_EQ(plan_.index_bytes, 4U);
}

TEST_F(PlanTest, WhatIsNotSoundIsRefused) {
    llama(1, 4096, 16);
    local_ = {0, 1U << 20};  // beyond the GPU region
    remote_ = {0, 1};
    EXPECT_EQ(plan_.build(spans(PEGA_OP_WRITE), device(), false), PEGA_INVALID);
    local_ = {0, UINT64_MAX / 2};  // wraps around
    EXPECT_EQ(plan_.build(spans(PEGA_OP_WRITE), device(), false), PEGA_INVALID);
    local_ = {0, 1};
    host_.flags = PEGA_REGION_READ_ONLY;
    EXPECT_EQ(plan_.build(spans(PEGA_OP_WRITE), device(), false), PEGA_INVALID);
    EXPECT_EQ(plan_.build(spans(PEGA_OP_READ), device(), false), PEGA_OK);
    spans_[0].segments = 0;
    EXPECT_EQ(plan_.build(spans(PEGA_OP_READ), device(), false), PEGA_INVALID);
}

}  // namespace
}  // namespace cuda_backend
