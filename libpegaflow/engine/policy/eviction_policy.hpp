// SPDX-License-Identifier: Apache-2.0
// eviction_policy.hpp - which resident block goes first when memory is short.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "engine/block/block.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

// One policy object serves one shard of the index and is called with that shard's mutex held: it needs no lock of its own and
// must not call out. `stamp` grows with time and is comparable between shards. A block is tracked from insert to remove.
class EvictionPolicy {
public:
    virtual ~EvictionPolicy() = default;

    virtual void insert(Block& block, std::uint64_t stamp) = 0;
    virtual void touch(Block& block, std::uint64_t stamp) = 0;
    virtual void remove(Block& block) = 0;
    // The block that should go first among those for which `evictable` is true; null when there is none.
    virtual Block* victim(const std::function<bool(const Block&)>& evictable) = 0;
    // The stamp of the block that would go first; UINT64_MAX when the policy tracks none.
    virtual std::uint64_t oldest() const = 0;
};

// Makes one policy object a shard. kNotFound for a name that is no built-in. [any]
Result<std::function<std::unique_ptr<EvictionPolicy>()>> make_eviction_policy(std::string_view name);

}  // namespace pegaflow::engine
