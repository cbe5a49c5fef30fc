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

class LeaseTable {
public:
    using Clock = std::chrono::steady_clock;

    struct Lease {
        std::string instance_id;
        LeasedBlocks blocks;
        std::uint32_t shares = 0;
        std::set<std::int32_t> consumed_by;  // device ids
        Clock::time_point expiry;
    };

    // Takes the blocks; gives the name of the lease. [any]
    LeaseId create(std::string instance_id, std::vector<BlockRef> blocks, std::uint32_t shares, Clock::time_point expiry);
    // The blocks of a lease as a worker would get them; nothing is consumed. kNotFound (unknown, expired, share gone), kInvalid
    // (another instance's). [any]
    Result<LeasedBlocks> peek(const LeaseId& id, std::string_view instance_id, std::int32_t device_id) const;
    // Takes the worker's share of each lease, or of none; the last share of a lease ends it. As peek. [any]
    Result<void> consume(std::span<const LeaseId> ids, std::string_view instance_id, std::int32_t device_id);
    Result<void> consume(const LeaseId& id, std::string_view instance_id, std::int32_t device_id) {
        return consume({&id, 1}, instance_id, device_id);
    }
    Result<void> renew(const LeaseId& id, Clock::time_point expiry);
    Result<void> release(const LeaseId& id);
    // Ends the leases of an instance; returns how many. [any]
    std::uint64_t drop_instance(std::string_view instance_id);
    // Ends what is over; costs nothing while nothing is. [any]
    std::uint64_t expire(Clock::time_point now);
    std::uint64_t size() const;

private:
    using Map = std::map<LeaseId, Lease>;
    Result<Map::iterator> find(const LeaseId& id, std::string_view instance_id, std::int32_t device_id);
    // `blocks` gets what must go after the mutex.
    void erase(Map::iterator lease, std::vector<LeasedBlocks>& blocks);

    mutable std::mutex mutex_;
    Map leases_;                                                 // guarded by mutex_
    std::set<std::pair<Clock::time_point, LeaseId>> by_expiry_;  // guarded by mutex_
};

}  // namespace pegaflow::engine
