// SPDX-License-Identifier: Apache-2.0
// eviction_policy.hpp - how much a resident block deserves to stay: the block of the lowest rank goes first.
//
// A policy is a function, not a list. Uses are noted in the block itself (last_use, uses) by whoever looks it up, so that a
// hit costs a policy nothing; ranks are asked for when a block comes and when memory is short.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "engine/block/block.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

// Time in the index goes by what happens there: one tick a block that is looked up, this many a block that becomes resident.
inline constexpr std::uint64_t kTicksPerInsert = 1024;

struct PolicyTime {
    std::uint64_t now = 0;
    std::uint64_t turnover = 0;  // ticks in which as many blocks come as there are now
};

// One object serves one shard of the index and is called with that shard's mutex held: it needs no lock of its own and must
// not call out. Ranks of all shards are compared with each other.
class EvictionPolicy {
public:
    virtual ~EvictionPolicy() = default;

    // A block of this table hash is about to come: memory may be fetched ahead. Called without the mutex. [any]
    virtual void expect(std::uint64_t hash) const noexcept { static_cast<void>(hash); }
    // The block became resident just now; `last_use` is set.
    virtual void inserted(Block& block, const PolicyTime& time) { static_cast<void>(block), static_cast<void>(time); }
    // The block leaves; `evicted` when memory was short.
    virtual void removed(Block& block, bool evicted) { static_cast<void>(block), static_cast<void>(evicted); }
    // Must not fall by a use of the block.
    virtual std::uint64_t rank(Block& block, const PolicyTime& time) = 0;
};

using EvictionFactory = std::function<std::unique_ptr<EvictionPolicy>()>;

// Makes the objects of one index that expects to hold about `expected_blocks`. kNotFound for a name that is no built-in. [any]
Result<EvictionFactory> make_eviction_policy(std::string_view name, std::uint64_t expected_blocks);

}  // namespace pegaflow::engine
