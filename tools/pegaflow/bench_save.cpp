// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_save.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "pegaflow/abi/region.h"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint64_t kBytes = 1024;      // small, so that the copy hides little
constexpr std::uint64_t kPageBytes = 4096;  // what a block takes of the pool, at least
constexpr std::uint32_t kBlocks = 4096;
constexpr int kRounds = 16;  // until the pool is full, and as many again
constexpr std::size_t kHashBytes = 32;

double cpu_us() {
    rusage use{};
    ::getrusage(RUSAGE_SELF, &use);
    const auto micros = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec); };
    return micros(use.ru_utime) + micros(use.ru_stime);
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// As saves do, every copy goes to other pages of a memory as large as the pool, which was touched before.
Result<double> copy_cost(Fabric& fabric, std::vector<std::byte>& memory) {
    PEGA_ASSIGN(Device* const device, fabric.device("host:0"));
    PEGA_ASSIGN(const Region source, device->register_address(memory.data(), memory.size()));
    PEGA_ASSIGN(const Region pool, device->allocate(PEGA_MEMORY_HOST, kRounds * kBlocks * kPageBytes));
    PEGA_ASSIGN(Channel channel, device->open_channel());
    std::vector<std::uint64_t> places(kBlocks);
    std::iota(places.begin(), places.end(), 0);
    pega_span span{source.handle(), pool.handle(), 0, kBytes, 0, 0, kPageBytes, 0, kBytes, 1, 0};
    std::vector<double> costs;
    Transfer transfer;
    for (int round = 0; round < 2 * kRounds; ++round) {
        span.remote_base = static_cast<std::uint64_t>(round % kRounds) * kBlocks * kPageBytes;
        transfer.clear().indices(places, places).span(span);
        const double before = cpu_us();
        PEGA_ASSIGN(const Completion done, channel.submit_wait(transfer));
        PEGA_TRY(done.wait());
        if (round >= kRounds) costs.push_back((cpu_us() - before) / kBlocks);
    }
    return median(std::move(costs));
}

// One save of new blocks, until they are visible, and have their digests if there are any.
Result<double> save_round(Engine& engine, std::uint64_t round, const std::vector<std::uint32_t>& ids) {
    std::string bytes(kBlocks * kHashBytes, '\0');
    std::vector<std::string_view> hashes;
    for (std::uint64_t i = 0; i < kBlocks; ++i) {
        for (std::size_t at = 0; at < kHashBytes; at += 8) {
            const std::uint64_t word = base::mix((round * kBlocks + i) * kHashBytes + at, 0x9e3779b97f4a7c15ULL);
            std::memcpy(bytes.data() + i * kHashBytes + at, &word, 8);
        }
        hashes.emplace_back(bytes.data() + i * kHashBytes, kHashBytes);
    }
    const SaveLayer layer{"layer.0", ids, hashes};
    SaveRequest request;
    request.instance_id = "bench";
    request.layers = {&layer, 1};
    const double before = cpu_us();
    PEGA_TRY(engine.save(request));
    PEGA_TRY(engine.flush());
    return (cpu_us() - before) / kBlocks;
}

struct Rounds {
    double with_room = 0, evicting = 0;
};

Result<Rounds> save_rounds(Fabric& fabric, std::vector<std::byte>& memory, bool digests) {
    EngineOptions options;
    options.pool_bytes = std::uint64_t{kRounds} * kBlocks * kPageBytes;
    options.block_bytes_hint = kPageBytes;
    options.digests = digests;
    PEGA_ASSIGN(const auto engine, Engine::create(options, fabric));
    WorkerRegistration worker;
    worker.instance_id = "bench";
    LayerRegistration layer;
    layer.name = "layer.0";
    layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_ADDRESS, "", "", memory.data(), 0, memory.size()};
    layer.num_blocks = kBlocks;
    layer.bytes_per_block = kBytes;
    worker.layers.push_back(std::move(layer));
    PEGA_TRY(engine->register_worker(worker));
    std::vector<std::uint32_t> ids(kBlocks);
    std::iota(ids.begin(), ids.end(), 0);
    std::vector<double> with_room, evicting;
    for (int round = 0; round < 2 * kRounds; ++round) {
        PEGA_ASSIGN(const double cost, save_round(*engine, static_cast<std::uint64_t>(round), ids));
        (round < kRounds ? with_room : evicting).push_back(cost);
    }
    engine->close();
    return Rounds{median(std::move(with_room)), median(std::move(evicting))};
}

}  // namespace

Result<SaveCost> save_cost() {
    PEGA_ASSIGN(const auto fabric, Fabric::open({.backends = {"host"}}));
    std::vector<std::byte> memory(kBlocks * kBytes, std::byte{1});
    SaveCost out{kBytes};
    PEGA_ASSIGN(out.copy_us, copy_cost(*fabric, memory));
    PEGA_ASSIGN(const Rounds plain, save_rounds(*fabric, memory, false));
    PEGA_ASSIGN(const Rounds digested, save_rounds(*fabric, memory, true));
    out.save_us = std::max(0.0, plain.with_room - out.copy_us);
    out.save_evicting_us = std::max(0.0, plain.evicting - out.copy_us);
    out.digest_us = std::max(0.0, digested.with_room - plain.with_room);
    out.save_evicting_digests_us = std::max(0.0, digested.evicting - out.copy_us);
    return out;
}

}  // namespace pegaflow::cli
