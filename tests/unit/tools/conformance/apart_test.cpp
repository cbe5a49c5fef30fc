// SPDX-License-Identifier: Apache-2.0
// The suite on modules that nobody should load: each is one failed check with the reason, never the end of the caller.
#include <cstdlib>
#include <filesystem>

#include "tools/conformance/conformance.hpp"

namespace pegaflow::conformance {
namespace {

using ::testing::HasSubstr;

std::string file_of(const std::string& module) {
    return PEGA_TEST_MODULES "/" + module + "/pegaflow-backend-" + module + ".so";
}

struct Refusal {
    const char* module;
    const char* check;
    std::vector<const char*> words;
};

class UnusableModule : public ::testing::TestWithParam<Refusal> {};

TEST_P(UnusableModule, IsOneFailedCheckByTheCoresWords) {
    Options options;
    options.path = file_of(GetParam().module);
    const std::vector<CheckResult> results = run(options);
    ASSERT_EQ(results.size(), 1U);
    EXPECT_EQ(results[0].name, GetParam().check);
    EXPECT_EQ(results[0].outcome, Outcome::kFailed);
    for (const char* word : GetParam().words) EXPECT_THAT(results[0].text, HasSubstr(word));
}

const Refusal kRefusals[] = {
    {"wrong_major", "entry", {"ABI 7.0"}},
    {"short_entry", "entry", {"16 bytes"}},
    {"no_version", "entry", {"\"version\""}},
    {"bad_name", "entry", {"\"Bad-Name\""}},
    {"no_symbol", "entry", {"pegaflow_entry"}},
    {"borrowed", "entry", {"pegaflow_entry", "itself"}},
    {"not_there", "entry", {"cannot open"}},
    {"no_table", "tables", {"pega.completion/1"}},
    {"short_table", "tables", {"pega.channel/1", "\"close\""}},
    {"no_member", "tables", {"pega.channel/1", "\"submit\""}},
};

INSTANTIATE_TEST_SUITE_P(Modules, UnusableModule, ::testing::ValuesIn(kRefusals),
                         [](const auto& each) { return std::string(each.param.module); });

TEST(Suite, ChecksWhatAnInterposerWrapsToo) {
    for (const char* module : {"short_table", "wrong_major"}) {
        Options options;
        options.path = file_of("fake");
        options.companions = {file_of(module)};
        const std::vector<CheckResult> results = run(options);
        ASSERT_EQ(results.size(), 1U) << module;
        EXPECT_EQ(results[0].outcome, Outcome::kFailed) << module;
        EXPECT_THAT(results[0].text, HasSubstr(module));
    }
}

// Two checks, of which the first writes and the second reads.
Options two_checks(const char* write) {
    Options options;
    options.path = file_of("fake");
    options.only = "flat_";
    options.options = {std::string("write=") + write};
    return options;
}

TEST(Apart, ReportsWhatTheSuiteFinds) {
    Options options = two_checks("well");
    std::vector<std::string> heard;
    options.on_result = [&](const CheckResult& result) { heard.push_back(result.name); };
    const std::vector<CheckResult> results = run_apart(options, std::chrono::seconds(60));
    ASSERT_EQ(results.size(), 2U);
    for (const CheckResult& result : results) EXPECT_EQ(result.outcome, Outcome::kPassed) << result.text;
    EXPECT_EQ(heard, (std::vector<std::string>{"flat_write", "flat_read"}));
}

TEST(Apart, AModuleThatIsRefusedIsOneFailedCheck) {
    Options options;
    options.path = file_of("no_member");
    const std::vector<CheckResult> results = run_apart(options, std::chrono::seconds(60));
    ASSERT_EQ(results.size(), 1U);
    EXPECT_EQ(results[0].name, "tables");
    EXPECT_THAT(results[0].text, HasSubstr("\"submit\""));
}

struct Ending {
    const char* how;
    std::chrono::seconds limit;
    const char* words;
};

class LostProcess : public ::testing::TestWithParam<Ending> {};

TEST_P(LostProcess, FailsTheCheckThatRanAndGoesOnWithTheNext) {
    const std::vector<CheckResult> results = run_apart(two_checks(GetParam().how), GetParam().limit);
    ASSERT_EQ(results.size(), 2U);
    EXPECT_EQ(results[0].name, "flat_write");
    EXPECT_EQ(results[0].outcome, Outcome::kFailed);
    EXPECT_THAT(results[0].text, HasSubstr(GetParam().words));
    EXPECT_EQ(results[1].name, "flat_read");
    EXPECT_EQ(results[1].outcome, Outcome::kPassed) << results[1].text;
}

INSTANTIATE_TEST_SUITE_P(Ways, LostProcess,
                         ::testing::Values(Ending{"abort", std::chrono::seconds(60), "killed by signal 6"},
                                           Ending{"exit", std::chrono::seconds(60), "ended the process with exit code 0"},
                                           Ending{"hang", std::chrono::seconds(3), "did not end within 3 s"}),
                         [](const auto& each) { return std::string(each.param.how); });

TEST(Apart, GivesUpAfterThreeHangs) {
    Options options = two_checks("hang");
    options.only = "";
    const std::vector<CheckResult> results = run_apart(options, std::chrono::seconds(3));
    std::size_t hung = 0;
    for (const CheckResult& result : results) hung += result.text.find("did not end") != std::string::npos ? 1U : 0U;
    EXPECT_EQ(hung, 3U);
    EXPECT_THAT(results.back().text, HasSubstr("not run"));
}

TEST(Apart, AFileWithoutASlashIsTheOneHere) {
    const std::filesystem::path before = std::filesystem::current_path();
    std::filesystem::current_path(PEGA_TEST_MODULES "/fake");
    Options options = two_checks("well");
    options.path = "pegaflow-backend-fake.so";
    const std::vector<CheckResult> results = run(options);
    std::filesystem::current_path(before);
    ASSERT_EQ(results.size(), 2U);
    EXPECT_EQ(results[0].outcome, Outcome::kPassed) << results[0].text;
}

}  // namespace
}  // namespace pegaflow::conformance
