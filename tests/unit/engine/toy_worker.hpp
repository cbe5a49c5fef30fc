// SPDX-License-Identifier: Apache-2.0
// toy_worker.hpp - a serving worker made of host memory, and a fixture with an engine to register it at.
//
// Every byte of a block follows from its rank, layer and hash, so that a test can tell a right byte from one that came from
// elsewhere.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::toy {

// The hashes number first, first + 1, ...; views stay valid as long as the object.
class Hashes {
public:
    Hashes(std::uint32_t first, std::uint32_t count) : first_(first) {
        for (std::uint32_t i = 0; i < count; ++i) texts_.push_back(fmt::format("content-hash-{:019}", first + i));
        views_.assign(texts_.begin(), texts_.end());
    }
    Hashes(const Hashes&) = delete;
    Hashes& operator=(const Hashes&) = delete;

    std::span<const std::string_view> views() const { return views_; }
    std::span<const std::string_view> views(std::size_t from, std::size_t count) const { return views().subspan(from, count); }
    std::uint32_t number(std::size_t i) const { return first_ + static_cast<std::uint32_t>(i); }
    std::size_t size() const { return views_.size(); }

private:
    std::uint32_t first_;
    std::vector<std::string> texts_;
    std::vector<std::string_view> views_;
};

inline std::vector<std::uint32_t> ids(std::uint32_t first, std::size_t count) {
    std::vector<std::uint32_t> out(count);
    std::iota(out.begin(), out.end(), first);
    return out;
}

struct ToyLayer {
    std::string name;
    std::uint64_t segment_bytes = 1024;
    std::uint32_t segments = 1;
    bool split = false;  // all K before all V
    std::uint32_t group = 0;
    std::vector<std::uint8_t> memory;
};

class ToyWorker {
public:
    ToyWorker(std::string instance, std::int32_t device, std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t world_size,
              std::uint32_t blocks, std::vector<ToyLayer> layers)
        : blocks_(blocks), layers_(std::move(layers)) {
        registration.instance_id = std::move(instance);
        registration.name_space = "toy";
        registration.device_id = device;
        registration.tp_rank = tp_rank;
        registration.tp_size = tp_size;
        registration.world_size = world_size;
        registration.dtype = "bfloat16";
        for (ToyLayer& layer : layers_) {
            layer.memory.assign(layer.segment_bytes * layer.segments * blocks, 0xEE);
            LayerRegistration r;
            r.name = layer.name;
            r.memory.address = layer.memory.data();
            r.memory.length = layer.memory.size();
            r.num_blocks = blocks;
            r.bytes_per_block = layer.segment_bytes;
            r.segments = layer.segments;
            r.kv_stride_bytes = layer.segments == 1 ? 0 : layer.split ? layer.segment_bytes * blocks : layer.segment_bytes;
            r.storage_group = layer.group;
            registration.layers.push_back(r);
        }
    }
    ToyWorker(const ToyWorker&) = delete;
    ToyWorker& operator=(const ToyWorker&) = delete;

    // Gives block ids[i] the content of hash i, in every layer.
    void write(const Hashes& hashes, const std::vector<std::uint32_t>& block_ids) {
        for (ToyLayer& layer : layers_) {
            for (std::size_t i = 0; i < block_ids.size(); ++i) {
                for (std::uint64_t at = 0; at < layer.segment_bytes * layer.segments; ++at) {
                    layer.memory[place(layer, block_ids[i], at)] = content(layer, hashes.number(i), at);
                }
            }
        }
    }
    void wipe() {
        for (ToyLayer& layer : layers_) std::fill(layer.memory.begin(), layer.memory.end(), 0xEE);
    }
    // "" when block ids[i] of every layer (of `group`, when told) holds hash i; else where it does not.
    std::string difference(const Hashes& hashes, const std::vector<std::uint32_t>& block_ids, int group = -1) const {
        for (const ToyLayer& layer : layers_) {
            if (group >= 0 && layer.group != static_cast<std::uint32_t>(group)) continue;
            for (std::size_t i = 0; i < block_ids.size(); ++i) {
                if (block_ids[i] == kNoBlock) continue;
                for (std::uint64_t at = 0; at < layer.segment_bytes * layer.segments; ++at) {
                    const std::uint8_t got = layer.memory[place(layer, block_ids[i], at)];
                    const std::uint8_t want = content(layer, hashes.number(i), at);
                    if (got != want)
                        return fmt::format("{} block {} byte {}: {} instead of {}", layer.name, block_ids[i], at, got, want);
                }
            }
        }
        return {};
    }
    // True when no byte of the block was written since wipe.
    bool untouched(std::uint32_t block) const {
        return std::all_of(layers_.begin(), layers_.end(), [&](const ToyLayer& layer) {
            for (std::uint64_t at = 0; at < layer.segment_bytes * layer.segments; ++at) {
                if (layer.memory[place(layer, block, at)] != 0xEE) return false;
            }
            return true;
        });
    }
    std::vector<std::string_view> layer_names(int group = -1) const {
        std::vector<std::string_view> names;
        for (const ToyLayer& layer : layers_) {
            if (group < 0 || layer.group == static_cast<std::uint32_t>(group)) names.push_back(layer.name);
        }
        return names;
    }
    std::uint64_t block_bytes() const {
        std::uint64_t bytes = 0;
        for (const ToyLayer& layer : layers_) bytes += layer.segment_bytes * layer.segments;
        return bytes;
    }

    WorkerRegistration registration;
    // What makes this rank's bytes differ from another's; replicas set the same.
    std::uint32_t content_rank = UINT32_MAX;

private:
    std::uint64_t place(const ToyLayer& layer, std::uint32_t block, std::uint64_t at) const {
        if (!layer.split) return block * layer.segment_bytes * layer.segments + at;
        return at / layer.segment_bytes * layer.segment_bytes * blocks_ + block * layer.segment_bytes +
               at % layer.segment_bytes;
    }
    std::uint8_t content(const ToyLayer& layer, std::uint32_t hash, std::uint64_t at) const {
        const std::uint32_t rank = content_rank == UINT32_MAX ? registration.tp_rank : content_rank;
        std::uint64_t seed = hash * 0x9E3779B97F4A7C15ULL + rank * 0x100000001B3ULL;
        for (const char c : layer.name) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
        return static_cast<std::uint8_t>((seed >> 32) + at * 31 + (at >> 8));
    }

    std::uint32_t blocks_;
    std::vector<ToyLayer> layers_;
};

// `count` layers "layer.00" ... of one shape.
inline std::vector<ToyLayer> layers(std::uint32_t count, std::uint64_t segment_bytes, std::uint32_t segments = 1,
                                    bool split = false) {
    std::vector<ToyLayer> out;
    for (std::uint32_t i = 0; i < count; ++i)
        out.push_back({fmt::format("layer.{:02}", i), segment_bytes, segments, split, 0, {}});
    return out;
}

// An event of the host device that holds copies back until it is signalled.
class Hold {
public:
    explicit Hold(Fabric& fabric) : device_(*fabric.device("host:0")) {
        table_ = static_cast<const pega_ext_stream*>(device_->extension(PEGA_EXT_STREAM));
        table_->create(device_->handle(), 0, &event_);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() {
        release();
        table_->destroy(event_);
    }
    pega_event* event() const { return event_; }
    void release() { table_->signal(event_, nullptr); }

private:
    Device* device_;
    const pega_ext_stream* table_ = nullptr;
    pega_event* event_ = nullptr;
};

class EngineTest : public ::testing::Test {
protected:
    static EngineOptions small(std::uint64_t pool_bytes = std::uint64_t{32} << 20) {
        EngineOptions options;
        options.pool_bytes = pool_bytes;
        options.numa_affinity = false;
        return options;
    }
    void SetUp() override {
        auto fabric = Fabric::open({.backends = {"host"}});
        ASSERT_TRUE(fabric) << fabric.error().message;
        fabric_ = std::move(*fabric);
    }
    void open(EngineOptions options = small(), EngineObserver observer = {}) {
        engine_.reset();
        auto engine = Engine::create(std::move(options), *fabric_, std::move(observer));
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = std::move(*engine);
    }
    void enroll(const ToyWorker& worker) {
        const auto registered = engine_->register_worker(worker.registration);
        ASSERT_TRUE(registered) << registered.error().message;
    }

    // One save request with the memory that it borrows.
    struct Saving {
        std::vector<std::string_view> names;
        std::vector<SaveLayer> layers;
        std::vector<std::uint32_t> block_ids;
        SaveRequest request;
    };
    static std::unique_ptr<Saving> saving(const ToyWorker& worker, const Hashes& hashes, std::vector<std::uint32_t> block_ids,
                                          std::vector<std::string_view> names = {}) {
        auto s = std::make_unique<Saving>();
        s->names = names.empty() ? worker.layer_names() : std::move(names);
        s->block_ids = std::move(block_ids);
        for (const std::string_view name : s->names) s->layers.push_back({name, s->block_ids, hashes.views()});
        const WorkerRegistration& r = worker.registration;
        s->request.instance_id = r.instance_id;
        s->request.tp_rank = r.tp_rank;
        s->request.pp_rank = r.pp_rank;
        s->request.device_id = r.device_id;
        s->request.layers = s->layers;
        return s;
    }
    Result<SaveOutcome> save(const ToyWorker& worker, const Hashes& hashes, std::vector<std::uint32_t> block_ids,
                             std::vector<std::string_view> names = {}) {
        auto result = engine_->save(saving(worker, hashes, std::move(block_ids), std::move(names))->request);
        EXPECT_TRUE(engine_->flush());
        return result;
    }
    // Writes blocks 0.. with the hashes and saves them.
    void fill(ToyWorker& worker, const Hashes& hashes, std::uint32_t first_block = 0) {
        worker.write(hashes, ids(first_block, hashes.size()));
        const auto saved = save(worker, hashes, ids(first_block, hashes.size()));
        ASSERT_TRUE(saved) << saved.error().message;
    }

    Result<QueryOutcome> query(std::string_view instance, std::span<const std::string_view> hashes, std::uint32_t group = 0) {
        QueryRequest request;
        request.instance_id = instance;
        request.hashes = hashes;
        request.request_id = "request";
        request.group = group;
        return engine_->query(request);
    }
    // The lease on all of `hashes`; the test fails when one is missing.
    LeaseId lease_all(std::string_view instance, const Hashes& hashes) {
        const auto found = query(instance, hashes.views());
        EXPECT_TRUE(found) << found.error().message;
        EXPECT_EQ(found->hit_blocks, hashes.size());
        EXPECT_TRUE(found->lease.has_value());
        return found->lease.value_or(LeaseId{});
    }

    struct Loading {
        std::vector<std::string_view> names;
        std::vector<std::span<const std::string_view>> groups;
        std::vector<std::uint32_t> block_ids;
        std::vector<std::span<const std::uint32_t>> ids_by_group;
        std::vector<LeaseLoad> loads;
        LoadRequest request;
    };
    static std::unique_ptr<Loading> loading(const ToyWorker& worker, const LeaseId& lease, std::vector<std::uint32_t> block_ids,
                                            int group = -1) {
        auto l = std::make_unique<Loading>();
        l->names = worker.layer_names(group);
        l->groups = {std::span<const std::string_view>(l->names)};
        l->block_ids = std::move(block_ids);
        l->ids_by_group = {std::span<const std::uint32_t>(l->block_ids)};
        l->loads.push_back({lease, l->ids_by_group});
        l->request.instance_id = worker.registration.instance_id;
        l->request.tp_rank = worker.registration.tp_rank;
        l->request.device_id = worker.registration.device_id;
        l->request.layer_groups = l->groups;
        l->request.loads = l->loads;
        return l;
    }
    Result<void> load(const ToyWorker& worker, const LeaseId& lease, std::vector<std::uint32_t> block_ids, int group = -1) {
        return engine_->load(loading(worker, lease, std::move(block_ids), group)->request);
    }

    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
};

}  // namespace pegaflow::toy
