// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/eviction_policy.hpp"

#include <fmt/format.h>

#include "engine/policy/lru.hpp"
#include "engine/policy/tiny_lfu.hpp"

namespace pegaflow::engine {

Result<EvictionFactory> make_eviction_policy(std::string_view name, std::uint64_t expected_blocks) {
    if (name == "lru") return EvictionFactory([] { return std::make_unique<Lru>(); });
    if (name == "tiny_lfu") {
        auto history = std::make_shared<TinyLfu::History>(expected_blocks);  // of all shards of the index
        return EvictionFactory([history] { return std::make_unique<TinyLfu>(history); });
    }
    return fail(Code::kNotFound, fmt::format("no eviction policy \"{}\" is built in; there are: lru, tiny_lfu", name));
}

}  // namespace pegaflow::engine
