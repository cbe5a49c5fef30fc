// SPDX-License-Identifier: Apache-2.0
// pegaflow bench engine: replays a trace of block hashes through the real index and policies: hit rates by policy and capacity
// beside what an infinite cache would reach, and what lookups and inserts cost.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <unordered_set>

#include "engine/block/index.hpp"
#include "tools/pegaflow/replay_tier.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using engine::BlockIndex;
using engine::BlockKey;
using engine::BlockRef;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kHashBytes = 32;
constexpr std::size_t kQueryHashes = 1000;

struct Arguments {
    std::string trace;
    bool json = false;
    std::vector<double> capacities = {5, 10, 25, 50};
    std::vector<std::string> policies = {"none", "tiny_lfu"};
    std::vector<double> ssd = {50};  // capacities of an SSD tier below the memory
    double ssd_memory = 10;
};

class NoPages final : public engine::PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
};

struct Trace {
    std::vector<std::vector<std::uint32_t>> requests;  // block numbers
    std::vector<std::string> hashes;                   // by block number
    std::uint64_t blocks = 0;
};

Result<Trace> read_trace(const std::string& path) {
    std::ifstream file(path);
    if (!file) return fail(Code::kNotFound, fmt::format("cannot open the trace {}", path));
    Trace trace;
    std::size_t number = 0;
    std::uint32_t largest = 0;
    for (std::string line; std::getline(file, line);) {
        ++number;
        if (line.empty()) continue;
        boost::json::error_code error;
        const boost::json::value value = boost::json::parse(line, error);
        const auto* ids = !error && value.is_object() ? value.as_object().if_contains("hash_ids") : nullptr;
        if (ids == nullptr || !ids->is_array())
            return fail(Code::kInvalid, fmt::format("{}:{}: expected a JSON object with an array hash_ids", path, number));
        auto& request = trace.requests.emplace_back();
        for (const auto& id : ids->as_array()) {
            if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() > UINT32_MAX)
                return fail(Code::kInvalid, fmt::format("{}:{}: a hash id is no number", path, number));
            request.push_back(static_cast<std::uint32_t>(id.as_int64()));
            largest = std::max(largest, request.back());
        }
        trace.blocks += request.size();
    }
    if (trace.requests.empty()) return fail(Code::kInvalid, fmt::format("{} has no requests", path));
    for (std::uint64_t i = 0; i <= largest; ++i) {
        std::string hash(kHashBytes, '\0');
        for (std::size_t at = 0; at < kHashBytes; at += 8) {
            const std::uint64_t word = (i + 1) * 0x9e3779b97f4a7c15ULL * (at + 1);
            std::memcpy(hash.data() + at, &word, 8);
        }
        trace.hashes.push_back(std::move(hash));
    }
    return trace;
}

// A block of an index without a pool.
BlockRef make_block(const std::string& hash, engine::PageOwner& pages) {
    const BlockKey key(1, 0, hash);
    auto* block = new engine::Block(key, engine::table_hash(1, 0, hash), pages);
    block->pages.push_back({0, 1});
    return BlockRef(block);
}

struct Outcome {
    std::uint64_t hits = 0, lookups = 0, inserts = 0;
    double lookup_seconds = 0, insert_seconds = 0;
};

Result<Outcome> replay(const Trace& trace, const std::string& policy, std::uint64_t capacity) {
    NoPages pages;
    PEGA_ASSIGN(const auto eviction, engine::make_eviction_policy("lru"));
    PEGA_ASSIGN(const auto admission, engine::make_admission_policy(policy, capacity));
    BlockIndex index(eviction, *admission, pages);
    Outcome out;
    std::vector<std::string_view> views;
    std::vector<BlockRef> found;
    for (const auto& request : trace.requests) {
        views.clear();
        found.clear();
        for (const std::uint32_t id : request) views.push_back(trace.hashes[id]);
        auto start = Clock::now();
        index.lookup_prefix(1, 0, views, found);
        out.lookup_seconds += std::chrono::duration<double>(Clock::now() - start).count();
        out.hits += found.size();
        out.lookups += std::min(found.size() + 1, views.size());
        const std::size_t first = found.size();
        found.clear();
        start = Clock::now();
        for (std::size_t i = first; i < request.size(); ++i) {
            if (index.contains(1, 0, views[i])) continue;
            if (index.resident() >= capacity) {
                index.set_pressure(true);
                BlockRef candidate = make_block(trace.hashes[request[i]], pages);
                bool admitted = false;
                index.insert_resident(std::move(candidate), &admitted);
                if (admitted) index.evict_one();
            } else {
                bool admitted = false;
                index.insert_resident(make_block(trace.hashes[request[i]], pages), &admitted);
            }
            ++out.inserts;
        }
        out.insert_seconds += std::chrono::duration<double>(Clock::now() - start).count();
    }
    return out;
}

struct LookupCost {
    double per_second = 0, query_p50_us = 0, query_p99_us = 0;
};

// Lookups of resident blocks in an index that holds all distinct blocks of the trace, 1,000 a query, one thread.
Result<LookupCost> lookup_cost(const Trace& trace) {
    NoPages pages;
    PEGA_ASSIGN(const auto eviction, engine::make_eviction_policy("lru"));
    PEGA_ASSIGN(const auto admission, engine::make_admission_policy("none", 1));
    BlockIndex index(eviction, *admission, pages);
    for (const std::string& hash : trace.hashes) {
        bool admitted = false;
        index.insert_resident(make_block(hash, pages), &admitted);
    }
    const std::size_t count = std::min(kQueryHashes, trace.hashes.size());
    std::vector<double> micros;
    std::vector<BlockRef> found;
    std::vector<std::string_view> views;
    for (int round = 0; round < 2000; ++round) {
        const std::size_t first = static_cast<std::size_t>(round) * 7919 % (trace.hashes.size() - count + 1);
        views.assign(trace.hashes.begin() + static_cast<std::ptrdiff_t>(first),
                     trace.hashes.begin() + static_cast<std::ptrdiff_t>(first + count));
        found.clear();
        const auto start = Clock::now();
        index.lookup_prefix(1, 0, views, found);
        micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
        if (found.size() != count) return fail(Code::kInternal, "a resident block was not found");
    }
    double total = 0;
    for (const double m : micros) total += m;
    std::sort(micros.begin(), micros.end());
    return LookupCost{static_cast<double>(count * micros.size()) / total * 1e6, micros[micros.size() / 2],
                      micros[micros.size() * 99 / 100]};
}

// Memory and an SSD tier: hits of both, and what the device had to write for it.
Result<boost::json::array> bench_tiers(const Arguments& arguments, const Trace& trace, std::uint64_t distinct,
                                       std::ostream* text) {
    boost::json::array rows;
    const auto part = [&](double percent) { return static_cast<std::uint64_t>(static_cast<double>(distinct) * percent / 100); };
    const auto share = [&](std::uint64_t hits) {
        return 100.0 * static_cast<double>(hits) / static_cast<double>(trace.blocks);
    };
    if (text != nullptr && !arguments.ssd.empty()) {
        *text << fmt::format("{:<10} {:>9} {:>9} {:>9} {:>8} {:>10} {:>10} {:>8}\n", "tiers", "memory", "ssd", "memory %",
                             "ssd %", "stored", "rewritten", "WA");
    }
    for (const double ssd : arguments.ssd) {
        TierReplayOptions options;
        options.memory_blocks = part(arguments.ssd_memory);
        options.ssd_blocks = part(ssd);
        PEGA_ASSIGN(const TierReplay r, replay_tier(trace.requests, trace.hashes, options));
        rows.push_back(boost::json::object{{"memory_pct", arguments.ssd_memory},
                                           {"ssd_pct", ssd},
                                           {"memory_hit_pct", share(r.memory_hits)},
                                           {"ssd_hit_pct", share(r.ssd_hits)},
                                           {"stored_blocks", r.stored_blocks},
                                           {"rewritten_blocks", r.rewritten_blocks},
                                           {"evicted_blocks", r.evicted_blocks},
                                           {"segments", r.segments},
                                           {"evicted_segments", r.evicted_segments},
                                           {"block_bytes", r.block_bytes},
                                           {"rewritten_bytes", r.rewritten_bytes},
                                           {"table_bytes", r.table_bytes},
                                           {"write_amplification", r.write_amplification()}});
        if (text == nullptr) continue;
        *text << fmt::format("{:<10} {:>7.0f} % {:>7.0f} % {:>9.2f} {:>8.2f} {:>10} {:>10} {:>8.4f}\n", "lru",
                             arguments.ssd_memory, ssd, share(r.memory_hits), share(r.ssd_hits), r.stored_blocks,
                             r.rewritten_blocks, r.write_amplification());
    }
    return rows;
}

Result<void> bench(const Arguments& arguments, Context& context) {
    PEGA_ASSIGN(const Trace trace, read_trace(arguments.trace));
    std::unordered_set<std::uint32_t> distinct;
    for (const auto& request : trace.requests) distinct.insert(request.begin(), request.end());
    const auto percent = [&](std::uint64_t hits) {
        return 100.0 * static_cast<double>(hits) / static_cast<double>(trace.blocks);
    };
    PEGA_ASSIGN(const Outcome bound, replay(trace, "none", UINT64_MAX));
    PEGA_ASSIGN(const LookupCost cost, lookup_cost(trace));
    boost::json::array rows;
    std::ostream& out = context.out;
    if (!arguments.json) {
        out << fmt::format("# {} requests, {} blocks, {} distinct; an infinite cache hits {:.1f} %\n", trace.requests.size(),
                           trace.blocks, distinct.size(), percent(bound.hits));
        out << fmt::format("{:<10} {:>9} {:>9} {:>8} {:>9}\n", "admission", "capacity", "blocks", "hit %", "of bound");
    }
    for (const std::string& policy : arguments.policies) {
        for (const double capacity : arguments.capacities) {
            const auto blocks = static_cast<std::uint64_t>(static_cast<double>(distinct.size()) * capacity / 100);
            PEGA_ASSIGN(const Outcome o, replay(trace, policy, blocks));
            rows.push_back(boost::json::object{{"eviction", "lru"},
                                               {"admission", policy},
                                               {"capacity_pct", capacity},
                                               {"capacity_blocks", blocks},
                                               {"hit_pct", percent(o.hits)},
                                               {"lookups", o.lookups},
                                               {"inserts", o.inserts},
                                               {"inserts_per_s", static_cast<double>(o.inserts) / o.insert_seconds}});
            if (!arguments.json) {
                out << fmt::format("{:<10} {:>7.0f} % {:>9} {:>8.2f} {:>8.1f}%\n", policy, capacity, blocks, percent(o.hits),
                                   100 * percent(o.hits) / percent(bound.hits));
            }
        }
    }
    PEGA_ASSIGN(boost::json::array tiers, bench_tiers(arguments, trace, distinct.size(), arguments.json ? nullptr : &out));
    if (arguments.json) {
        out << boost::json::serialize(boost::json::object{
                   {"schema", "pegaflow.bench"},
                   {"path", "engine"},
                   {"tiers", std::move(tiers)},
                   {"trace", arguments.trace},
                   {"requests", trace.requests.size()},
                   {"blocks", trace.blocks},
                   {"distinct_blocks", distinct.size()},
                   {"infinite_hit_pct", percent(bound.hits)},
                   {"lookups_per_s", cost.per_second},
                   {"query_hashes", kQueryHashes},
                   {"query_us", boost::json::object{{"p50", cost.query_p50_us}, {"p99", cost.query_p99_us}}},
                   {"results", std::move(rows)}})
            << "\n";
        return {};
    }
    out << fmt::format("lookups   {:.1f} million/s on one core; a query of {} hashes p50 {:.1f} us, p99 {:.1f} us\n",
                       cost.per_second / 1e6, kQueryHashes, cost.query_p50_us, cost.query_p99_us);
    out << fmt::format("inserts   {:.2f} million/s\n", static_cast<double>(bound.inserts) / bound.insert_seconds / 1e6);
    return {};
}

}  // namespace

void add_bench_engine(CLI::App& bench_verb, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *bench_verb.add_subcommand("engine", "Replay a trace of block hashes through index and policies");
    verb.add_option("--trace", arguments->trace, "JSONL file, one request a line with hash_ids")->required();
    verb.add_option("--capacity", arguments->capacities, "Capacities in percent of the distinct blocks")->capture_default_str();
    verb.add_option("--admission", arguments->policies, "Admission policies")->capture_default_str();
    verb.add_option("--ssd", arguments->ssd, "Capacities of an SSD tier in percent of the distinct blocks; 0 for none")
        ->capture_default_str();
    verb.add_option("--ssd-memory", arguments->ssd_memory, "Capacity of the memory above it, in percent")
        ->capture_default_str();
    verb.add_flag("--json", arguments->json);
    verb.callback([arguments, &context] {
        std::erase(arguments->ssd, 0.0);
        if (const auto done = bench(*arguments, context); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
