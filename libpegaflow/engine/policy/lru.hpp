// SPDX-License-Identifier: Apache-2.0
// lru.hpp - evicts the block that was not used for the longest time.
#pragma once

#include "engine/policy/eviction_policy.hpp"

namespace pegaflow::engine {

class Lru final : public EvictionPolicy {
public:
    std::uint64_t rank(Block& block, const PolicyTime&) override { return block.last_use.load(std::memory_order_relaxed); }
};

}  // namespace pegaflow::engine
