// SPDX-License-Identifier: Apache-2.0
#include "engine/block/layout.hpp"

#include "tests/unit/engine/replica.hpp"

namespace pegaflow::engine {
namespace {

using testing::Replica;

LayerRegistration layer(std::uint64_t blocks, std::uint64_t bytes, std::uint32_t segments, std::uint64_t stride,
                        std::uint64_t length) {
    LayerRegistration out;
    out.name = "l";
    out.num_blocks = blocks;
    out.bytes_per_block = bytes;
    out.segments = segments;
    out.kv_stride_bytes = stride;
    out.memory.length = length;
    return out;
}

TEST(LayerGeometry, FollowsTheRulesForSegments) {
    EXPECT_EQ(layer_geometry(layer(10, 100, 1, 0, 1000))->block_stride, 100U);
    const auto touching = layer_geometry(layer(10, 100, 2, 100, 2000));
    EXPECT_EQ(touching->segments, 1U);
    EXPECT_EQ(touching->segment_bytes, 200U);
    const auto split = layer_geometry(layer(10, 100, 2, 1000, 2000));
    EXPECT_EQ(split->segments, 2U);
    EXPECT_EQ(split->segment_stride, 1000U);
    EXPECT_FALSE(layer_geometry(layer(10, 100, 2, 0, 2000)));
    EXPECT_NE(layer_geometry(layer(10, 100, 2, 50, 2000)).error().message.find("segments would overlap"), std::string::npos);
    EXPECT_FALSE(layer_geometry(layer(10, 100, 3, 1000, 9000)));
    EXPECT_FALSE(layer_geometry(layer(10, 100, 2, 900, 2000))) << "V of block 0 lies in K of block 9";
    EXPECT_FALSE(layer_geometry(layer(10, 100, 1, 0, 999)));
    EXPECT_FALSE(layer_geometry(layer(0, 100, 1, 0, 1000)));
    EXPECT_FALSE(layer_geometry(layer(UINT64_MAX / 2, 100, 1, 0, 1000)));
}

TEST(SealLayout, RefusesWorkersThatDoNotFit) {
    Replica a({.tp_rank = 0, .tp_size = 2, .world_size = 2});
    Replica b({.tp_rank = 1, .tp_size = 2, .world_size = 2, .device_id = 1, .bytes = 2048});
    const auto first = a.registration();
    auto second = b.registration();
    const WorkerRegistration* both[] = {&first, &second};
    EXPECT_NE(seal_layout(both).error().message.find("inconsistent geometry"), std::string::npos);
    second = first;
    const WorkerRegistration* same[] = {&first, &second};
    EXPECT_NE(seal_layout(same).error().message.find("has no owner for tp_rank 1"), std::string::npos);
    auto sparse = first;
    sparse.tp_size = 1;
    sparse.layers[0].storage_group = 2;
    const WorkerRegistration* one[] = {&sparse};
    EXPECT_NE(seal_layout(one).error().message.find("storage groups must be dense"), std::string::npos);
}

TEST(SealLayout, PlacesLayersSideBySideAndFingerprintsThem) {
    Replica replica({.layers = 3, .bytes = 1000});
    const auto registration = replica.registration();
    const WorkerRegistration* all[] = {&registration};
    const auto layout = seal_layout(all);
    ASSERT_TRUE(layout) << layout.error().message;
    const Shard& shard = layout->groups[0][0];
    EXPECT_EQ(shard.layers[0].offset, 0U);
    EXPECT_EQ(shard.layers[1].offset, 2048U);
    EXPECT_EQ(shard.page_bytes % kPageAlignment, 0U);
    EXPECT_EQ(shard.content_bytes, 3 * 2048U);
    ASSERT_EQ(shard.gaps.size(), 3U) << "behind every layer";
    EXPECT_EQ(shard.gaps[2].offset, 2 * 2048U + 2000);
    EXPECT_EQ(shard.gaps[2].bytes, 48U);
    EXPECT_EQ(layout->shapes[0].shards[0].content_bytes, shard.content_bytes);
    EXPECT_EQ(layout->find(0, 0, "layer.102")->layer, 2U);
    EXPECT_EQ(layout->find(1, 0, "layer.102"), nullptr);
    auto other = registration;
    other.dtype = "float8";
    const WorkerRegistration* changed[] = {&other};
    EXPECT_NE(seal_layout(changed)->fingerprint, layout->fingerprint);
    EXPECT_EQ(seal_layout(all)->fingerprint, layout->fingerprint);
}

WorkerRegistration worker(std::int32_t device, std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t pp_rank,
                          const std::vector<std::string>& names) {
    WorkerRegistration out;
    out.instance_id = "i";
    out.device_id = device;
    out.tp_rank = tp_rank;
    out.tp_size = tp_size;
    out.pp_rank = pp_rank;
    out.dtype = "bfloat16";
    for (const std::string& name : names) {
        out.layers.push_back(layer(8, 1000, 1, 0, 8000));
        out.layers.back().name = name;
    }
    return out;
}

Result<Layout> seal(const std::vector<WorkerRegistration>& workers) {
    std::vector<const WorkerRegistration*> pointers;
    for (const WorkerRegistration& w : workers) pointers.push_back(&w);
    return seal_layout(pointers);
}

std::string refusal(const std::vector<WorkerRegistration>& workers) {
    const auto layout = seal(workers);
    return layout ? "accepted" : layout.error().message;
}

TEST(LayerGeometry, AnExplicitStrideMayLeaveGapsAndHoldBothSegments) {
    LayerRegistration l = layer(4, 100, 2, 150, 3 * 300 + 150 + 100);
    l.block_stride_bytes = 300;
    const auto g = layer_geometry(l);
    ASSERT_TRUE(g) << g.error().message;
    EXPECT_EQ(g->block_stride, 300U);
    EXPECT_EQ(g->segment_stride, 150U);
    l.memory.length -= 1;
    EXPECT_THAT(layer_geometry(l).error().message, ::testing::HasSubstr("needs 1150 bytes, its memory has 1149"));
    l.block_stride_bytes = 99;
    EXPECT_THAT(layer_geometry(l).error().message, ::testing::HasSubstr("block stride 99"));
}

TEST(LayerGeometry, NumbersThatOverflowAreRefused) {
    const std::uint64_t half = std::uint64_t{1} << 63;
    EXPECT_THAT(layer_geometry(layer(std::uint64_t{1} << 40, std::uint64_t{1} << 30, 1, 0, UINT64_MAX)).error().message,
                ::testing::HasSubstr("overflows"));
    EXPECT_THAT(layer_geometry(layer(2, half, 2, half, UINT64_MAX)).error().message, ::testing::HasSubstr("overflows"));
    EXPECT_THAT(layer_geometry(layer(2, 16, 2, UINT64_MAX - 16, UINT64_MAX)).error().message,
                ::testing::HasSubstr("overflows"));
}

TEST(SealLayout, EachRankAndStageIsAShardAndReplicasShareOne) {
    const auto ranks = seal({worker(0, 0, 2, 0, {"a"}), worker(1, 1, 2, 0, {"a"})});
    ASSERT_TRUE(ranks) << ranks.error().message;
    EXPECT_EQ(ranks->groups[0].size(), 2U);
    EXPECT_NE(ranks->find(0, 0, "a")->shard, ranks->find(1, 0, "a")->shard);
    const auto stages = seal({worker(0, 0, 1, 0, {"a"}), worker(1, 0, 1, 1, {"b"})});
    ASSERT_TRUE(stages) << stages.error().message;
    EXPECT_EQ(stages->groups[0].size(), 2U);
    EXPECT_EQ(stages->find(0, 0, "b"), nullptr);
    EXPECT_NE(stages->find(0, 1, "b"), nullptr);
    const auto replicas = seal({worker(0, 0, 1, 0, {"a"}), worker(1, 0, 1, 0, {"a"})});
    ASSERT_TRUE(replicas) << replicas.error().message;
    EXPECT_EQ(replicas->groups[0].size(), 1U);
    EXPECT_THAT(refusal({worker(0, 0, 1, 0, {"a"}), worker(1, 0, 1, 1, {"a"})}),
                ::testing::HasSubstr("claimed by different pipeline stages"));
}

TEST(SealLayout, PageFirstWorkersShareAllLayersOrNone) {
    const auto page_first = [](std::vector<WorkerRegistration> workers) {
        for (WorkerRegistration& w : workers) w.page_first = true;
        return workers;
    };
    const auto same = seal(page_first({worker(0, 0, 1, 0, {"a", "b"}), worker(1, 0, 1, 0, {"b", "a"})}));
    ASSERT_TRUE(same) << same.error().message;
    EXPECT_EQ(same->groups[0].size(), 1U);
    EXPECT_TRUE(seal(page_first({worker(0, 0, 1, 0, {"a", "b"}), worker(1, 0, 1, 1, {"c"}), worker(2, 0, 1, 1, {"c"})})));
    EXPECT_TRUE(seal(page_first({worker(0, 0, 2, 0, {"a"}), worker(1, 1, 2, 0, {"a"})})));
    const std::vector<WorkerRegistration> overlap = {worker(0, 0, 1, 0, {"a", "b"}), worker(1, 0, 1, 0, {"b", "c"})};
    EXPECT_THAT(
        refusal(page_first(overlap)),
        ::testing::HasSubstr("same layers or none in common: device 1 has 2 layers, device 0 has 2, and 1 are in both"));
    EXPECT_THAT(refusal(page_first({worker(0, 0, 1, 0, {"a", "b"}), worker(1, 0, 1, 0, {"b"})})),
                ::testing::HasSubstr("device 1 has 1 layers, device 0 has 2, and 1 are in both"));
    EXPECT_THAT(refusal(page_first({worker(0, 0, 1, 0, {"a"}), worker(1, 0, 1, 0, {"b"}), worker(2, 0, 1, 0, {"a", "b"})})),
                ::testing::HasSubstr("device 2 has 2 layers, device 0 has 1"));
    EXPECT_TRUE(seal(overlap)) << "layer by layer, replicas may overlap";
}

TEST(SealLayout, StorageGroupsAreApartAndAgreed) {
    WorkerRegistration hybrid = worker(0, 0, 1, 0, {"a", "m", "b"});
    hybrid.layers[1].storage_group = 1;
    const auto layout = seal({hybrid});
    ASSERT_TRUE(layout) << layout.error().message;
    ASSERT_EQ(layout->groups.size(), 2U);
    EXPECT_EQ(layout->groups[0][0].layers.size(), 2U);
    EXPECT_EQ(layout->find(0, 0, "m")->group, 1U);
    hybrid.page_first = true;
    EXPECT_THAT(refusal({hybrid}), ::testing::HasSubstr("page_first needs one storage group"));
    hybrid.layers[1].storage_group = UINT32_MAX;
    EXPECT_THAT(refusal({hybrid}), ::testing::HasSubstr("storage groups must be dense"));
    WorkerRegistration other = worker(1, 1, 2, 0, {"a"});
    other.layers[0].storage_group = 1;
    EXPECT_THAT(refusal({worker(0, 0, 2, 0, {"a"}), other}),
                ::testing::HasSubstr("storage group 1 on device 1, but 0 elsewhere"));
}

TEST(SealLayout, TheFingerprintIsOfWhatABlockLooksLikeAndNothingElse) {
    const WorkerRegistration base = worker(0, 0, 1, 0, {"a", "b"});
    const auto print = [](const WorkerRegistration& w) { return seal({w})->fingerprint; };
    WorkerRegistration same = base;
    std::swap(same.layers[0], same.layers[1]);
    same.device_id = 7;
    same.instance_id = "other";
    same.layers[0].num_blocks = 4;
    EXPECT_EQ(print(same), print(base));
    WorkerRegistration bytes = base, names = base, halves = base;
    bytes.layers[1].bytes_per_block = 500;
    names.layers[1].name = "c";
    halves.layers[1].bytes_per_block = 500;
    halves.layers[1].segments = 2;
    for (const WorkerRegistration& other : {bytes, names, halves}) EXPECT_NE(print(other), print(base));
}

TEST(SealLayout, PagesThatOverflowAreRefused) {
    WorkerRegistration huge = worker(0, 0, 1, 0, {"a", "b", "c"});
    for (LayerRegistration& l : huge.layers) l.bytes_per_block = std::uint64_t{1} << 61;
    EXPECT_THAT(refusal({huge}), ::testing::HasSubstr("overflows"));
}

TEST(SealLayout, NoNamesMakeTwoLayoutsLookAlike) {
    const auto print = [](const WorkerRegistration& w) { return seal({w})->fingerprint; };
    // What one says in a name, the other says in its dtype, or in a layer more.
    WorkerRegistration plain = worker(0, 0, 1, 0, {"a"}), sly = plain, both = worker(0, 0, 1, 0, {"a", "b"});
    plain.dtype = "bf16";
    sly.dtype = "bf16;tp1;world1;g0t0p0:4096;a@0=1x1000";
    EXPECT_NE(print(sly), print(plain));
    WorkerRegistration joined = worker(0, 0, 1, 0, {"a@0=1x1000;b"});
    EXPECT_NE(print(joined), print(both));
    WorkerRegistration early = worker(0, 0, 1, 0, {"ab", "c"}), late = worker(0, 0, 1, 0, {"a", "bc"});
    EXPECT_NE(print(early), print(late));
    EXPECT_EQ(print(plain).size(), 64U);
}

}  // namespace
}  // namespace pegaflow::engine
