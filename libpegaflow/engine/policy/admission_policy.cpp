// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/admission_policy.hpp"

#include <fmt/format.h>

namespace pegaflow::engine {
namespace {

class AdmitAll final : public AdmissionPolicy {
public:
    bool selective() const noexcept override { return false; }
    bool admit(const Block&, const Block&, const PolicyTime&) noexcept override { return true; }
};

}  // namespace

Result<std::unique_ptr<AdmissionPolicy>> make_admission_policy(std::string_view name) {
    if (name == "none") return std::unique_ptr<AdmissionPolicy>(std::make_unique<AdmitAll>());
    const char* advice = name == "tiny_lfu" ? "; tiny_lfu orders eviction: set the eviction policy to it" : "";
    return fail(Code::kNotFound, fmt::format("no admission policy \"{}\" is built in; there is: none{}", name, advice));
}

}  // namespace pegaflow::engine
