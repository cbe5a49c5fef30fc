// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_query.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include "base/hash.hpp"
#include "pegaflow/abi/region.h"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kHashBytes = 32;
constexpr std::uint64_t kBlockBytes = 4096;
constexpr std::uint32_t kSourceBlocks = 4096;
constexpr int kRounds = 4000;
constexpr const char* kInstance = "bench";
constexpr const char* kLayer = "layer.0";

// A request as it stands after its message was read: hashes side by side in memory of its own.
class Hashes {
public:
    Hashes(std::uint64_t first, std::size_t count) : bytes_(count * kHashBytes, '\0') {
        views_.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t at = 0; at < kHashBytes; at += 8) {
                const std::uint64_t word = base::mix((first + i) * kHashBytes + at, 0x9e3779b97f4a7c15ULL);
                std::memcpy(bytes_.data() + i * kHashBytes + at, &word, 8);
            }
            views_.emplace_back(bytes_.data() + i * kHashBytes, kHashBytes);
        }
    }
    std::span<const std::string_view> views() const { return views_; }

private:
    std::string bytes_;
    std::vector<std::string_view> views_;
};

Result<void> enroll(Engine& engine, std::vector<std::byte>& memory) {
    WorkerRegistration worker;
    worker.instance_id = kInstance;
    LayerRegistration layer;
    layer.name = kLayer;
    layer.memory.kind = PEGA_MEMORY_HOST;
    layer.memory.source = PEGA_SOURCE_ADDRESS;
    layer.memory.address = memory.data();
    layer.memory.length = memory.size();
    layer.num_blocks = kSourceBlocks;
    layer.bytes_per_block = kBlockBytes;
    worker.layers.push_back(std::move(layer));
    return engine.register_worker(worker);
}

Result<void> fill(Engine& engine, std::uint64_t blocks) {
    std::vector<std::uint32_t> ids(kSourceBlocks);
    std::iota(ids.begin(), ids.end(), 0);
    for (std::uint64_t first = 0; first < blocks; first += kSourceBlocks) {
        const std::size_t count = std::min<std::uint64_t>(kSourceBlocks, blocks - first);
        const Hashes hashes(first, count);
        const SaveLayer layer{kLayer, std::span(ids).first(count), hashes.views()};
        SaveRequest request;
        request.instance_id = kInstance;
        request.layers = {&layer, 1};
        PEGA_TRY(engine.save(request));
    }
    return engine.flush();
}

// The times of one thread's queries, in microseconds.
Result<std::vector<double>> query_rounds(Engine& engine, std::uint64_t blocks, unsigned seed, const std::atomic<bool>& go) {
    std::mt19937_64 random(seed);
    std::vector<double> micros;
    micros.reserve(kRounds);
    while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
    for (int round = 0; round < kRounds; ++round) {
        const Hashes hashes(random() % (blocks - kQueryHashes + 1), kQueryHashes);
        QueryRequest request;
        request.instance_id = kInstance;
        request.request_id = "bench";
        request.hashes = hashes.views();
        const auto start = Clock::now();
        auto outcome = engine.query(request);
        micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
        if (!outcome) return fail(std::move(outcome).error());
        if (outcome->hit_blocks != kQueryHashes) return fail(Code::kInternal, "a block that was saved was not found");
        PEGA_TRY(engine.release(*outcome->lease));
    }
    return micros;
}

Result<QueryCost> measure(Engine& engine, std::uint64_t blocks, unsigned count) {
    std::atomic<bool> go{false};
    std::vector<Result<std::vector<double>>> parts(count, Result<std::vector<double>>(std::vector<double>{}));
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (unsigned t = 0; t < count; ++t) {
        threads.emplace_back([&, t] { parts[t] = query_rounds(engine, blocks, t, go); });
    }
    go.store(true, std::memory_order_release);
    for (std::thread& thread : threads) thread.join();
    QueryCost cost{count};
    std::vector<double> micros;
    for (auto& part : parts) {
        PEGA_ASSIGN(const std::vector<double> own, std::move(part));
        const double total = std::accumulate(own.begin(), own.end(), 0.0);
        cost.lookups_per_second += static_cast<double>(own.size() * kQueryHashes) / total * 1e6;
        micros.insert(micros.end(), own.begin(), own.end());
    }
    std::sort(micros.begin(), micros.end());
    cost.p50_us = micros[micros.size() / 2];
    cost.p99_us = micros[micros.size() * 99 / 100];
    return cost;
}

}  // namespace

Result<std::vector<QueryCost>> query_costs(std::uint64_t blocks, const std::vector<unsigned>& threads) {
    blocks = std::max<std::uint64_t>(blocks, kQueryHashes);
    PEGA_ASSIGN(auto fabric, Fabric::open({.backends = {"host"}}));
    EngineOptions options;
    options.pool_bytes = (blocks + kSourceBlocks) * kBlockBytes;
    options.block_bytes_hint = kBlockBytes;
    options.digests = false;
    PEGA_ASSIGN(const auto engine, Engine::create(options, *fabric));
    std::vector<std::byte> memory(kSourceBlocks * kBlockBytes);
    PEGA_TRY(enroll(*engine, memory));
    PEGA_TRY(fill(*engine, blocks));
    std::vector<QueryCost> costs;
    for (const unsigned count : threads) {
        PEGA_ASSIGN(const QueryCost cost, measure(*engine, blocks, count));
        costs.push_back(cost);
    }
    engine->close();
    return costs;
}

}  // namespace pegaflow::cli
