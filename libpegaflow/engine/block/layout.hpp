// SPDX-License-Identifier: Apache-2.0
// layout.hpp - where the bytes of a block are, on the worker and in the pool; pure functions over what the workers registered.
//
// A block has one page for each shard of its storage group. A shard is what one tensor-parallel rank of one pipeline stage
// holds of the group; replicas share it. Its layers lie side by side in its page, in the order of their ids (rank of the name
// in byte order).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block/index.hpp"
#include "pegaflow/engine.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

inline constexpr std::uint64_t kPageAlignment = 4096;
inline constexpr std::uint64_t kLayerAlignment = 64;

// One layer's geometry on a worker: segment s of block b is at b * block_stride + s * segment_stride.
struct LayerGeometry {
    std::uint64_t num_blocks = 0;
    std::uint64_t segment_bytes = 0;
    std::uint32_t segments = 1;
    std::uint64_t block_stride = 0;
    std::uint64_t segment_stride = 0;
};

// Checks a layer and works out its strides. kInvalid with layer, rule and numbers. [any]
Result<LayerGeometry> layer_geometry(const LayerRegistration& layer);

struct ShardLayer {
    std::string name;
    std::uint64_t offset = 0;  // in the shard's page
    std::uint64_t segment_bytes = 0;
    std::uint32_t segments = 1;
};

struct Shard {
    std::uint32_t group = 0;
    std::uint32_t tp_rank = 0;
    std::uint32_t pp_rank = 0;
    std::vector<ShardLayer> layers;
    std::uint64_t page_bytes = 0;
    std::uint64_t content_bytes = 0;  // until the end of the last layer, aligned like one; the rest of the page is padding

    // Bytes before that end that belong to no layer: nobody writes them, and yet they are part of the page's digest.
    struct Gap {
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;
    };
    std::vector<Gap> gaps;
};

struct Layout {
    std::vector<std::vector<Shard>> groups;  // shards by storage group
    std::vector<GroupShape> shapes;          // the same for the index
    std::string fingerprint;                 // SHA-256 of all of it, in hex

    // The shard and layer number of a worker's layer; null when the worker has no such layer.
    struct Place {
        std::uint32_t group = 0;
        std::uint32_t shard = 0;
        std::uint32_t layer = 0;
    };
    const Place* find(std::uint32_t tp_rank, std::uint32_t pp_rank, std::string_view layer) const;

    std::map<std::pair<std::uint32_t, std::uint32_t>, std::map<std::string, Place, std::less<>>> places;
};

// The layout of an instance whose workers have all registered. kInvalid when they do not fit together. [any]
Result<Layout> seal_layout(std::span<const WorkerRegistration* const> workers);

}  // namespace pegaflow::engine
