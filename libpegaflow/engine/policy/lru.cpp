// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/lru.hpp"

#include <fmt/format.h>

namespace pegaflow::engine {

void Lru::insert(Block& block, std::uint64_t stamp) {
    block.stamp = stamp;
    block.newer = nullptr;
    block.older = newest_;
    (newest_ != nullptr ? newest_->newer : oldest_) = &block;
    newest_ = &block;
}

void Lru::touch(Block& block, std::uint64_t stamp) {
    if (newest_ == &block) {
        block.stamp = stamp;
        return;
    }
    remove(block);
    insert(block, stamp);
}

void Lru::remove(Block& block) {
    (block.newer != nullptr ? block.newer->older : newest_) = block.older;
    (block.older != nullptr ? block.older->newer : oldest_) = block.newer;
    block.newer = block.older = nullptr;
}

Block* Lru::victim(const std::function<bool(const Block&)>& evictable) {
    for (Block* block = oldest_; block != nullptr; block = block->newer) {
        if (evictable(*block)) return block;
    }
    return nullptr;
}

Result<std::function<std::unique_ptr<EvictionPolicy>()>> make_eviction_policy(std::string_view name) {
    if (name == "lru") return std::function<std::unique_ptr<EvictionPolicy>()>([] { return std::make_unique<Lru>(); });
    return fail(Code::kNotFound, fmt::format("no eviction policy \"{}\"; there is: lru", name));
}

}  // namespace pegaflow::engine
