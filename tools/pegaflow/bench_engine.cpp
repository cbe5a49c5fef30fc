// SPDX-License-Identifier: Apache-2.0
// pegaflow bench engine: replays a trace of block hashes through the real index and policies: hit rates by policy and capacity
// beside what an infinite cache would reach, with and without scans in between, and what lookups and inserts cost.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <unordered_set>

#include "engine/block/index.hpp"
#include "tools/pegaflow/bench_head.hpp"
#include "tools/pegaflow/bench_query.hpp"
#include "tools/pegaflow/bench_save.hpp"
#include "tools/pegaflow/bench_ssd.hpp"
#include "tools/pegaflow/replay_tier.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using engine::BlockIndex;
using engine::BlockKey;
using engine::BlockRef;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kHashBytes = 32;
constexpr std::size_t kScanEvery = 10;       // requests
constexpr std::uint64_t kInsertsATimed = 8;  // reading the clock for each would be a good part of what it measures
constexpr std::uint64_t kFor99 = 1000;       // fewer samples do not tell a p99

struct Arguments {
    std::string trace;
    std::string json;  // where to: a file, "-" = standard output, "" = nowhere
    bool replay_only = false;
    double max_query_us = 0, max_save_us = 0;
    std::vector<double> capacities = {5, 10, 25, 50};
    std::vector<std::string> policies = {"lru", "tiny_lfu"};
    std::vector<std::uint32_t> scans = {0, 200};
    std::vector<unsigned> threads = {1, 2};
    std::vector<double> ssd = {50};  // capacities of an SSD tier below the memory
    double ssd_memory = 10;
};

class NoPages final : public engine::PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
};

struct Trace {
    std::vector<std::vector<std::uint32_t>> requests;  // block numbers
    std::uint32_t first_scan = 0;                      // numbers from here on are of scans
    std::uint64_t blocks = 0;                          // without scans
    std::uint64_t distinct = 0;                        // likewise
};

Result<Trace> read_trace(const std::string& path) {
    std::ifstream file(path);
    if (!file) return fail(Code::kNotFound, fmt::format("cannot open the trace {}", path));
    Trace trace;
    std::unordered_set<std::uint32_t> distinct;
    std::size_t number = 0;
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
            if (!id.is_int64() || id.as_int64() < 0 || id.as_int64() > INT32_MAX)
                return fail(Code::kInvalid, fmt::format("{}:{}: a hash id is no number up to {}", path, number, INT32_MAX));
            request.push_back(static_cast<std::uint32_t>(id.as_int64()));
            distinct.insert(request.back());
            trace.first_scan = std::max(trace.first_scan, request.back() + 1);
        }
        trace.blocks += request.size();
    }
    if (trace.blocks == 0) return fail(Code::kInvalid, fmt::format("{} has no requests", path));
    trace.distinct = distinct.size();
    return trace;
}

// The trace with a request of `scan` blocks that never come again after every tenth one.
Trace with_scans(const Trace& trace, std::uint32_t scan) {
    Trace out{{}, trace.first_scan, trace.blocks, trace.distinct};
    std::uint32_t next = trace.first_scan;
    for (std::size_t i = 0; i < trace.requests.size(); ++i) {
        out.requests.push_back(trace.requests[i]);
        if (scan == 0 || (i + 1) % kScanEvery != 0) continue;
        auto& request = out.requests.emplace_back();
        for (std::uint32_t block = 0; block < scan; ++block) request.push_back(next++);
    }
    return out;
}

std::string hash_of(std::uint32_t number) {
    std::string hash(kHashBytes, '\0');
    for (std::size_t at = 0; at < kHashBytes; at += 8) {
        const std::uint64_t word = (number + 1) * 0x9e3779b97f4a7c15ULL * (at + 1);
        std::memcpy(hash.data() + at, &word, 8);
    }
    return hash;
}

// A block of an index without a pool.
BlockRef make_block(std::string_view hash, engine::PageOwner& pages) {
    const BlockKey key(1, 0, hash);
    auto* block = new engine::Block(key, engine::table_hash(1, 0, hash), pages);
    block->pages.push_back({0, 1});
    return BlockRef(block);
}

struct Outcome {
    std::uint64_t hits = 0, inserts = 0;
    double insert_seconds = 0;
    ssd::Histogram insert_times;  // of some, with the eviction that makes room
};

// Each request looks its prefix up, then saves what was not found, from the end to the start as the engine does.
Result<Outcome> replay(const Trace& trace, const std::string& policy, std::uint64_t capacity) {
    NoPages pages;
    PEGA_ASSIGN(const auto eviction, engine::make_eviction_policy(policy, std::min(capacity, trace.distinct)));
    PEGA_ASSIGN(const auto admission, engine::make_admission_policy("none"));
    BlockIndex index(eviction, *admission, pages);
    Outcome out;
    std::vector<std::string> hashes;
    std::vector<BlockRef> found;
    for (const auto& request : trace.requests) {
        hashes.clear();
        for (const std::uint32_t number : request) hashes.push_back(hash_of(number));
        const std::vector<std::string_view> views(hashes.begin(), hashes.end());
        index.lookup_prefix(1, 0, views, found);
        const std::size_t first = found.size();
        if (!request.empty() && request[0] < trace.first_scan) out.hits += first;
        found.clear();
        const auto start = Clock::now();
        for (std::size_t i = request.size(); i-- > first;) {
            bool admitted = false;
            const bool timed = i % kInsertsATimed == 0;
            const auto begun = timed ? Clock::now() : Clock::time_point();
            if (index.insert_resident(make_block(views[i], pages), &admitted)) ++out.inserts;
            if (index.resident() > capacity) index.evict_one();
            if (timed) out.insert_times.add(static_cast<std::uint64_t>((Clock::now() - begun).count()));
        }
        out.insert_seconds += std::chrono::duration<double>(Clock::now() - start).count();
    }
    return out;
}

struct Row {
    std::string policy;
    std::uint32_t scan = 0;
    double capacity_pct = 0;
    std::uint64_t capacity_blocks = 0;
    double hit_pct = 0;
    Outcome outcome;
    double inserts_per_second() const {
        return outcome.inserts == 0 ? 0 : static_cast<double>(outcome.inserts) / outcome.insert_seconds;
    }
    double insert_ns(double percentile) const { return 1e3 * outcome.insert_times.percentile_us(percentile); }
    bool knows_p99() const { return outcome.insert_times.count() >= kFor99; }
};

Result<std::vector<Row>> replay_all(const Arguments& arguments, const Trace& trace) {
    std::vector<Row> rows;
    for (const std::uint32_t scan : arguments.scans) {
        const Trace scanned = with_scans(trace, scan);
        for (const std::string& policy : arguments.policies) {
            for (const double capacity : arguments.capacities) {
                const auto blocks = static_cast<std::uint64_t>(static_cast<double>(trace.distinct) * capacity / 100);
                PEGA_ASSIGN(const Outcome o, replay(scanned, policy, std::max<std::uint64_t>(1, blocks)));
                rows.push_back({policy, scan, capacity, blocks,
                                100.0 * static_cast<double>(o.hits) / static_cast<double>(trace.blocks), o});
            }
        }
    }
    return rows;
}

// All that was measured.
struct Report {
    std::uint64_t infinite_hits = 0;
    double bound = 0;  // per cent that an infinite cache hits
    std::vector<Row> rows;
    std::vector<QueryCost> costs;
    std::optional<SaveCost> save;
    std::vector<TierReplay> tiers;
};

void print_costs(const Report& report, std::ostream& out) {
    for (const QueryCost& cost : report.costs) {
        out << fmt::format("{} thread{}: {:.1f} million lookups/s; a query of {} hashes p50 {:.1f} us, p99 {:.1f} us\n",
                           cost.threads, cost.threads == 1 ? "" : "s", cost.lookups_per_second / 1e6, kQueryHashes, cost.p50_us,
                           cost.p99_us);
    }
    if (!report.save) return;
    const SaveCost& save = *report.save;
    out << fmt::format(
        "a save of {}-byte blocks: {:.2f} us of processor time a block besides the copy ({:.2f} us), {:.2f} us when it evicts; "
        "digests add {:.2f} us, and {:.2f} us when it evicts\n",
        save.block_bytes, save.save_us, save.copy_us, save.save_evicting_us, save.digest_us,
        std::max(0.0, save.save_evicting_digests_us - save.save_evicting_us));
}

void print_table(const Arguments& arguments, const Trace& trace, const Head& head, const Report& report, std::ostream& out) {
    const double bound = report.bound;
    out << "# " << head.title("engine") << "\n";
    head.print_warnings(out);
    out << fmt::format("# {}: {} requests, {} blocks, {} distinct; an infinite cache hits {:.1f} %\n", arguments.trace,
                       trace.requests.size(), trace.blocks, trace.distinct, bound);
    out << fmt::format("{:<10} {:>6} {:>9} {:>9} {:>8} {:>9} {:>12} {:>9} {:>9}\n", "policy", "scan", "capacity", "blocks",
                       "hit %", "of bound", "M inserts/s", "p50_ns", "p99_ns");
    for (const Row& row : report.rows) {
        out << fmt::format("{:<10} {:>6} {:>7.0f} % {:>9} {:>8.2f} {:>8.1f}% {:>12.2f} {:>9.0f} {:>9}\n", row.policy, row.scan,
                           row.capacity_pct, row.capacity_blocks, row.hit_pct, bound > 0 ? 100 * row.hit_pct / bound : 0,
                           row.inserts_per_second() / 1e6, row.insert_ns(0.5),
                           row.knows_p99() ? fmt::format("{:.0f}", row.insert_ns(0.99)) : "-");
    }
    if (!report.tiers.empty()) {
        out << fmt::format("{:>9} {:>9} {:>9} {:>8} {:>10} {:>10} {:>8}\n", "memory", "ssd", "memory %", "ssd %", "stored",
                           "rewritten", "WA");
    }
    for (const TierReplay& r : report.tiers) {
        out << fmt::format("{:>7.0f} % {:>7.0f} % {:>9.2f} {:>8.2f} {:>10} {:>10} {:>8.4f}\n", r.memory_pct, r.ssd_pct,
                           r.memory_hit_pct, r.ssd_hit_pct, r.stored_blocks, r.rewritten_blocks, r.write_amplification());
    }
    print_costs(report, out);
}

boost::json::object to_json(const TierReplay& r) {
    return {{"memory_pct", r.memory_pct},
            {"ssd_pct", r.ssd_pct},
            {"memory_hit_pct", r.memory_hit_pct},
            {"ssd_hit_pct", r.ssd_hit_pct},
            {"stored_blocks", r.stored_blocks},
            {"rewritten_blocks", r.rewritten_blocks},
            {"evicted_blocks", r.evicted_blocks},
            {"segments", r.segments},
            {"evicted_segments", r.evicted_segments},
            {"block_bytes", r.block_bytes},
            {"rewritten_bytes", r.rewritten_bytes},
            {"table_bytes", r.table_bytes},
            {"write_amplification", r.write_amplification()}};
}

boost::json::object to_json(const SaveCost& save) {
    return {{"block_bytes", save.block_bytes},
            {"copy_us_per_block", save.copy_us},
            {"save_us_per_block", save.save_us},
            {"save_evicting_us_per_block", save.save_evicting_us},
            {"save_evicting_digests_us_per_block", save.save_evicting_digests_us},
            {"digest_us_per_block", save.digest_us}};
}

boost::json::object to_json(const Row& row) {
    const boost::json::value p99 = row.knows_p99() ? boost::json::value(row.insert_ns(0.99)) : nullptr;
    return {{"policy", row.policy},
            {"scan_blocks", row.scan},
            {"capacity_pct", row.capacity_pct},
            {"capacity_blocks", row.capacity_blocks},
            {"hit_blocks", row.outcome.hits},
            {"hit_pct", row.hit_pct},
            {"inserts_per_s", row.inserts_per_second()},
            {"insert_ns", boost::json::object{{"p50", row.insert_ns(0.5)}, {"p99", p99}}}};
}

std::string json_text(const Arguments& arguments, const Trace& trace, const Head& head, const Report& report) {
    boost::json::array results, queries, stacked;
    for (const TierReplay& r : report.tiers) stacked.push_back(to_json(r));
    for (const Row& row : report.rows) results.push_back(to_json(row));
    for (const QueryCost& cost : report.costs) {
        queries.push_back(boost::json::object{{"threads", cost.threads},
                                              {"hashes", kQueryHashes},
                                              {"lookups_per_s", cost.lookups_per_second},
                                              {"p50_us", cost.p50_us},
                                              {"p99_us", cost.p99_us}});
    }
    boost::json::object out = head.to_json();
    out["path"] = "engine";
    out["trace"] = arguments.trace;
    out["requests"] = trace.requests.size();
    out["blocks"] = trace.blocks;
    out["distinct_blocks"] = trace.distinct;
    out["infinite_hit_blocks"] = report.infinite_hits;
    out["infinite_hit_pct"] = report.bound;
    out["scan_every_requests"] = kScanEvery;
    out["queries"] = std::move(queries);
    if (report.save) out["save"] = to_json(*report.save);
    out["tiers"] = std::move(stacked);
    out["results"] = std::move(results);
    return boost::json::serialize(out) + "\n";
}

// Memory and an SSD tier below it: hits of both, and what the device had to write for it.
Result<std::vector<TierReplay>> replay_tiers(const Arguments& arguments, const Trace& trace) {
    std::vector<TierReplay> out;
    const auto part = [&](double pct) { return static_cast<std::uint64_t>(static_cast<double>(trace.distinct) * pct / 100); };
    for (const double pct : arguments.ssd) {
        if (pct == 0) continue;
        TierReplayOptions options;
        options.memory_blocks = part(arguments.ssd_memory);
        options.ssd_blocks = part(pct);
        PEGA_ASSIGN(TierReplay r, replay_tier(trace.requests, hash_of, options));
        const auto share = [&](std::uint64_t hits) {
            return 100.0 * static_cast<double>(hits) / static_cast<double>(trace.blocks);
        };
        r.memory_pct = arguments.ssd_memory;
        r.ssd_pct = pct;
        r.memory_hit_pct = share(r.memory_hits);
        r.ssd_hit_pct = share(r.ssd_hits);
        out.push_back(r);
    }
    return out;
}

// What is measured besides the replay, against what was asked for.
void judge(const Arguments& arguments, const Report& report, Context& context) {
    const bool slow_query = arguments.max_query_us > 0 && report.costs.front().p50_us > arguments.max_query_us;
    const bool slow_save = arguments.max_save_us > 0 && report.save->save_us > arguments.max_save_us;
    if (slow_query || slow_save) context.exit = kBelowRatio;
}

Result<void> bench(const Arguments& arguments, Context& context) {
    const bool gates = arguments.max_query_us > 0 || arguments.max_save_us > 0;
    if (gates && arguments.replay_only)
        return fail(Code::kInvalid,
                    "--replay-only measures neither queries nor saves: --max-query-us and --max-save-us need them");
    const Head head(context);
    PEGA_ASSIGN(const Trace trace, read_trace(arguments.trace));
    PEGA_ASSIGN(const Outcome all, replay(trace, "lru", UINT64_MAX));
    Report report;
    report.infinite_hits = all.hits;
    report.bound = 100.0 * static_cast<double>(all.hits) / static_cast<double>(trace.blocks);
    PEGA_ASSIGN(report.rows, replay_all(arguments, trace));
    if (!arguments.replay_only) {
        PEGA_ASSIGN(report.costs, query_costs(trace.distinct, arguments.threads));
        PEGA_ASSIGN(report.save, save_cost());
    }
    PEGA_ASSIGN(report.tiers, replay_tiers(arguments, trace));
    if (arguments.json != "-") print_table(arguments, trace, head, report, context.out);
    PEGA_TRY(write_output(arguments.json, json_text(arguments, trace, head, report), context.out));
    judge(arguments, report, context);
    return {};
}

}  // namespace

void add_bench_engine(CLI::App& bench_verb, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *bench_verb.add_subcommand("engine", "Replay a trace of block hashes through index and policies");
    verb.add_option("--trace", arguments->trace, "JSONL file, one request a line with hash_ids")->required();
    verb.add_option("--capacity", arguments->capacities, "Capacities in percent of the distinct blocks")->capture_default_str();
    verb.add_option("--policy", arguments->policies, "Eviction policies")->capture_default_str();
    verb.add_option("--scan", arguments->scans, "Blocks of a one-off request after every tenth one; 0 = as recorded")
        ->capture_default_str();
    verb.add_option("-t,--threads", arguments->threads, "Threads that query at once")->capture_default_str();
    verb.add_option("--ssd", arguments->ssd, "Capacities of an SSD tier in percent of the distinct blocks; 0 for none")
        ->capture_default_str();
    verb.add_option("--ssd-memory", arguments->ssd_memory, "Capacity of the memory above it, in percent")
        ->capture_default_str();
    verb.add_flag("--replay-only", arguments->replay_only, "Neither queries nor saves, which need the host back end");
    verb.add_option("--max-query-us", arguments->max_query_us,
                    "Exit 3 when a query of 1,000 hashes takes longer (p50, the first of --threads)");
    verb.add_option("--max-save-us", arguments->max_save_us,
                    "Exit 3 when a save takes more processor time a block besides the copy");
    add_output_option(verb, "--json", arguments->json, "JSON");
    verb.callback([arguments, &context] {
        if (const auto done = bench(*arguments, context); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
