// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/tier_torture/setup.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <iostream>
#include <thread>

namespace pegaflow::torture {
namespace {

constexpr std::uint32_t kBlocks = 64;  // of the pretended worker's memory

std::uint64_t word(std::uint64_t seed, std::uint64_t number, std::uint64_t i) {
    std::uint64_t x = (seed * 1'000'003 + number + 1) * 0x9e3779b97f4a7c15ULL + i * 0xd1342543de82ef95ULL;
    x ^= x >> 29;
    return x * 0xff51afd7ed558ccdULL;
}

}  // namespace

Worker::Worker(std::string name, std::uint64_t block_bytes)
    : name_(std::move(name)), block_bytes_(block_bytes), memory_(block_bytes * kBlocks) {}

WorkerRegistration Worker::registration() {
    WorkerRegistration w;
    w.instance_id = name_;
    w.name_space = "torture";
    LayerRegistration layer;
    layer.name = "layer";
    layer.memory.source = PEGA_SOURCE_ADDRESS;
    layer.memory.address = memory_.data();
    layer.memory.length = memory_.size();
    layer.num_blocks = kBlocks;
    layer.bytes_per_block = block_bytes_;
    w.layers.push_back(layer);
    return w;
}

std::uint64_t* Worker::at(std::uint32_t block) {
    return reinterpret_cast<std::uint64_t*>(memory_.data() + block * block_bytes_);
}

void Worker::fill(std::uint32_t block, std::uint64_t seed, std::uint64_t number) {
    for (std::uint64_t i = 0; i < block_bytes_ / 8; ++i) at(block)[i] = word(seed, number, i);
}

bool Worker::right(std::uint32_t block, std::uint64_t seed, std::uint64_t number) {
    for (std::uint64_t i = 0; i < block_bytes_ / 8; ++i) {
        if (at(block)[i] != word(seed, number, i)) return false;
    }
    return true;
}

void Worker::poison(std::uint32_t block) { std::memset(at(block), 0xEE, block_bytes_); }

std::string hash_of(std::uint64_t seed, std::uint64_t number) { return fmt::format("torture-{:010}-{:013}", seed, number); }

Result<std::unique_ptr<Setup>> Setup::open(const Place& place) {
    std::unique_ptr<Setup> out(new Setup);
    FabricOptions fabric{.backends = {"host", "nvme"}};
    fabric.options["nvme"] = place.nvme;
    PEGA_ASSIGN(out->fabric_, Fabric::open(std::move(fabric)));
    EngineOptions options;
    options.pool_bytes = kPoolBytes;
    options.tier.paths = {place.dir};
    options.tier.capacity_bytes = place.capacity_bytes;
    options.tier.segment_bytes = kSegmentBytes;
    PEGA_ASSIGN(out->engine_, Engine::create(options, *out->fabric_));
    for (const TierDeviceInfo& device : out->engine_->tier_devices()) {
        if (device.state != "ok") return fail(Code::kRegionLost, device.path + ": " + device.problem);
        std::cerr << fmt::format("# {}: {} blocks found in {:.3f} s\n", device.path, device.recovered_blocks,
                                 device.recovery_seconds);
    }
    PEGA_TRY(out->engine_->register_worker(out->small_.registration()));
    PEGA_TRY(out->engine_->register_worker(out->large_.registration()));
    return out;
}

Result<void> Setup::save(std::uint64_t seed, std::uint64_t number) {
    Worker& worker = of(number);
    const std::string hash = hash_of(seed, number);
    const std::string_view view = hash;
    const std::uint32_t block = static_cast<std::uint32_t>(number % kBlocks);
    worker.fill(block, seed, number);
    const SaveLayer layer{"layer", {&block, 1}, {&view, 1}};
    PEGA_TRY(engine_->save({.instance_id = worker.name(), .layers = {&layer, 1}}));
    return {};
}

Result<Found> Setup::read(std::uint64_t seed, std::uint64_t number) {
    Worker& worker = of(number);
    const std::string hash = hash_of(seed, number);
    const std::string_view view = hash;
    QueryOutcome found;
    do {
        PEGA_ASSIGN(found, engine_->query({.instance_id = worker.name(), .hashes = {&view, 1}, .request_id = hash}));
        if (found.loading) std::this_thread::sleep_for(std::chrono::microseconds(50));
    } while (found.loading);
    if (found.hit_blocks == 0) return Found::kNothing;
    worker.poison(0);
    const std::uint32_t block = 0;
    const std::span<const std::uint32_t> target(&block, 1);
    const LeaseLoad load{*found.lease, {&target, 1}};
    const std::string_view name = "layer";
    const std::span<const std::string_view> group(&name, 1);
    PEGA_TRY(engine_->load({.instance_id = worker.name(), .layer_groups = {&group, 1}, .loads = {&load, 1}}));
    return worker.right(0, seed, number) ? Found::kRightBytes : Found::kWrongBytes;
}

}  // namespace pegaflow::torture
