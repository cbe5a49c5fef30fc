// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/result.hpp"

namespace pegaflow {
namespace {

Result<std::unique_ptr<int>> make(int value) {
    if (value < 0) return fail(Code::kInvalid, "negative", 22);
    return std::make_unique<int>(value);
}

Result<int> twice(int value) {
    PEGA_ASSIGN(const std::unique_ptr<int> made, make(value));
    return *made * 2;
}

Result<void> check(int value) {
    PEGA_TRY(twice(value));
    return {};
}

TEST(Result, CarriesValuesThatOnlyMove) {
    auto made = make(4);
    ASSERT_TRUE(made);
    EXPECT_EQ(**made, 4);
    EXPECT_EQ(*twice(4), 8);
    EXPECT_TRUE(check(4));
    EXPECT_EQ(twice(4).value_or(1), 8);
}

TEST(Result, PassesErrorsUpUnchanged) {
    auto refused = check(-1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_EQ(refused.error().message, "negative");
    EXPECT_EQ(refused.error().native_code, 22);
    EXPECT_EQ(twice(-1).value_or(1), 1);
}

TEST(Code, EveryCodeHasAName) {
    for (std::int32_t code = -10; code <= -1; ++code) EXPECT_STRNE(to_string(static_cast<Code>(code)), "unknown") << code;
    for (std::int32_t code = -24; code <= -20; ++code) EXPECT_STRNE(to_string(static_cast<Code>(code)), "unknown") << code;
    EXPECT_STREQ(to_string(static_cast<Code>(-99)), "unknown");
}

}  // namespace
}  // namespace pegaflow
