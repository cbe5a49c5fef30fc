// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <vector>

#include "server/config.hpp"
#include "server/metric_families.hpp"

namespace pegaflow::server {
namespace {

using prometheus::Histogram;

const Histogram::BucketBoundaries kCopySeconds = {.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5,
                                                  1,     1.5,  2,     3,    5,   7.5,  10,  15, 30,  60};
const Histogram::BucketBoundaries kRpcSeconds = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2};

void add_pool_and_cache(const EngineStats& s, MetricFamilies& out) {
    out.gauge("pegaflow_pool_capacity_bytes", "Bytes of the pool.", s.pool_capacity_bytes);
    out.gauge("pegaflow_pool_ready_bytes", "Bytes of the pool that are in memory and registered.", s.pool_ready_bytes);
    out.gauge("pegaflow_pool_used_bytes", "Bytes of the pool that hold pages.", s.pool_used_bytes);
    out.gauge("pegaflow_pool_largest_free_bytes", "The longest free range of the pool.", s.pool_largest_free_bytes);
    out.gauge("pegaflow_pool_staging_bytes", "Bytes of pages that neither resident nor incomplete blocks have.",
              s.staging_bytes);
    out.counter("pegaflow_pool_alloc_failures_total", "Saves that found no page after eviction.", s.pool_alloc_failures);
    out.gauge("pegaflow_inflight_bytes", "Bytes of pages of blocks of which some slots are missing.", s.incomplete_bytes);
    out.gauge("pegaflow_inflight_blocks", "Blocks of which some slots are missing.", s.incomplete_blocks);
    out.counter("pegaflow_inflight_gc_cleaned_total", "Incomplete blocks dropped for their age.", s.incomplete_dropped);
    out.gauge("pegaflow_cache_resident_bytes", "Bytes of resident blocks.", s.resident_bytes);
    out.gauge("pegaflow_cache_resident_blocks", "Resident blocks.", s.resident_blocks);
    out.counter("pegaflow_cache_block_hits_total", "Blocks found by queries.", s.block_hits);
    out.counter("pegaflow_cache_block_misses_total", "Blocks not found by queries.", s.block_misses);
    out.counters("pegaflow_cache_tier_block_requests_total", "Blocks asked for by queries, by the tier that had them.", "tier",
                 {{"ram", number(s.memory_hits)}, {"ssd", number(s.tier.hits)}, {"miss", number(s.block_misses)}});
    out.counter("pegaflow_cache_block_insertions_total", "Blocks that became resident.", s.insertions);
    out.counter("pegaflow_cache_block_admission_rejections_total", "Complete blocks that were not admitted.",
                s.admission_rejections);
    out.counter("pegaflow_cache_block_evictions_total", "Blocks evicted under memory pressure.", s.evictions);
    out.counters("pegaflow_cache_block_evictions_by_class_total",
                 "The same by class: reclaimable ones were offered to the SSD tier, retained ones were in memory alone.",
                 "class",
                 {{"reclaimable", number(s.evictions_offered)}, {"retained", number(s.evictions - s.evictions_offered)}});
    out.counter("pegaflow_cache_eviction_reclaimed_bytes_total", "Bytes of evicted blocks.", s.evicted_bytes);
    out.histograms("pegaflow_cache_residence_duration_seconds", "From becoming resident to going, by the reason to go.",
                   "reason", {{"pressure", &s.evicted_residence}, {"cleanup", &s.erased_residence}});
    out.counter("pegaflow_cache_digest_mismatches_total", "Pages that did not have their digest any more.",
                s.digest_mismatches);
    out.counter("pegaflow_cache_quarantined_blocks_total", "Blocks dropped for a wrong digest.", s.quarantined_blocks);
}

void add_requests(const EngineStats& s, MetricFamilies& out) {
    out.counter("pegaflow_save_requests_total", "Saves begun.", s.save_requests);
    out.counter("pegaflow_save_failures_total", "Saves that failed.", s.save_failures);
    out.counter("pegaflow_save_bytes_total", "Bytes copied by saves.", s.save_bytes);
    out.counter("pegaflow_save_blocks_total", "Block shards copied by saves.", s.saved_blocks);
    out.counter("pegaflow_save_duplicate_blocks_total",
                "Block shards that saves did not copy, because they were there or on their way.", s.duplicate_blocks);
    out.gauge("pegaflow_saves_in_flight", "Saves under way.", s.saves_in_flight);
    out.counter("pegaflow_load_requests_total", "Loads begun.", s.load_requests);
    out.counter("pegaflow_load_failures_total", "Loads that failed.", s.load_failures);
    out.counter("pegaflow_load_bytes_total", "Bytes copied by loads.", s.load_bytes);
    out.gauge("pegaflow_loads_in_flight", "Loads under way.", s.loads_in_flight);
    out.counter("pegaflow_queue_full_total", "Requests refused because a queue was full, or an instance held too many leases.",
                s.queue_full);
    out.counter("pegaflow_canceled_total", "Saves and loads that ended early.", s.canceled);
    out.counter("pegaflow_queries_total", "Queries answered.", s.queries);
    out.gauge("pegaflow_leases", "Leases that pin blocks.", s.leases);
    out.counter("pegaflow_leases_expired_total", "Leases that ran out of time.", s.leases_expired);
    out.gauge("pegaflow_instances", "Registered instances.", s.instances);
    out.gauge("pegaflow_workers", "Registered workers.", s.workers);
}

void add_distinct(const std::vector<DistinctWindow>& windows, MetricFamilies& out) {
    std::vector<std::string> names;
    std::vector<MetricFamilies::Labelled> distinct, asked, rate;
    names.reserve(windows.size());
    for (const DistinctWindow& w : windows) {
        names.push_back(format_window(w.length));
        const double all = number(w.asked);
        distinct.push_back({names.back(), w.distinct_missed});
        asked.push_back({names.back(), all});
        rate.push_back({names.back(), all == 0 ? 0 : std::clamp(1 - w.distinct_missed / all, 0.0, 1.0)});
    }
    out.gauges("pegaflow_hll_cardinality", "Different blocks that queries missed within the window, an estimate.", "window",
               distinct);
    out.gauges("pegaflow_hll_total_requests", "Blocks that queries asked for within the window.", "window", asked);
    out.gauges("pegaflow_hll_estimated_hit_rate", "What a cache that never evicts would hit within the window.", "window",
               rate);
}

}  // namespace

struct Metrics::State {
    prometheus::Registry registry;
    Histogram& save_seconds = seconds("pegaflow_save_duration_seconds", "From a save's start to the end of its copies.");
    Histogram& load_seconds = seconds("pegaflow_load_duration_seconds", "From a load's start to the end of its copies.");
    prometheus::Family<prometheus::Counter>& rpc_requests = prometheus::BuildCounter()
                                                                .Name("pegaflow_rpc_requests_total")
                                                                .Help("RPCs that ended, by method and status.")
                                                                .Register(registry);
    prometheus::Family<Histogram>& rpc_seconds = prometheus::BuildHistogram()
                                                     .Name("pegaflow_rpc_duration_seconds")
                                                     .Help("Duration of RPCs, by method and status.")
                                                     .Register(registry);

    Histogram& seconds(const char* name, const char* help) {
        return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, kCopySeconds);
    }
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

EngineObserver Metrics::observer() {
    return {[this](double seconds, std::uint64_t) { state_->save_seconds.Observe(seconds); },
            [this](double seconds, std::uint64_t, bool) { state_->load_seconds.Observe(seconds); }};
}

void Metrics::rpc(const char* method, const char* status, double seconds) {
    const prometheus::Labels labels = {{"method", method}, {"status", status}};
    state_->rpc_requests.Add(labels).Increment();
    state_->rpc_seconds.Add(labels, kRpcSeconds).Observe(seconds);
}

std::string Metrics::expose(const Engine& engine) const {
    const EngineStats stats = engine.stats();
    MetricFamilies families(state_->registry.Collect());
    add_pool_and_cache(stats, families);
    add_requests(stats, families);
    if (stats.tier.devices != 0) add_ssd_families(stats.tier, families);
    if (const auto windows = engine.distinct_windows(); !windows.empty()) add_distinct(windows, families);
    return prometheus::TextSerializer().Serialize(families.all());
}

}  // namespace pegaflow::server
