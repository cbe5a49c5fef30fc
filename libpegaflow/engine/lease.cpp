// SPDX-License-Identifier: Apache-2.0
#include "engine/lease.hpp"

#include <fmt/format.h>
#include <sys/random.h>

namespace pegaflow::engine {
namespace {

constexpr const char* kUnknown = "query lease is unknown or expired";

}  // namespace

void LeaseTable::add_instance(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    counts_.emplace(number, 0);
}

Result<LeaseId> LeaseTable::create(const LeaseOwner& owner, std::vector<BlockRef> blocks, std::uint32_t shares,
                                   Clock::time_point expiry) {
    LeaseId id{};
    std::size_t filled = 0;
    while (filled < id.size()) {
        const ssize_t count = ::getrandom(id.data() + filled, id.size() - filled, 0);
        if (count > 0) filled += static_cast<std::size_t>(count);
    }
    auto leased =
        std::make_shared<const std::vector<BlockRef>>(std::move(blocks));  // goes outside the mutex when it is refused
    const std::lock_guard lock(mutex_);
    const auto count = counts_.find(owner.number);
    if (count == counts_.end())
        return fail(Code::kNotFound, fmt::format("instance {} not found: it has just gone", owner.name));
    if (count->second >= most_) {
        return fail(Code::kQueueFull, fmt::format("instance {} holds {} leases, as many as one may; release those of requests "
                                                  "that are over, and try again",
                                                  owner.name, count->second));
    }
    ++count->second;
    leases_.emplace(id, Lease{owner.number, std::string(owner.name), std::move(leased), shares, {}, expiry});
    by_expiry_.emplace(expiry, id);
    return id;
}

Result<LeaseTable::Map::iterator> LeaseTable::find(const LeaseId& id, const LeaseOwner& owner, std::int32_t device_id) {
    const auto it = leases_.find(id);
    if (it == leases_.end() || it->second.expiry <= Clock::now()) return fail(Code::kNotFound, kUnknown);
    if (it->second.owner != owner.number) {
        if (it->second.owner_name == owner.name) return fail(Code::kNotFound, kUnknown);
        return fail(Code::kInvalid,
                    fmt::format("query lease belongs to instance {}, got {}", it->second.owner_name, owner.name));
    }
    if (it->second.consumed_by.contains(device_id)) {
        return fail(Code::kNotFound, fmt::format("{}: device {} has consumed its share", kUnknown, device_id));
    }
    return it;
}

Result<LeasedBlocks> LeaseTable::peek(const LeaseId& id, const LeaseOwner& owner, std::int32_t device_id) const {
    const std::lock_guard lock(mutex_);
    PEGA_ASSIGN(const auto it, const_cast<LeaseTable*>(this)->find(id, owner, device_id));
    return it->second.blocks;
}

Result<void> LeaseTable::consume(std::span<const LeaseId> ids, const LeaseOwner& owner, std::int32_t device_id) {
    std::vector<LeasedBlocks> blocks;  // freed after the lock
    const std::lock_guard lock(mutex_);
    for (const LeaseId& id : ids) PEGA_TRY(find(id, owner, device_id));
    for (const LeaseId& id : ids) {
        const auto it = leases_.find(id);
        if (it == leases_.end()) continue;  // named twice
        it->second.consumed_by.insert(device_id);
        if (--it->second.shares == 0) erase(it, blocks);
    }
    return {};
}

void LeaseTable::erase(Map::iterator lease, std::vector<LeasedBlocks>& blocks) {
    blocks.push_back(std::move(lease->second.blocks));
    if (const auto count = counts_.find(lease->second.owner); count != counts_.end()) --count->second;
    by_expiry_.erase({lease->second.expiry, lease->first});
    leases_.erase(lease);
}

Result<void> LeaseTable::renew(const LeaseId& id, Clock::time_point expiry) {
    const std::lock_guard lock(mutex_);
    const auto it = leases_.find(id);
    if (it == leases_.end() || it->second.expiry <= Clock::now()) return fail(Code::kNotFound, kUnknown);
    by_expiry_.erase({it->second.expiry, id});
    it->second.expiry = expiry;
    by_expiry_.emplace(expiry, id);
    return {};
}

Result<void> LeaseTable::release(const LeaseId& id) {
    std::vector<LeasedBlocks> blocks;
    const std::lock_guard lock(mutex_);
    const auto it = leases_.find(id);
    if (it == leases_.end()) return fail(Code::kNotFound, kUnknown);
    const bool expired = it->second.expiry <= Clock::now();
    erase(it, blocks);
    if (expired) return fail(Code::kNotFound, kUnknown);
    return {};
}

std::uint64_t LeaseTable::drop_instance(std::uint64_t number) {
    std::vector<LeasedBlocks> blocks;
    const std::lock_guard lock(mutex_);
    counts_.erase(number);
    std::uint64_t dropped = 0;
    for (auto it = leases_.begin(); it != leases_.end();) {
        const auto next = std::next(it);
        if (it->second.owner == number) {
            erase(it, blocks);
            ++dropped;
        }
        it = next;
    }
    return dropped;
}

std::uint64_t LeaseTable::expire(Clock::time_point now) {
    std::vector<LeasedBlocks> blocks;
    const std::lock_guard lock(mutex_);
    std::uint64_t expired = 0;
    while (!by_expiry_.empty() && by_expiry_.begin()->first <= now) {
        erase(leases_.find(by_expiry_.begin()->second), blocks);
        ++expired;
    }
    return expired;
}

std::uint64_t LeaseTable::size() const {
    const std::lock_guard lock(mutex_);
    return leases_.size();
}

}  // namespace pegaflow::engine
