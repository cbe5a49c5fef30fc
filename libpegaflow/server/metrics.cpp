// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.hpp"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <vector>

namespace pegaflow::server {
namespace {

using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

const Histogram::BucketBoundaries kCopySeconds = {.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5,
                                                  1,     1.5,  2,     3,    5,   7.5,  10,  15, 30,  60};
const Histogram::BucketBoundaries kRpcSeconds = {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2};

MetricFamily family(const char* name, const char* help, MetricType type, double value) {
    MetricFamily out;
    out.name = name;
    out.help = help;
    out.type = type;
    prometheus::ClientMetric metric;
    metric.counter.value = value;
    metric.gauge.value = value;
    out.metric.push_back(std::move(metric));
    return out;
}

// Which tier answered for the blocks of queries, in one family with the label the existing service has.
MetricFamily tier_requests(const EngineStats& s) {
    MetricFamily out;
    out.name = "pegaflow_cache_tier_block_requests_total";
    out.help = "Blocks asked for by queries, by the tier that had them.";
    out.type = MetricType::Counter;
    const std::pair<const char*, std::uint64_t> tiers[] = {
        {"ram", s.block_hits - s.tier.hits}, {"ssd", s.tier.hits}, {"miss", s.block_misses}};
    for (const auto& [tier, value] : tiers) {
        prometheus::ClientMetric metric;
        metric.label.push_back({"tier", tier});
        metric.counter.value = static_cast<double>(value);
        out.metric.push_back(std::move(metric));
    }
    return out;
}

MetricFamily skipped(const TierStats& t) {
    MetricFamily out;
    out.name = "pegaflow_ssd_skipped_blocks_total";
    out.help = "Blocks that were not written, by the reason.";
    out.type = MetricType::Counter;
    const std::pair<const char*, std::uint64_t> reasons[] = {
        {"known", t.skipped_known},       {"queue_full", t.skipped_queue_full},
        {"budget", t.skipped_budget},     {"too_large", t.skipped_too_large},
        {"no_space", t.skipped_no_space}, {"failed", t.skipped_failed},
        {"shed", t.skipped_shed}};
    for (const auto& [reason, value] : reasons) {
        prometheus::ClientMetric metric;
        metric.label.push_back({"reason", reason});
        metric.counter.value = static_cast<double>(value);
        out.metric.push_back(std::move(metric));
    }
    return out;
}

void add_ssd(const EngineStats& s, std::vector<MetricFamily>& families) {
    const TierStats& t = s.tier;
    const auto gauge = [&](const char* name, const char* help, double value) {
        families.push_back(family(name, help, MetricType::Gauge, value));
    };
    const auto counter = [&](const char* name, const char* help, std::uint64_t value) {
        families.push_back(family(name, help, MetricType::Counter, static_cast<double>(value)));
    };
    const auto number = [](std::uint64_t value) { return static_cast<double>(value); };
    families.push_back(tier_requests(s));
    families.push_back(skipped(t));
    gauge("pegaflow_ssd_devices", "Configured paths of the SSD tier.", number(t.devices));
    gauge("pegaflow_ssd_devices_ok", "Paths that can be read and written.", number(t.devices_ok));
    gauge("pegaflow_ssd_capacity_bytes", "Bytes of all segments.", number(t.capacity_bytes));
    gauge("pegaflow_ssd_used_bytes", "Bytes of segments that are not free.", number(t.used_bytes));
    gauge("pegaflow_ssd_live_bytes", "Bytes of blocks that can be found.", number(t.live_bytes));
    gauge("pegaflow_ssd_blocks", "Blocks that can be found.", number(t.blocks));
    gauge("pegaflow_ssd_write_queue_blocks", "Blocks that wait to be written or are being written.", number(t.queue_blocks));
    gauge("pegaflow_ssd_write_queue_bytes", "Bytes that wait to be written.", number(t.queue_bytes));
    counter("pegaflow_ssd_stored_blocks_total", "Blocks that are on the device since the start.", t.stored_blocks);
    counter("pegaflow_ssd_write_bytes_total", "Bytes of new blocks written.", t.block_bytes);
    counter("pegaflow_ssd_rewritten_bytes_total", "Bytes of hot blocks that were written again.", t.rewritten_bytes);
    counter("pegaflow_ssd_rewritten_blocks_total", "Hot blocks that were written again.", t.rewritten_blocks);
    counter("pegaflow_ssd_table_bytes_total", "Bytes of headers and tables written.", t.table_bytes);
    counter("pegaflow_ssd_flushes_total", "Flushes of the devices, each for many blocks.", t.flushes);
    counter("pegaflow_ssd_discarded_bytes_total", "Bytes that the device was told to forget.", t.discarded_bytes);
    gauge("pegaflow_ssd_lifetime_written_bytes", "Bytes ever written to the caches, over restarts.",
          number(t.lifetime_written_bytes));
    counter("pegaflow_ssd_evicted_segments_total", "Segments that were given up.", t.evicted_segments);
    counter("pegaflow_ssd_evicted_blocks_total", "Blocks that went with them.", t.evicted_blocks);
    counter("pegaflow_ssd_write_failures_total", "Writes and flushes that failed.", t.write_failures);
    counter("pegaflow_ssd_read_blocks_total", "Blocks read and checked.", t.read_blocks);
    counter("pegaflow_ssd_read_bytes_total", "Bytes read and checked.", t.read_bytes);
    counter("pegaflow_ssd_read_failures_total", "Reads that failed.", t.read_failures);
    counter("pegaflow_ssd_digest_mismatches_total", "Blocks read with wrong bytes.", t.digest_mismatches);
    counter("pegaflow_ssd_quarantined_blocks_total", "Blocks that are not used any more for wrong bytes.",
            t.quarantined_blocks);
    gauge("pegaflow_ssd_recovered_blocks", "Blocks found at the start.", number(t.recovered_blocks));
    gauge("pegaflow_ssd_recovery_dropped_blocks", "Torn blocks dropped at the start.", number(t.recovery_dropped));
    gauge("pegaflow_ssd_recovery_problems", "Damage found at the start; the log has the places.", number(t.recovery_problems));
    counter("pegaflow_ssd_prefetch_requests_total", "Queries that waited for the SSD.", t.prefetch_requests);
    gauge("pegaflow_ssd_prefetch_active", "Queries whose blocks are being read.", number(t.prefetch_active));
    gauge("pegaflow_ssd_prefetch_waiting", "Queries that wait for their turn.", number(t.prefetch_waiting));
    gauge("pegaflow_ssd_prefetch_bytes", "Bytes being read.", number(t.prefetch_bytes));
    counter("pegaflow_ssd_prefetch_joined_total", "Blocks that were being read for another query already.", t.prefetch_joined);
    counter("pegaflow_ssd_prefetch_canceled_total", "Queries that went away while they waited.", t.prefetch_canceled);
    counter("pegaflow_ssd_prefetch_expired_total", "Queries that waited too long and got what was there.", t.prefetch_expired);
    counter("pegaflow_ssd_prefetch_too_slow_total", "Queries for which computing anew is faster.", t.prefetch_too_slow);
    counter("pegaflow_ssd_prefetch_failed_total", "Blocks that could not be read, or for which the pool had no room.",
            t.prefetch_failed);
    gauge("pegaflow_ssd_read_latency_seconds", "Of a read, as the cost model sees it.", t.read_latency_seconds);
    gauge("pegaflow_ssd_read_bytes_per_second", "While reads are under way, as the cost model sees it.",
          t.read_bytes_per_second);
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
    const EngineStats s = engine.stats();
    std::vector<MetricFamily> families = state_->registry.Collect();
    const auto gauge = [&](const char* name, const char* help, std::uint64_t value) {
        families.push_back(family(name, help, MetricType::Gauge, static_cast<double>(value)));
    };
    const auto counter = [&](const char* name, const char* help, std::uint64_t value) {
        families.push_back(family(name, help, MetricType::Counter, static_cast<double>(value)));
    };
    gauge("pegaflow_pool_capacity_bytes", "Bytes of the pool.", s.pool_capacity_bytes);
    gauge("pegaflow_pool_ready_bytes", "Bytes of the pool that are in memory and registered.", s.pool_ready_bytes);
    gauge("pegaflow_pool_used_bytes", "Bytes of the pool that hold pages.", s.pool_used_bytes);
    gauge("pegaflow_pool_largest_free_bytes", "The longest free range of the pool.", s.pool_largest_free_bytes);
    counter("pegaflow_pool_alloc_failures_total", "Saves that found no page after eviction.", s.pool_alloc_failures);
    gauge("pegaflow_inflight_bytes", "Bytes allocated and not yet part of a resident block.", s.incomplete_bytes);
    gauge("pegaflow_inflight_blocks", "Blocks of which some slots are missing.", s.incomplete_blocks);
    counter("pegaflow_inflight_gc_cleaned_total", "Incomplete blocks dropped for their age.", s.incomplete_dropped);
    gauge("pegaflow_cache_resident_bytes", "Bytes of resident blocks.", s.resident_bytes);
    gauge("pegaflow_cache_resident_blocks", "Resident blocks.", s.resident_blocks);
    counter("pegaflow_cache_block_hits_total", "Blocks found by queries.", s.block_hits);
    counter("pegaflow_cache_block_misses_total", "Blocks not found by queries.", s.block_misses);
    counter("pegaflow_cache_block_insertions_total", "Blocks that became resident.", s.insertions);
    counter("pegaflow_cache_block_admission_rejections_total", "Complete blocks that were not admitted.",
            s.admission_rejections);
    counter("pegaflow_cache_block_evictions_total", "Blocks evicted under memory pressure.", s.evictions);
    counter("pegaflow_cache_eviction_reclaimed_bytes_total", "Bytes of evicted blocks.", s.evicted_bytes);
    counter("pegaflow_cache_digest_mismatches_total", "Pages that did not have their digest any more.", s.digest_mismatches);
    counter("pegaflow_cache_quarantined_blocks_total", "Blocks dropped for a wrong digest.", s.quarantined_blocks);
    counter("pegaflow_save_requests_total", "Saves begun.", s.save_requests);
    counter("pegaflow_save_failures_total", "Saves that failed.", s.save_failures);
    counter("pegaflow_save_bytes_total", "Bytes copied by saves.", s.save_bytes);
    counter("pegaflow_save_blocks_total", "Block shards copied by saves.", s.saved_blocks);
    counter("pegaflow_save_duplicate_blocks_total",
            "Block shards that saves did not copy, because they were there or on their way.", s.duplicate_blocks);
    gauge("pegaflow_saves_in_flight", "Saves under way.", s.saves_in_flight);
    counter("pegaflow_load_requests_total", "Loads begun.", s.load_requests);
    counter("pegaflow_load_failures_total", "Loads that failed.", s.load_failures);
    counter("pegaflow_load_bytes_total", "Bytes copied by loads.", s.load_bytes);
    gauge("pegaflow_loads_in_flight", "Loads under way.", s.loads_in_flight);
    counter("pegaflow_queue_full_total", "Requests refused because a transfer queue was full.", s.queue_full);
    counter("pegaflow_canceled_total", "Saves and loads that ended early.", s.canceled);
    counter("pegaflow_queries_total", "Queries answered.", s.queries);
    gauge("pegaflow_leases", "Leases that pin blocks.", s.leases);
    counter("pegaflow_leases_expired_total", "Leases that ran out of time.", s.leases_expired);
    gauge("pegaflow_instances", "Registered instances.", s.instances);
    gauge("pegaflow_workers", "Registered workers.", s.workers);
    if (s.tier.devices != 0) add_ssd(s, families);
    return prometheus::TextSerializer().Serialize(families);
}

}  // namespace pegaflow::server
