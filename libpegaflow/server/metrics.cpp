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
    return prometheus::TextSerializer().Serialize(families);
}

}  // namespace pegaflow::server
