// SPDX-License-Identifier: Apache-2.0
// The metrics of the SSD tier.
#include "server/metric_families.hpp"

namespace pegaflow::server {
namespace {

void add_writing(const TierStats& t, MetricFamilies& families) {
    families.gauge("pegaflow_ssd_devices", "Configured paths of the SSD tier.", t.devices);
    families.gauge("pegaflow_ssd_devices_ok", "Paths that can be read and written.", t.devices_ok);
    families.gauge("pegaflow_ssd_capacity_bytes", "Bytes of all segments.", t.capacity_bytes);
    families.gauge("pegaflow_ssd_used_bytes", "Bytes of segments that are not free.", t.used_bytes);
    families.gauge("pegaflow_ssd_live_bytes", "Bytes of blocks that can be found.", t.live_bytes);
    families.gauge("pegaflow_ssd_blocks", "Blocks that can be found.", t.blocks);
    families.gauge("pegaflow_ssd_write_queue_blocks", "Blocks that wait to be written or are being written.", t.queue_blocks);
    families.gauge("pegaflow_ssd_write_queue_bytes", "Bytes that wait to be written.", t.queue_bytes);
    families.gauge("pegaflow_ssd_write_inflight", "Extents of blocks that are being written or flushed.", t.writes_in_flight);
    families.counter("pegaflow_ssd_stored_blocks_total", "Blocks that are on the device since the start.", t.stored_blocks);
    families.counter("pegaflow_ssd_write_bytes_total", "Bytes of new blocks written.", t.block_bytes);
    families.counter("pegaflow_ssd_rewritten_bytes_total", "Bytes of hot blocks that were written again.", t.rewritten_bytes);
    families.counter("pegaflow_ssd_rewritten_blocks_total", "Hot blocks that were written again.", t.rewritten_blocks);
    families.counter("pegaflow_ssd_table_bytes_total", "Bytes of headers and tables written.", t.table_bytes);
    families.counter("pegaflow_ssd_flushes_total", "Flushes of the devices, each for many blocks.", t.flushes);
    families.counter("pegaflow_ssd_discarded_bytes_total", "Bytes that the device was told to forget.", t.discarded_bytes);
    families.gauge("pegaflow_ssd_lifetime_written_bytes", "Bytes ever written to the caches, over restarts.",
                   t.lifetime_written_bytes);
    families.counter("pegaflow_ssd_evicted_segments_total", "Segments that were given up.", t.evicted_segments);
    families.counter("pegaflow_ssd_evicted_blocks_total", "Blocks that went with them.", t.evicted_blocks);
    families.counter("pegaflow_ssd_write_failures_total", "Writes and flushes that failed.", t.write_failures);
    families.counters("pegaflow_ssd_skipped_blocks_total", "Blocks that were not written, by the reason.", "reason",
                      {{"known", number(t.skipped_known)},
                       {"queue_full", number(t.skipped_queue_full)},
                       {"budget", number(t.skipped_budget)},
                       {"too_large", number(t.skipped_too_large)},
                       {"no_space", number(t.skipped_no_space)},
                       {"failed", number(t.skipped_failed)},
                       {"shed", number(t.skipped_shed)}});
    families.histograms("pegaflow_ssd_write_throughput_bytes_per_second",
                        "Of single extents, of which some are under way at once.", "", {{"", &t.write_rates}});
}

void add_reading(const TierStats& t, MetricFamilies& families) {
    families.counter("pegaflow_ssd_read_blocks_total", "Blocks read and checked.", t.read_blocks);
    families.counter("pegaflow_ssd_read_bytes_total", "Bytes read and checked.", t.read_bytes);
    families.counter("pegaflow_ssd_read_failures_total", "Reads that failed.", t.read_failures);
    families.counter("pegaflow_ssd_digest_mismatches_total", "Blocks read with wrong bytes.", t.digest_mismatches);
    families.counter("pegaflow_ssd_quarantined_blocks_total", "Blocks that are not used any more for wrong bytes.",
                     t.quarantined_blocks);
    families.gauge("pegaflow_ssd_recovered_blocks", "Blocks found at the start.", t.recovered_blocks);
    families.gauge("pegaflow_ssd_recovery_dropped_blocks", "Torn blocks dropped at the start.", t.recovery_dropped);
    families.gauge("pegaflow_ssd_recovery_problems", "Damage found at the start; the log has the places.", t.recovery_problems);
    families.counter("pegaflow_ssd_prefetch_requests_total", "Queries that waited for the SSD.", t.prefetch_requests);
    families.gauge("pegaflow_ssd_prefetch_active", "Queries whose blocks are being read.", t.prefetch_active);
    families.gauge("pegaflow_ssd_prefetch_waiting", "Queries that wait for their turn.", t.prefetch_waiting);
    families.gauge("pegaflow_ssd_prefetch_inflight", "Blocks being read.", t.prefetch_reading_blocks);
    families.gauge("pegaflow_ssd_prefetch_inflight_bytes", "Bytes being read.", t.prefetch_bytes);
    families.counter("pegaflow_ssd_prefetch_joined_total", "Blocks that were being read for another query already.",
                     t.prefetch_joined);
    families.counter("pegaflow_ssd_prefetch_canceled_total", "Queries that went away while they waited.", t.prefetch_canceled);
    families.counter("pegaflow_prefetch_stale_gc_total", "Of those, the ones that were not asked again in time.",
                     t.prefetch_stale);
    families.counter("pegaflow_ssd_prefetch_expired_total", "Queries that waited too long and got what was there.",
                     t.prefetch_expired);
    families.counter("pegaflow_ssd_prefetch_too_slow_total", "Queries for which computing anew is faster.",
                     t.prefetch_too_slow);
    families.counter("pegaflow_ssd_prefetch_queue_full_total", "Queries refused because as many waited as may.",
                     t.prefetch_queue_full);
    families.counter("pegaflow_ssd_prefetch_failed_total", "Blocks that could not be read, or for which the pool had no room.",
                     t.prefetch_failed);
    families.gauge("pegaflow_ssd_read_latency_seconds", "Of a read, as the cost model sees it.", t.read_latency_seconds);
    families.gauge("pegaflow_ssd_read_bytes_per_second", "While reads are under way, as the cost model sees it.",
                   t.read_bytes_per_second);
    families.histograms("pegaflow_ssd_prefetch_throughput_bytes_per_second",
                        "Of single reads, of which many are under way at once.", "", {{"", &t.read_rates}});
}

}  // namespace

void add_ssd_families(const TierStats& tier, MetricFamilies& families) {
    add_writing(tier, families);
    add_reading(tier, families);
}

}  // namespace pegaflow::server
