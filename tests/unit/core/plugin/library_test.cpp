// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/library.hpp"

namespace pegaflow::core {
namespace {

TEST(Library, SaysWhyAFileCannotBeOpened) {
    auto missing = Library::open("/nowhere/at/all.so");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, Code::kUnsupported);
    EXPECT_THAT(missing.error().message, ::testing::HasSubstr("/nowhere/at/all.so"));
    auto text = Library::open(PEGA_TEST_MODULES "/cmake_install.cmake");
    ASSERT_FALSE(text);
    EXPECT_THAT(text.error().message, ::testing::HasSubstr("cannot open"));
}

TEST(Library, FindsItsOwnSymbolsAndNotThoseOfItsDependencies) {
    auto own = Library::open(PEGA_TEST_MODULES "/fake/pegaflow-backend-fake.so");
    ASSERT_TRUE(own) << own.error().message;
    EXPECT_NE(own->own_symbol("pegaflow_entry"), nullptr);
    EXPECT_EQ(own->own_symbol("calloc"), nullptr);
    EXPECT_EQ(own->own_symbol("no_such_symbol"), nullptr);
    auto borrowed = Library::open(PEGA_TEST_MODULES "/borrowed/pegaflow-backend-borrowed.so");
    ASSERT_TRUE(borrowed) << borrowed.error().message;
    EXPECT_NE(borrowed->own_symbol("fake_other_symbol"), nullptr);
    EXPECT_EQ(borrowed->own_symbol("pegaflow_entry"), nullptr);
}

TEST(Library, MovesWithItsHandle) {
    auto opened = Library::open(PEGA_TEST_MODULES "/fake/pegaflow-backend-fake.so");
    ASSERT_TRUE(opened);
    Library moved = std::move(*opened);
    EXPECT_NE(moved.own_symbol("pegaflow_entry"), nullptr);
    EXPECT_THAT(moved.path(), ::testing::EndsWith("fake.so"));
}

}  // namespace
}  // namespace pegaflow::core
