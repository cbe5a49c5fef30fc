// SPDX-License-Identifier: Apache-2.0
// Each rule that the suite checks, on a back end that breaks this one alone (liar.cpp).
#include "tools/conformance/conformance.hpp"

namespace pegaflow::conformance {
namespace {

struct Lie {
    const char* lie;
    const char* check;  // that must fail
    const char* words;  // with these
};

Options options_of(const char* lie) {
    Options options;
    options.path = PEGA_LIAR;
    options.options = {std::string("lie=") + lie};
    return options;
}

class BrokenRule : public ::testing::TestWithParam<Lie> {};

TEST_P(BrokenRule, IsFoundOut) {
    Options options = options_of(GetParam().lie);
    options.only = GetParam().check;
    const std::vector<CheckResult> results = run(options);
    ASSERT_EQ(results.size(), 1U);
    EXPECT_EQ(results[0].outcome, Outcome::kFailed) << results[0].text;
    EXPECT_THAT(results[0].text, ::testing::HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(Lies, BrokenRule,
                         ::testing::Values(Lie{"marks", "marks_follow_the_bytes", "the bytes of span 0 are not there"},
                                           Lie{"full", "queue_full_starts_nothing", "remote, after a refused batch"},
                                           Lie{"busy", "queue_full_starts_nothing", "64 batches were accepted on a queue of 1"},
                                           Lie{"unregister", "regions_in_use_stay", "a region was unregistered under a batch"},
                                           Lie{"late", "nothing_after_the_end", "a write after the end"},
                                           Lie{"claims", "claims_are_kept", "no table pega.ext.cancel/1"},
                                           Lie{"zero", "flat_write", "bytes reported"}),
                         [](const auto& each) { return std::string(each.param.lie); });

TEST(Liar, PassesWhenItIsHonest) {
    std::size_t passed = 0;
    for (const CheckResult& result : run(options_of("none"))) {
        EXPECT_NE(result.outcome, Outcome::kFailed) << result.name << ": " << result.text;
        passed += result.outcome == Outcome::kPassed ? 1 : 0;
    }
    EXPECT_GE(passed, 20U);
}

TEST(Liar, EndingBatchesWithoutAPollIsNoLie) {
    std::vector<std::string> passed_over;
    for (const CheckResult& result : run(options_of("eager"))) {
        EXPECT_NE(result.outcome, Outcome::kFailed) << result.name << ": " << result.text;
        if (result.text.find("ends batches that nobody polls") != std::string::npos) passed_over.push_back(result.name);
    }
    EXPECT_EQ(passed_over, (std::vector<std::string>{"queue_full_starts_nothing", "regions_in_use_stay"}));
}

}  // namespace
}  // namespace pegaflow::conformance
