// SPDX-License-Identifier: Apache-2.0
// lease.hpp - what keeps the blocks of a query in place until every worker has loaded them, or time is up.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block/block.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::engine {

// Owned by the lease and by the loads that read them: a thousand references are never copied, and go outside the table's mutex.
using LeasedBlocks = std::shared_ptr<const std::vector<BlockRef>>;

// Whose a lease is. The number is the instance's alone: one that left and one that came under its name are two.
struct LeaseOwner {
    std::uint64_t number = 0;
    std::string_view name;
};

class LeaseTable {
public:
    using Clock = std::chrono::steady_clock;

    struct Lease {
        std::uint64_t owner = 0;
        std::string owner_name;
        LeasedBlocks blocks;
        std::uint32_t shares = 0;
        std::set<std::int32_t> consumed_by;  // device ids
        Clock::time_point expiry;
    };

    explicit LeaseTable(std::uint64_t most_per_instance = UINT64_MAX) : most_(most_per_instance) {}

    // From now on, until drop_instance, the instance may have leases. [any]
    void add_instance(std::uint64_t number);
    // Takes the blocks; gives the name of the lease. kNotFound when the instance is gone, kQueueFull when it has as many leases
    // as one may have. [any]
    Result<LeaseId> create(const LeaseOwner& owner, std::vector<BlockRef> blocks, std::uint32_t shares,
                           Clock::time_point expiry);
    // The blocks of a lease as a worker would get them; nothing is consumed. kNotFound (unknown, expired, share gone), kInvalid
    // (another instance's). [any]
    Result<LeasedBlocks> peek(const LeaseId& id, const LeaseOwner& owner, std::int32_t device_id) const;
    // Takes the worker's share of each lease, or of none; the last share of a lease ends it. As peek. [any]
    Result<void> consume(std::span<const LeaseId> ids, const LeaseOwner& owner, std::int32_t device_id);
    Result<void> consume(const LeaseId& id, const LeaseOwner& owner, std::int32_t device_id) {
        return consume({&id, 1}, owner, device_id);
    }
    Result<void> renew(const LeaseId& id, Clock::time_point expiry);
    Result<void> release(const LeaseId& id);
    // Ends the leases of an instance, which gets no more; returns how many. [any]
    std::uint64_t drop_instance(std::uint64_t number);
    // Ends what is over; costs nothing while nothing is. [any]
    std::uint64_t expire(Clock::time_point now);
    std::uint64_t size() const;

private:
    using Map = std::map<LeaseId, Lease>;
    Result<Map::iterator> find(const LeaseId& id, const LeaseOwner& owner, std::int32_t device_id);
    // `blocks` gets what must go after the mutex.
    void erase(Map::iterator lease, std::vector<LeasedBlocks>& blocks);

    const std::uint64_t most_;
    mutable std::mutex mutex_;
    std::map<std::uint64_t, std::uint64_t> counts_;  // leases of each instance that may have some; guarded by mutex_
    Map leases_;                                     // guarded by mutex_
    std::set<std::pair<Clock::time_point, LeaseId>> by_expiry_;  // guarded by mutex_
};

}  // namespace pegaflow::engine
