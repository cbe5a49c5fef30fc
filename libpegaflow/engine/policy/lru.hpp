// SPDX-License-Identifier: Apache-2.0
// lru.hpp - evicts the block that was not used for the longest time.
#pragma once

#include "engine/policy/eviction_policy.hpp"

namespace pegaflow::engine {

class Lru final : public EvictionPolicy {
public:
    void insert(Block& block, std::uint64_t stamp) override;
    void touch(Block& block, std::uint64_t stamp) override;
    void remove(Block& block) override;
    Block* victim(const std::function<bool(const Block&)>& evictable) override;
    std::uint64_t oldest() const override { return oldest_ == nullptr ? UINT64_MAX : oldest_->stamp; }

private:
    Block* newest_ = nullptr;
    Block* oldest_ = nullptr;
};

}  // namespace pegaflow::engine
