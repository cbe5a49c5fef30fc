// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/registry.hpp"

#include "pegaflow/transfer.hpp"

namespace pegaflow::core {
namespace {

const std::vector<std::string> kPath = {PEGA_TEST_MODULES "/fake", PEGA_TEST_MODULES "/as_plugin",
                                        PEGA_TEST_MODULES "/wrong_major"};

TEST(Registry, FindsModulesOfEveryKindOnce) {
    Registry registry(kPath);
    auto backend = registry.find("fake");
    auto plugin = registry.find("decider");
    ASSERT_TRUE(backend && plugin);
    EXPECT_STREQ((*plugin)->name, "decider");
    EXPECT_EQ(*registry.find("fake"), *backend);
    EXPECT_EQ(*registry.load(registry.path_of("fake")), *backend);
    EXPECT_EQ(registry.find("nobody").error().code, Code::kNotFound);
    EXPECT_EQ(registry.find("wrong_major").error().code, Code::kUnsupported);
    EXPECT_EQ(registry.path_of("nobody"), "");
}

TEST(Registry, TheHostOffersAClockAndOtherModules) {
    Registry registry(kPath);
    const pega_host* host = registry.host();
    ASSERT_EQ(host->size, sizeof(pega_host));
    const auto before = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    const std::uint64_t now = host->now_ns(host->context);
    EXPECT_GE(now, before);
    EXPECT_LT(now - before, 10'000'000'000U);
    EXPECT_EQ(host->extension(host->context, "pega.host.nothing/1"), nullptr);
    const auto* modules = static_cast<const pega_host_modules*>(host->extension(host->context, PEGA_HOST_MODULES));
    ASSERT_NE(modules, nullptr);
    EXPECT_EQ(modules->find(host->context, "fake"), *registry.find("fake"));
    EXPECT_EQ(modules->find(host->context, "nobody"), nullptr);
}

TEST(Registry, GivesInterposersOnlyBackEndsThatAreWhole) {
    Registry registry(std::vector<std::string>{PEGA_TEST_MODULES "/fake", PEGA_TEST_MODULES "/short_table",
                                               PEGA_TEST_MODULES "/no_member", PEGA_TEST_MODULES "/no_table"});
    const pega_host* host = registry.host();
    const auto* modules = static_cast<const pega_host_modules*>(host->extension(host->context, PEGA_HOST_MODULES));
    ASSERT_NE(modules, nullptr);
    for (const char* broken : {"short_table", "no_member", "no_table"}) {
        EXPECT_TRUE(registry.find(broken)) << "the entry itself is sound";
        ::testing::internal::CaptureStderr();
        EXPECT_EQ(modules->find(host->context, broken), nullptr) << broken;
        EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr(broken));
    }
    EXPECT_NE(modules->find(host->context, "fake"), nullptr);
}

TEST(Registry, WritesAModulesLinesToTheLog) {
    Registry registry(kPath);
    const pega_host* host = registry.host();
    ::testing::internal::CaptureStderr();
    host->log(host->context, PEGA_LOG_ERROR, "fake", "the words of a module");
    host->log(host->context, 999, "fake", "a level that does not exist");
    const std::string text = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(text, ::testing::HasSubstr("the words of a module"));
    EXPECT_THAT(text, ::testing::HasSubstr("a level that does not exist"));
}

TEST(Registry, AFabricGivesPoliciesTheirModule) {
    auto fabric = Fabric::open({.search_path = {PEGA_TEST_MODULES "/as_plugin"}, .backends = {"host"}});
    ASSERT_TRUE(fabric) << fabric.error().message;
    auto entry = (*fabric)->module("decider");
    ASSERT_TRUE(entry) << entry.error().message;
    EXPECT_STREQ((*entry)->name, "decider");
}

}  // namespace
}  // namespace pegaflow::core
