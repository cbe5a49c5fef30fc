// SPDX-License-Identifier: Apache-2.0
#include "server/config.hpp"

namespace pegaflow::server {
namespace {

using namespace std::chrono_literals;

std::string problem(std::string_view text) {
    Config config;
    const auto parsed = parse_config(text, "test.toml", config);
    return parsed ? "" : parsed.error().message;
}

TEST(Config, ReadsEveryKindOfValue) {
    Config config;
    const auto parsed = parse_config(
        "[server]\nlisten = \"[::1]:7\"\n[pool]\nsize = \"2gb\"\nhugepages = true\n[cache]\nlease-time = \"90s\"\n"
        "[modules]\nbackends = [\"host\"]\nwrap = [\"fault=host\"]\n[module.fault]\nseed = 7\nhang = \"0.5\"\n",
        "test.toml", config);
    ASSERT_TRUE(parsed) << parsed.error().message;
    EXPECT_EQ(config.listen, "[::1]:7");
    EXPECT_EQ(config.engine.pool_bytes, std::uint64_t{2} << 30);
    EXPECT_TRUE(config.engine.hugepages);
    EXPECT_EQ(config.engine.lease_time, std::chrono::seconds(90));
    EXPECT_EQ(config.fabric.wrap[0].second, "host");
    EXPECT_EQ(config.fabric.options.at("fault").at("seed"), "7");
}

TEST(Config, RefusesWithFileLineAndExpectation) {
    EXPECT_EQ(problem("[pool]\n\nsise = \"1gb\"\n"), "test.toml:3: unknown key \"pool.sise\"; did you mean \"pool.size\"?");
    EXPECT_NE(problem("[pool]\nsize = \"many\"\n").find("test.toml:2: key \"pool.size\": bad size \"many\""),
              std::string::npos);
    EXPECT_NE(problem("[pool]\nhugepages = \"yes\"\n").find("wrong type, expected true or false"), std::string::npos);
    EXPECT_NE(problem("[server]\nlisten = \"nowhere\"\n").find("expected address:port"), std::string::npos);
    EXPECT_NE(problem("[cache]\nlease-time = \"0s\"\n").find("expected a duration"), std::string::npos);
    EXPECT_NE(problem("[log]\nlevel = \"loud\"\n").find("one of trace, debug, info, warning, error"), std::string::npos);
    EXPECT_NE(problem("[pool\n").find("test.toml:1:"), std::string::npos);
    Config config;
    EXPECT_EQ(read_config("/nowhere/x.toml", config).error().code, Code::kNotFound);
}

TEST(Config, WindowsAreDifferentWholeMinutes) {
    Config config;
    ASSERT_TRUE(set_option(config, "metrics.distinct-windows", "60m,90m,1d,120s"));
    const std::vector<std::chrono::nanoseconds> expected = {1h, 90min, 24h, 2min};
    EXPECT_EQ(config.engine.distinct_windows, expected);
    EXPECT_THAT(to_toml(config), ::testing::HasSubstr("distinct-windows = \"1h,90m,1d,2m\""));
    ASSERT_TRUE(set_option(config, "metrics.distinct-windows", ""));
    EXPECT_TRUE(config.engine.distinct_windows.empty());
    for (const char* wrong : {"1h,60m", "1h,", ",1h", "59s", "61s", "0m", "-1m", "32d", "1w", "h", "9999999999999999999d"})
        EXPECT_FALSE(set_option(config, "metrics.distinct-windows", wrong)) << wrong;
}

// Of a server's fabric with the host back end and the policy of the template.
std::string name_problem(std::string_view text, const std::vector<std::pair<std::string, std::string>>& flags = {}) {
    Config config;
    EXPECT_TRUE(parse_config(text, "test.toml", config));
    for (const auto& [key, value] : flags) EXPECT_TRUE(set_option(config, key, value));
    const auto fabric = Fabric::open({.backends = {"host"}});
    if (!fabric) return fabric.error().message;
    const auto checked = check_names(config, **fabric);
    return checked ? "" : checked.error().message;
}

TEST(Config, NamesOfPoliciesAndDevicesAreCheckedWhereTheyWereSet) {
    EXPECT_EQ(name_problem(""), "");
    EXPECT_EQ(name_problem("[cache]\neviction = \"lru\"\n[modules]\ndevices = [\"host:0\"]\n"), "");
    EXPECT_EQ(name_problem("[cache]\neviction = \"template_policy\"\n"), "");
    EXPECT_THAT(
        name_problem("[cache]\n\neviction = \"tinylfu\"\n"),
        ::testing::StartsWith("test.toml:3: key \"cache.eviction\": \"tinylfu\" is not there; there are: tiny_lfu, lru"));
    EXPECT_THAT(name_problem("[cache]\neviction = \"lru\"\n", {{"cache.eviction", "tinylfu"}}),
                ::testing::StartsWith("--cache-eviction: \"tinylfu\" is not there"));
    EXPECT_THAT(name_problem("[cache]\nadmission = \"tiny_lfu\"\n"),
                ::testing::AllOf(::testing::HasSubstr("test.toml:2: key \"cache.admission\""),
                                 ::testing::HasSubstr("it orders eviction: set cache.eviction to it")));
    EXPECT_THAT(name_problem("[modules]\ndevices = [\"host:0\", \"cuda:9\"]\n"),
                ::testing::HasSubstr("test.toml:2: key \"modules.devices\": \"cuda:9\" is not there; there are: host:0"));
}

TEST(Config, EveryOptionCanBeWrittenAndReadBack) {
    const Config defaults;
    Config config;
    for (const Option& option : options()) {
        EXPECT_EQ(option.flag().substr(0, 2), "--");
        EXPECT_FALSE(option.help.empty());
        if (option.get(defaults).empty()) continue;
        EXPECT_TRUE(set_option(config, option.key, option.get(defaults))) << option.key;
    }
    EXPECT_EQ(set_option(config, "pool.nothing", "1").error().code, Code::kInvalid);
}

TEST(Config, ADirectoryIsNoConfiguration) {
    Config config;
    const auto read = read_config("/", config);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, Code::kInvalid) << read.error().message;
}

}  // namespace
}  // namespace pegaflow::server
