// SPDX-License-Identifier: Apache-2.0
// `pegaflow plugins --check`: what it prints, and how it ends.
#include <sstream>

#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using ::testing::HasSubstr;

constexpr const char* kFake = PEGA_TEST_MODULES "/fake/pegaflow-backend-fake.so";

struct Ended {
    int exit = 0;
    std::string out, err;
};

Ended check(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    arguments.insert(arguments.begin(), {"plugins", "--check"});
    Ended ended;
    ended.exit = run(arguments, out, err);
    ended.out = out.str();
    ended.err = err.str();
    return ended;
}

TEST(PluginsCheck, PassesWhatPasses) {
    for (const char* limit : {"60", "0"}) {
        const Ended ended = check({kFake, "--only", "flat_", "--time-limit", limit});
        EXPECT_EQ(ended.exit, kOk) << ended.out << ended.err;
        EXPECT_THAT(ended.out, HasSubstr("ok       flat_write\n"));
        EXPECT_THAT(ended.out, HasSubstr("2 passed, 0 failed, 0 skipped"));
    }
}

TEST(PluginsCheck, ACrashIsAFailedCheck) {
    const Ended ended = check({kFake, "--only", "flat_", "--option", "write=abort"});
    EXPECT_EQ(ended.exit, kVerifyFailed);
    EXPECT_THAT(ended.out, HasSubstr("FAILED   flat_write: it was killed by signal 6"));
    EXPECT_THAT(ended.out, HasSubstr("1 passed, 1 failed, 0 skipped"));
}

TEST(PluginsCheck, AModuleThatCannotBeUsedIsAFailedCheck) {
    const Ended ended = check({PEGA_TEST_MODULES "/no_member/pegaflow-backend-no_member.so"});
    EXPECT_EQ(ended.exit, kVerifyFailed);
    EXPECT_THAT(ended.out, HasSubstr("FAILED   tables: "));
}

TEST(PluginsCheck, NothingCheckedIsNoSuccess) {
    const Ended ended = check({kFake, "--only", "flat_", "--option", "refuse=no such thing here"});
    EXPECT_EQ(ended.exit, kNothingChecked);
    EXPECT_THAT(ended.out, HasSubstr("0 passed, 0 failed, 2 skipped"));
    EXPECT_THAT(ended.err, HasSubstr("nothing was checked: the back end finds no device here: no such thing here"));
}

TEST(PluginsCheck, ANameThatNoCheckHasIsWrongUsage) {
    const Ended ended = check({kFake, "--only", "no check is called so"});
    EXPECT_EQ(ended.exit, kUsage);
    EXPECT_THAT(ended.err, HasSubstr("no check is called so"));
}

}  // namespace
}  // namespace pegaflow::cli
