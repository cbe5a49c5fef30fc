// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/tiny_lfu.hpp"

namespace pegaflow::engine {
namespace {

TEST(TinyLfu, PrefersWhatIsAskedForMoreOften) {
    TinyLfu policy(1000);
    for (int i = 0; i < 5; ++i) policy.record(42);
    policy.record(43);
    EXPECT_GE(policy.frequency(42), 5U);
    EXPECT_EQ(policy.frequency(43), 1U);
    EXPECT_TRUE(policy.admit(42, 43));
    EXPECT_FALSE(policy.admit(43, 42));
    EXPECT_FALSE(policy.admit(43, 43)) << "a tie keeps what is there";
}

TEST(TinyLfu, OldPopularityFades) {
    TinyLfu policy(1000);
    for (int i = 0; i < 15; ++i) policy.record(42);
    const std::uint32_t before = policy.frequency(42);
    for (std::uint64_t i = 0; i < 20000; ++i) policy.record(1'000'000 + i);
    EXPECT_LT(policy.frequency(42), before);
}

TEST(AdmissionPolicies, AreMadeByName) {
    EXPECT_TRUE(make_admission_policy("none", 10));
    EXPECT_TRUE((*make_admission_policy("none", 10))->admit(1, 2));
    EXPECT_NE(make_admission_policy("best", 10).error().message.find("tiny_lfu"), std::string::npos);
}

}  // namespace
}  // namespace pegaflow::engine
