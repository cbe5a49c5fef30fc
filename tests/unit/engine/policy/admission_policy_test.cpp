// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/admission_policy.hpp"

namespace pegaflow::engine {
namespace {

TEST(AdmissionPolicies, AreMadeByName) {
    const auto none = make_admission_policy("none");
    ASSERT_TRUE(none);
    EXPECT_FALSE((*none)->selective());
    EXPECT_NE(make_admission_policy("best").error().message.find("there is: none"), std::string::npos);
    EXPECT_NE(make_admission_policy("tiny_lfu").error().message.find("set the eviction policy"), std::string::npos);
}

}  // namespace
}  // namespace pegaflow::engine
