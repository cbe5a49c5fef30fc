// SPDX-License-Identifier: Apache-2.0
// admission_policy.hpp - whether a new block deserves to push an old one out.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "pegaflow/result.hpp"

namespace pegaflow::engine {

// Blocks are named by their table hash. All functions are [any].
class AdmissionPolicy {
public:
    virtual ~AdmissionPolicy() = default;
    // The block was asked for or saved.
    virtual void record(std::uint64_t hash) noexcept = 0;
    // True when `candidate` should replace `victim`.
    virtual bool admit(std::uint64_t candidate, std::uint64_t victim) noexcept = 0;
};

// "none" gives a policy that admits everything; "tiny_lfu" one sized for `expected_blocks`. kNotFound for any other name. [any]
Result<std::unique_ptr<AdmissionPolicy>> make_admission_policy(std::string_view name, std::uint64_t expected_blocks);

}  // namespace pegaflow::engine
