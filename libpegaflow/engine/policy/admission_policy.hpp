// SPDX-License-Identifier: Apache-2.0
// admission_policy.hpp - whether a new block deserves to push an old one out.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "engine/policy/eviction_policy.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

// Called with the mutex of one shard of the index held, of any shard: must not call out. All functions are [any].
class AdmissionPolicy {
public:
    virtual ~AdmissionPolicy() = default;
    // False for a policy that admits everything: then it is not asked.
    virtual bool selective() const noexcept { return true; }
    // True when `candidate` should replace `victim`.
    virtual bool admit(const Block& candidate, const Block& victim, const PolicyTime& time) noexcept = 0;
};

// "none" gives a policy that admits everything. kNotFound for any other name. [any]
Result<std::unique_ptr<AdmissionPolicy>> make_admission_policy(std::string_view name);

}  // namespace pegaflow::engine
