// SPDX-License-Identifier: Apache-2.0
// plugin_policy.hpp - policies by name: one that is built in, or one that a loaded module decides (abi/policy.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "engine/policy/admission_policy.hpp"
#include "engine/policy/eviction_policy.hpp"

namespace pegaflow {
class Fabric;
}

namespace pegaflow::engine {

// What an index tells its policies of itself.
struct PolicyScale {
    std::uint64_t expected_blocks = 0;
    std::uint32_t parts = 1;  // objects, one a shard; the highest bits of a hash choose. A power of two
};

// The built-in of this name, else the module's. `fabric` outlives what is made. kNotFound, kUnsupported (the module has no
// such policy, or its table lacks a member), or what the module answered. [any]
Result<EvictionFactory> find_eviction_policy(Fabric& fabric, std::string_view name, const PolicyScale& scale);
Result<std::unique_ptr<AdmissionPolicy>> find_admission_policy(Fabric& fabric, std::string_view name, const PolicyScale& scale);

}  // namespace pegaflow::engine
