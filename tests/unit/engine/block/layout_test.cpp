// SPDX-License-Identifier: Apache-2.0
#include "engine/block/layout.hpp"

#include "tests/unit/engine/replica.hpp"

namespace pegaflow::engine {
namespace {

using testing::Replica;

LayerRegistration layer(std::uint64_t blocks, std::uint64_t bytes, std::uint32_t segments, std::uint64_t stride, std::uint64_t length) {
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
    EXPECT_EQ(layout->find(0, 0, "layer.102")->layer, 2U);
    EXPECT_EQ(layout->find(1, 0, "layer.102"), nullptr);
    auto other = registration;
    other.dtype = "float8";
    const WorkerRegistration* changed[] = {&other};
    EXPECT_NE(seal_layout(changed)->fingerprint, layout->fingerprint);
    EXPECT_EQ(seal_layout(all)->fingerprint, layout->fingerprint);
}

}  // namespace
}  // namespace pegaflow::engine
