// SPDX-License-Identifier: Apache-2.0
// Leases of queries: for how long, how many, and what users do with them.
#include <algorithm>

#include "engine/state.hpp"

namespace pegaflow {

using engine::BlockRef;
using engine::Clock;
using engine::Instance;

Result<void> Engine::State::check_leasing() const {
    if (options.lease_time <= options.lease_time.zero()) return fail(Code::kInvalid, "lease_time must be positive");
    if (options.max_leases_per_instance == 0) return fail(Code::kInvalid, "max_leases_per_instance is 0, expected at least 1");
    return {};
}

Result<Clock::time_point> Engine::State::lease_expiry(std::optional<std::chrono::nanoseconds> asked) const {
    const auto most = std::max(options.max_lease_time, options.lease_time);
    const std::chrono::nanoseconds time = std::min(asked.value_or(options.lease_time), most);
    if (time <= time.zero()) return fail(Code::kInvalid, "a lease time must be positive");
    const auto now = Clock::now();
    return now + std::min<Clock::duration>(time, Clock::time_point::max() - now);
}

Result<LeaseId> Engine::State::make_lease(const Instance& instance, std::vector<BlockRef> blocks, Clock::time_point expiry) {
    blocks.shrink_to_fit();  // there was room for every hash that was asked for
    auto lease = leases.create({instance.number, instance.id}, std::move(blocks), instance.world_size, expiry);
    if (!lease && lease.error().code == Code::kQueueFull) ++counters.queue_full;
    return lease;
}

Result<void> Engine::renew(const LeaseId& lease, std::optional<std::chrono::nanoseconds> lease_time) {
    const auto pass = state_->gate.enter();
    if (!pass) return fail(Code::kCanceled, "the engine is closing");
    PEGA_ASSIGN(const auto expiry, state_->lease_expiry(lease_time));
    return state_->leases.renew(lease, expiry);
}

Result<void> Engine::release(const LeaseId& lease) {
    const auto pass = state_->gate.enter();
    if (!pass) return fail(Code::kCanceled, "the engine is closing");
    return state_->leases.release(lease);
}

}  // namespace pegaflow
