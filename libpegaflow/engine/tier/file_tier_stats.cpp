// SPDX-License-Identifier: Apache-2.0
// What a file tier says about itself.
#include "engine/tier/file_tier.hpp"

namespace pegaflow::engine::tier {

void FileTier::add_stats(EngineStats& stats) const {
    TierStats& s = stats.tier;
    const Counters& c = counters_;
    for (const TierDeviceInfo& device : devices()) {
        ++s.devices;
        s.devices_ok += device.state == "ok" ? 1 : 0;
        s.capacity_bytes += device.capacity_bytes;
        s.used_bytes += device.used_bytes;
        s.lifetime_written_bytes += device.lifetime_written_bytes;
    }
    s.live_bytes = catalog_.live_bytes();
    s.blocks = catalog_.blocks();
    s.queue_blocks = queue_.blocks();
    s.queue_bytes = queue_.bytes();
    s.stored_blocks = c.stored_blocks;
    s.skipped_known = c.known_blocks;
    s.skipped_queue_full = c.queue_full_blocks;
    s.skipped_budget = c.budget_blocks;
    s.skipped_too_large = c.too_large_blocks;
    s.skipped_no_space = c.no_space_blocks;
    s.skipped_failed = c.failed_blocks;
    s.skipped_shed = c.shed_blocks;
    s.block_bytes = c.block_bytes;
    s.rewritten_bytes = c.rewritten_bytes;
    s.table_bytes = c.table_bytes;
    s.discarded_bytes = c.discarded_bytes;
    s.flushes = c.flushes;
    s.rewritten_blocks = c.rewritten_blocks;
    s.evicted_segments = c.evicted_segments;
    s.evicted_blocks = c.evicted_blocks;
    s.write_failures = c.write_failures + c.sync_failures;
    s.read_blocks = c.read_blocks;
    s.read_bytes = c.read_bytes;
    s.read_failures = c.read_failures;
    s.digest_mismatches = c.mismatches;
    s.quarantined_blocks = c.quarantined;
    s.recovered_blocks = c.recovered_blocks;
    s.recovery_dropped = c.recovery_dropped;
    s.recovery_problems = c.recovery_problems;
    const std::lock_guard lock(mutex_);
    s.read_latency_seconds = cost_.latency_seconds();
    s.read_bytes_per_second = cost_.bytes_per_second();
}

std::vector<TierDeviceInfo> FileTier::devices() const {
    std::vector<TierDeviceInfo> out;
    for (const auto& store : stores_) {
        out.push_back(store->info);
        if (!store->writer) continue;
        TierDeviceInfo& info = out.back();
        const Usage usage = catalog_.usage(store->number);
        info.capacity_bytes = usage.capacity_bytes;
        info.used_bytes = usage.used_bytes;
        info.live_bytes = usage.live_bytes;
        info.blocks = usage.blocks;
        info.segments = usage.segments;
        info.free_segments = usage.free_segments;
        info.lifetime_written_bytes = store->writer->lifetime_bytes();
        const std::string writing = store->writer->problem();
        const std::lock_guard lock(mutex_);
        info.problem = !store->late_problem.empty()   ? "hanging: " + store->late_problem
                       : !store->read_problem.empty() ? "reading: " + store->read_problem
                       : !writing.empty()             ? "writing: " + writing
                                                      : "";
        if (!info.problem.empty()) info.state = "degraded";
    }
    return out;
}

}  // namespace pegaflow::engine::tier
