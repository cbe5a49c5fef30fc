// SPDX-License-Identifier: Apache-2.0
#include "engine/block/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/sha256.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kLayoutVersion = 1;  // of the page format; part of the fingerprint

constexpr std::uint64_t kMostPageBytes = std::uint64_t{1} << 62;

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

unexpected<Error> bad_layer(const LayerRegistration& layer, std::string why) {
    return fail(Code::kInvalid, fmt::format("layer \"{}\": {}", layer.name, why));
}

bool times(std::uint64_t a, std::uint64_t b, std::uint64_t* out) { return !__builtin_mul_overflow(a, b, out); }

// Everything about one layer name that all its owners must agree on.
struct LayerFacts {
    std::uint64_t segment_bytes = 0;
    std::uint32_t segments = 0;
    std::uint32_t group = 0;
    std::map<std::uint32_t, std::set<std::uint32_t>> stages_by_rank;  // tp_rank to pp_ranks that own it
};

Result<std::map<std::string, LayerFacts>> collect(std::span<const WorkerRegistration* const> workers) {
    std::map<std::string, LayerFacts> layers;
    for (const WorkerRegistration* worker : workers) {
        for (const LayerRegistration& layer : worker->layers) {
            const auto [it, added] = layers.try_emplace(layer.name);
            LayerFacts& facts = it->second;
            if (added) {
                facts.segment_bytes = layer.bytes_per_block;
                facts.segments = layer.segments;
                facts.group = layer.storage_group;
            }
            if (facts.segment_bytes != layer.bytes_per_block || facts.segments != layer.segments) {
                return bad_layer(
                    layer,
                    fmt::format("inconsistent geometry: device {} has {} segments of {} bytes, another has {} of {}",
                                worker->device_id, layer.segments, layer.bytes_per_block, facts.segments, facts.segment_bytes));
            }
            if (facts.group != layer.storage_group) {
                return bad_layer(layer, fmt::format("storage group {} on device {}, but {} elsewhere", layer.storage_group,
                                                    worker->device_id, facts.group));
            }
            facts.stages_by_rank[worker->tp_rank].insert(worker->pp_rank);
        }
    }
    return layers;
}

Result<void> check_cover(const std::map<std::string, LayerFacts>& layers, std::uint32_t tp_size, bool page_first) {
    std::set<std::uint32_t> groups;
    for (const auto& [name, facts] : layers) {
        groups.insert(facts.group);
        for (std::uint32_t rank = 0; rank < tp_size; ++rank) {
            const auto owners = facts.stages_by_rank.find(rank);
            if (owners == facts.stages_by_rank.end()) {
                return fail(Code::kInvalid,
                            fmt::format("incomplete KV registration: layer {} has no owner for tp_rank {}", name, rank));
            }
            if (owners->second.size() > 1) {
                return fail(Code::kInvalid,
                            fmt::format("layer {} at tp_rank {} is claimed by different pipeline stages", name, rank));
            }
        }
    }
    if (*groups.rbegin() + 1 != groups.size()) {
        return fail(Code::kInvalid, fmt::format("storage groups must be dense: there are {}, the largest is {}", groups.size(),
                                                *groups.rbegin()));
    }
    if (page_first && groups.size() > 1) {
        return fail(Code::kInvalid, fmt::format("page_first needs one storage group, the instance has {}", groups.size()));
    }
    return {};
}

// A page-first worker saves whole pages, all its layers at once: of two workers either both save the same page, or each its
// own.
Result<void> check_pages(std::span<const WorkerRegistration* const> workers) {
    std::map<std::string_view, const WorkerRegistration*> owners;  // a layer's first worker stands for all that have its layers
    for (const WorkerRegistration* worker : workers) {
        std::map<const WorkerRegistration*, std::size_t> shared;
        for (const LayerRegistration& layer : worker->layers) {
            const auto owner = owners.find(layer.name);
            if (owner != owners.end()) ++shared[owner->second];
        }
        for (const auto& [other, count] : shared) {
            if (count == worker->layers.size() && count == other->layers.size()) continue;
            return fail(Code::kInvalid,
                        fmt::format("page_first workers must have the same layers or none in common: device {} has {} layers, "
                                    "device {} has {}, and {} are in both",
                                    worker->device_id, worker->layers.size(), other->device_id, other->layers.size(), count));
        }
        for (const LayerRegistration& layer : worker->layers) owners.emplace(layer.name, worker);
    }
    return {};
}

// What a fingerprint is of: numbers of 8 bytes, and texts with their length before them. No two layouts read the same, whatever
// their names are.
class Description {
public:
    Description& add(std::uint64_t number) {
        for (int shift = 0; shift < 64; shift += 8) bytes_.push_back(static_cast<char>(number >> shift & 0xff));
        return *this;
    }
    Description& add(std::string_view text) {
        add(text.size());
        bytes_ += text;
        return *this;
    }
    std::string_view bytes() const { return bytes_; }

private:
    std::string bytes_;
};

std::string fingerprint(const Layout& layout, const WorkerRegistration& first) {
    Description all;
    all.add(kLayoutVersion).add(std::string_view(first.dtype)).add(first.tp_size).add(first.world_size);
    all.add(layout.groups.size());
    for (const auto& group : layout.groups) {
        all.add(group.size());
        for (const Shard& shard : group) {
            all.add(shard.group).add(shard.tp_rank).add(shard.pp_rank).add(shard.page_bytes).add(shard.layers.size());
            for (const ShardLayer& layer : shard.layers) {
                all.add(std::string_view(layer.name)).add(layer.offset).add(layer.segments).add(layer.segment_bytes);
            }
        }
    }
    return base::sha256_hex(all.bytes());
}

std::vector<Shard::Gap> gaps_of(const Shard& shard) {
    std::vector<Shard::Gap> gaps;
    std::uint64_t end = 0;  // of the layers so far
    const auto until = [&](std::uint64_t offset) {
        if (offset > end) gaps.push_back({end, offset - end});
    };
    for (const ShardLayer& layer : shard.layers) {
        until(layer.offset);
        end = layer.offset + layer.segment_bytes * layer.segments;
    }
    until(shard.content_bytes);
    return gaps;
}

}  // namespace

Result<LayerGeometry> layer_geometry(const LayerRegistration& layer) {
    LayerGeometry g{layer.num_blocks, layer.bytes_per_block, layer.segments, layer.block_stride_bytes, layer.kv_stride_bytes};
    if (layer.name.empty()) return bad_layer(layer, "a layer needs a name");
    if (g.num_blocks == 0 || g.segment_bytes == 0 || g.segments == 0 || layer.memory.length == 0) {
        return bad_layer(layer,
                         fmt::format("num_blocks {}, bytes_per_block {}, segments {} and memory length {} must all be positive",
                                     g.num_blocks, g.segment_bytes, g.segments, layer.memory.length));
    }
    const bool split = g.segments > 1 && g.segment_stride > g.segment_bytes;
    if (g.segments > 1) {
        if (g.segment_stride == 0)
            return bad_layer(layer, fmt::format("kv_stride is 0, expected a distance between its {} segments", g.segments));
        if (g.segment_stride < g.segment_bytes) {
            return bad_layer(layer, fmt::format("segments would overlap: kv_stride {} is less than bytes_per_block {}",
                                                g.segment_stride, g.segment_bytes));
        }
        if (split && g.segments != 2) return bad_layer(layer, fmt::format("split segments must be 2, got {}", g.segments));
    }
    std::uint64_t whole = 0;
    if (!times(g.segment_bytes, g.segments, &whole)) return bad_layer(layer, "the size of a block overflows");
    if (g.segments > 1 && !split) {  // K and V touch: one piece
        g = {g.num_blocks, whole, 1, g.block_stride, 0};
    }
    if (g.block_stride == 0) g.block_stride = g.segment_bytes;
    if (g.block_stride < g.segment_bytes) {
        return bad_layer(layer,
                         fmt::format("block stride {} is less than the {} bytes of a block", g.block_stride, g.segment_bytes));
    }
    std::uint64_t blocks = 0;
    std::uint64_t end = 0;
    if (!times(g.num_blocks - 1, g.block_stride, &blocks) || __builtin_add_overflow(blocks, g.segment_bytes, &end)) {
        return bad_layer(layer, "the extent of its blocks overflows");
    }
    if (split) {
        // Either all K before all V, or V of a block right within its stride.
        const bool inside = g.segment_stride + g.segment_bytes <= g.block_stride;
        if (!inside && g.segment_stride < end) {
            return bad_layer(layer,
                             fmt::format("segments of different blocks would overlap: kv_stride {}, blocks extend over {}",
                                         g.segment_stride, end));
        }
        if (__builtin_add_overflow(end, g.segment_stride, &end))
            return bad_layer(layer, "the extent of its segments overflows");
    }
    if (end > layer.memory.length) {
        return bad_layer(layer, fmt::format("needs {} bytes, its memory has {}", end, layer.memory.length));
    }
    return g;
}

const Layout::Place* Layout::find(std::uint32_t tp_rank, std::uint32_t pp_rank, std::string_view layer) const {
    const auto worker = places.find({tp_rank, pp_rank});
    if (worker == places.end()) return nullptr;
    const auto place = worker->second.find(layer);
    return place == worker->second.end() ? nullptr : &place->second;
}

Result<Layout> seal_layout(std::span<const WorkerRegistration* const> workers) {
    PEGA_ASSIGN(const auto layers, collect(workers));
    PEGA_TRY(check_cover(layers, workers.front()->tp_size, workers.front()->page_first));
    if (workers.front()->page_first) PEGA_TRY(check_pages(workers));
    Layout layout;
    std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, Shard> shards;  // group, tp_rank, pp_rank
    for (const auto& [name, facts] : layers) {  // ordered by name, which gives the ids their order
        for (const auto& [rank, stages] : facts.stages_by_rank) {
            Shard& shard = shards[{facts.group, rank, *stages.begin()}];
            const std::uint64_t bytes = facts.segment_bytes * facts.segments;
            if (bytes > kMostPageBytes - shard.page_bytes) {
                return fail(Code::kInvalid, fmt::format("the page of layer {} and those before it overflows: {} and {} bytes",
                                                        name, bytes, shard.page_bytes));
            }
            shard.group = facts.group;
            shard.tp_rank = rank;
            shard.pp_rank = *stages.begin();
            shard.layers.push_back({name, shard.page_bytes, facts.segment_bytes, facts.segments});
            shard.page_bytes = round_up(shard.page_bytes + bytes, kLayerAlignment);
        }
    }
    for (auto& [id, shard] : shards) {
        shard.content_bytes = shard.page_bytes;
        shard.page_bytes = round_up(shard.page_bytes, kPageAlignment);
        shard.gaps = gaps_of(shard);
        layout.groups.resize(std::max<std::size_t>(layout.groups.size(), shard.group + 1));
        layout.shapes.resize(layout.groups.size());
        const auto number = static_cast<std::uint32_t>(layout.groups[shard.group].size());
        for (std::uint32_t i = 0; i < shard.layers.size(); ++i) {
            layout.places[{shard.tp_rank, shard.pp_rank}][shard.layers[i].name] = {shard.group, number, i};
        }
        layout.shapes[shard.group].shards.push_back(
            {static_cast<std::uint32_t>(shard.layers.size()), shard.page_bytes, shard.content_bytes});
        layout.groups[shard.group].push_back(std::move(shard));
    }
    layout.fingerprint = fingerprint(layout, *workers.front());
    return layout;
}

}  // namespace pegaflow::engine
