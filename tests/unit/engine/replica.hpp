// SPDX-License-Identifier: Apache-2.0
// replica.hpp - a worker of a pretended serving replica: KV memory in this process, filled with patterns that tell blocks
// apart.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "pegaflow/engine.hpp"

namespace pegaflow::testing {

struct Shape {
    std::string instance = "replica";
    std::string name_space = "model";
    std::uint32_t layers = 4, tp_rank = 0, tp_size = 1, pp_rank = 0, world_size = 1;
    std::int32_t device_id = 0;
    std::uint64_t blocks = 32, bytes = 1024;
    bool split = true;  // K and V apart
    bool page_first = false;
    std::uint32_t recurrent_layers = 0;  // of storage group 1
};

class Replica {
public:
    explicit Replica(const Shape& shape) : shape_(shape) {
        const std::uint64_t segments = shape.split ? 2 : 1;
        for (std::uint32_t i = 0; i < shape.layers + shape.recurrent_layers; ++i) {
            memory_.emplace_back(shape.blocks * shape.bytes * segments, 0xAA);
            names_.push_back((i < shape.layers ? "layer." : "state.") + std::to_string(100 + i));
        }
    }

    WorkerRegistration registration() {
        WorkerRegistration w{shape_.instance,   shape_.name_space, shape_.tp_rank,    shape_.tp_size, shape_.pp_rank,
                             shape_.world_size, shape_.device_id,  shape_.page_first, "bfloat16",     {}};
        for (std::size_t i = 0; i < memory_.size(); ++i) {
            LayerRegistration layer;
            layer.name = names_[i];
            layer.memory.kind = PEGA_MEMORY_HOST;
            layer.memory.source = PEGA_SOURCE_ADDRESS;
            layer.memory.address = memory_[i].data();
            layer.memory.length = memory_[i].size();
            layer.num_blocks = shape_.blocks;
            layer.bytes_per_block = shape_.bytes;
            layer.segments = shape_.split ? 2 : 1;
            layer.kv_stride_bytes = shape_.split ? shape_.blocks * shape_.bytes : 0;
            layer.storage_group = i < shape_.layers ? 0 : 1;
            w.layers.push_back(layer);
        }
        return w;
    }

    // Writes the pattern of `seed` into a block of every layer; poison() overwrites it.
    void fill(std::uint32_t block, std::uint64_t seed) {
        each_byte(block, [&](std::size_t layer, std::uint64_t at, std::uint8_t& byte) { byte = pattern(seed, layer, at); });
    }
    void poison(std::uint32_t block) {
        each_byte(block, [](std::size_t, std::uint64_t, std::uint8_t& byte) { byte = 0xEE; });
    }
    // How many bytes of the block in the given storage group differ from the pattern.
    std::uint64_t wrong(std::uint32_t block, std::uint64_t seed, std::uint32_t group = 0) {
        std::uint64_t count = 0;
        each_byte(block, [&](std::size_t layer, std::uint64_t at, std::uint8_t& byte) {
            if ((layer < shape_.layers ? 0U : 1U) == group && byte != pattern(seed, layer, at)) ++count;
        });
        return count;
    }

    Result<SaveOutcome> save(Engine& engine, std::vector<std::uint32_t> ids, const std::vector<std::string>& hashes,
                             std::uint32_t group = 0, std::size_t first = 0, std::size_t count = SIZE_MAX) {
        const std::vector<std::string_view> views(hashes.begin(), hashes.end());
        std::vector<SaveLayer> layers;
        const auto names = group_names(group);
        for (std::size_t i = first; i < names.size() && i - first < count; ++i) layers.push_back({names[i], ids, views});
        return engine.save({.instance_id = shape_.instance,
                            .tp_rank = shape_.tp_rank,
                            .pp_rank = shape_.pp_rank,
                            .device_id = shape_.device_id,
                            .layers = layers});
    }

    Result<void> load(Engine& engine, const LeaseId& lease, std::vector<std::uint32_t> ids, std::uint32_t group = 0) {
        const auto names = group_names(group);
        const std::span<const std::string_view> groups[] = {names};
        const std::span<const std::uint32_t> targets[] = {ids};
        const LeaseLoad loads[] = {{lease, targets}};
        return engine.load({.instance_id = shape_.instance,
                            .tp_rank = shape_.tp_rank,
                            .device_id = shape_.device_id,
                            .layer_groups = groups,
                            .loads = loads});
    }

    std::vector<std::string_view> group_names(std::uint32_t group) const {
        if (group == 0) return {names_.begin(), names_.begin() + shape_.layers};
        return {names_.begin() + shape_.layers, names_.end()};
    }
    const Shape& shape() const { return shape_; }

private:
    std::uint8_t pattern(std::uint64_t seed, std::uint64_t layer, std::uint64_t at) const {
        return static_cast<std::uint8_t>((seed * 1000003 + layer * 8191 + shape_.tp_rank * 127 + at * 31) >> 3);
    }
    template <class Visit>
    void each_byte(std::uint32_t block, Visit visit) {
        const std::uint64_t segments = shape_.split ? 2 : 1;
        for (std::size_t layer = 0; layer < memory_.size(); ++layer) {
            for (std::uint64_t s = 0; s < segments; ++s) {
                std::uint8_t* start = memory_[layer].data() + s * shape_.blocks * shape_.bytes + block * shape_.bytes;
                for (std::uint64_t i = 0; i < shape_.bytes; ++i) visit(layer, s * shape_.bytes + i, start[i]);
            }
        }
    }

    Shape shape_;
    std::vector<std::vector<std::uint8_t>> memory_;
    std::vector<std::string> names_;
};

inline std::vector<std::string> make_hashes(std::size_t count, int seed = 0) {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < count; ++i) {
        std::string hash = "hash-" + std::to_string(seed) + "-" + std::to_string(i);
        hash.resize(32, 'x');
        out.push_back(hash);
    }
    return out;
}

inline Result<QueryOutcome> query(Engine& engine, const std::string& instance, const std::vector<std::string>& hashes,
                                  std::uint32_t group = 0) {
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    return engine.query({.instance_id = instance, .hashes = views, .request_id = "request", .group = group});
}

}  // namespace pegaflow::testing
