// SPDX-License-Identifier: Apache-2.0
#include "server/config.hpp"

#include <fmt/format.h>

#include <tuple>

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
    EXPECT_EQ(problem("[pool]\nhugepages = \"yes\"\n"),
              "test.toml:2: key \"pool.hugepages\": found the string \"yes\", expected true or false, without quotes");
    EXPECT_NE(problem("[server]\nlisten = \"nowhere\"\n").find("expected address:port"), std::string::npos);
    EXPECT_NE(problem("[cache]\nlease-time = \"0s\"\n").find("expected a duration"), std::string::npos);
    EXPECT_NE(problem("[log]\nlevel = \"loud\"\n").find("one of trace, debug, info, warning, error"), std::string::npos);
    EXPECT_NE(problem("[pool\n").find("test.toml:1:"), std::string::npos);
    Config config;
    EXPECT_EQ(read_config("/nowhere/x.toml", config).error().code, Code::kNotFound);
}

// What is wrong with one value.
std::string value_problem(std::string_view section, std::string_view line) {
    return problem(fmt::format("[{}]\n\n{}\n", section, line));
}

TEST(Config, EveryOptionTakesItsOwnTypesOnly) {
    EXPECT_EQ(value_problem("pool", "file = 5"),
              "test.toml:3: key \"pool.file\": found the integer 5, expected a string such as \"/dev/shm/pegaflow\"");
    EXPECT_EQ(value_problem("cache", "eviction = [\"lru\"]"),
              "test.toml:3: key \"cache.eviction\": found an array of strings, expected a string such as \"tiny_lfu\"");
    EXPECT_EQ(value_problem("transfer", "max-queued = \"12\""),
              "test.toml:3: key \"transfer.max-queued\": found the string \"12\", expected an integer such as 1024");
    EXPECT_EQ(value_problem("ssd", "paths = \"/mnt\""),
              "test.toml:3: key \"ssd.paths\": found the string \"/mnt\", expected an array of strings such as "
              "[\"/mnt/nvme0/pegaflow\", \"/dev/nvme1n1\"]");
    EXPECT_EQ(value_problem("modules", "backends = [\"host\", 5]"),
              "test.toml:3: key \"modules.backends\": found an array with the integer 5, expected an array of strings such as "
              "[\"cuda\", \"host\"]");
    EXPECT_EQ(
        value_problem("pool", "size = 1.5"),
        "test.toml:3: key \"pool.size\": found the number 1.5, expected a string such as \"30 GiB\" or an integer of bytes");
    EXPECT_EQ(value_problem("pool", "size = {}"),
              "test.toml:3: key \"pool.size\": found a table, expected a string such as \"30 GiB\" or an integer of bytes");
    EXPECT_EQ(value_problem("cache", "lease-time = 600"),
              "test.toml:3: key \"cache.lease-time\": found the integer 600, expected a string such as \"10m\"");
    EXPECT_EQ(value_problem("log", "level = 2026-01-01"),
              "test.toml:3: key \"log.level\": found a date or a time, expected a string such as \"info\"");
    EXPECT_EQ(
        value_problem("module.fault", "hang = 0.5"),
        "test.toml:3: key \"module.fault.hang\": found the number 0.5, expected a string such as \"0.5\", an integer, true "
        "or false: the module gets it as text");
    Config config;
    ASSERT_TRUE(parse_config("[pool]\nsize = 8192\nslice = 0\n", "test.toml", config));
    EXPECT_EQ(config.engine.pool_bytes, 8192U);
    EXPECT_EQ(config.engine.pool_slice_bytes, 0U);
}

// No option of a wrong type is taken, whatever its kind.
TEST(Config, NoOptionTakesAnythingThatItIsNot) {
    for (const Option& option : options()) {
        const std::size_t dot = option.key.find('.');
        for (const char* value : {"1.5", "2026-01-01", "[1]", "[[\"a\"]]", "{a = 1}"}) {
            const std::string wrong =
                value_problem(option.key.substr(0, dot), fmt::format("{} = {}", option.key.substr(dot + 1), value));
            EXPECT_THAT(wrong, ::testing::StartsWith(fmt::format("test.toml:3: key \"{}\": found ", option.key)));
        }
    }
}

TEST(Config, UnknownSectionsAreRefusedEvenIfEmpty) {
    EXPECT_EQ(problem("[pool]\n[servr]\n"), "test.toml:2: unknown section [servr]; did you mean [server]?");
    EXPECT_EQ(problem("[modul.fault]\n"), "test.toml:1: unknown section [modul]; did you mean [module]?");
    EXPECT_EQ(problem("[something-else]\n"), "test.toml:1: unknown section [something-else]");
    EXPECT_EQ(problem("[server.listn]\n"), "test.toml:1: unknown key \"server.listn\"; did you mean \"server.listen\"?");
    EXPECT_EQ(problem("server = 5\n"), "test.toml:1: key \"server\": found the integer 5, expected a section [server]");
    EXPECT_THAT(problem("[[server]]\n"), ::testing::HasSubstr("found an array with a table, expected a section [server]"));
    EXPECT_THAT(problem("[module]\nfault = 1\n"), ::testing::HasSubstr("options of modules are in a section [module.NAME]"));
    EXPECT_EQ(problem("[server]\n[module]\n[module.fault]\n"), "");
}

TEST(Config, DurationsAndSizesHaveEnds) {
    for (const char* wrong : {"3000000h", "1000001h", "9223372036854775807ms", "99999999999999999999h", "-5s", "0ms", "5", "s"})
        EXPECT_EQ(
            value_problem("server", fmt::format("drain-timeout = \"{}\"", wrong)),
            fmt::format("test.toml:3: key \"server.drain-timeout\": \"{}\" is not valid, expected a duration such as 500ms, "
                        "30s, 15m or 1h, from 1ms to 1000000h",
                        wrong));
    EXPECT_THAT(value_problem("pool", "size = \"99999999tb\""), ::testing::HasSubstr("bad size \"99999999tb\": too large"));
    EXPECT_THAT(value_problem("pool", "size = \"9999999tb\""), ::testing::HasSubstr("expected at most 1 EiB"));
    EXPECT_THAT(value_problem("pool", "size = -4096"), ::testing::HasSubstr("bad size \"-4096\": negative"));
    EXPECT_THAT(value_problem("pool", "size = 4095"), ::testing::HasSubstr("expected a size of at least 4 KiB"));
    EXPECT_THAT(value_problem("transfer", "max-queued = -1"), ::testing::HasSubstr("expected an integer from 1 to 1048576"));
    Config config;
    ASSERT_TRUE(set_option(config, "server.drain-timeout", "1000000h"));
    EXPECT_EQ(config.drain_timeout, 1'000'000h);
}

TEST(Config, LeasesHaveBounds) {
    Config config;
    ASSERT_TRUE(parse_config("[cache]\nmax-lease-time = \"2h\"\nmax-leases = 100\n", "test.toml", config));
    EXPECT_EQ(config.engine.max_lease_time, 2h);
    EXPECT_EQ(config.engine.max_leases_per_instance, 100U);
    EXPECT_THAT(value_problem("cache", "max-leases = 0"), ::testing::HasSubstr("expected an integer from 1 to 16777216"));
    EXPECT_THAT(value_problem("cache", "max-lease-time = \"0s\""), ::testing::HasSubstr("expected a duration"));
}

TEST(Config, APathMayHaveAComma) {
    Config config;
    ASSERT_TRUE(parse_config("[ssd]\npaths = [\"/mnt/a,b\", \"/mnt/c\"]\n", "test.toml", config));
    EXPECT_THAT(config.engine.tier.paths, ::testing::ElementsAre("/mnt/a,b", "/mnt/c"));
    EXPECT_THAT(value_problem("ssd", "paths = [\"/mnt/a\", \"\"]"),
                ::testing::HasSubstr("expected a list without empty entries"));
    ASSERT_TRUE(set_option(config, "ssd.paths", "/mnt/a,/mnt/b"));
    EXPECT_THAT(config.engine.tier.paths, ::testing::ElementsAre("/mnt/a", "/mnt/b"));
    ASSERT_TRUE(set_option(config, "ssd.paths", ""));
    EXPECT_TRUE(config.engine.tier.paths.empty());
    for (const char* wrong : {",", "/a,", ",/a", "/a,,/b"}) EXPECT_FALSE(set_option(config, "ssd.paths", wrong)) << wrong;
}

// Everything that a file can set, for comparison.
auto members(const Config& c) {
    const EngineOptions& e = c.engine;
    const TierOptions& t = e.tier;
    return std::make_tuple(
        std::tie(c.listen, c.admin_listen, c.metrics, c.drain_timeout, c.log_level),
        std::tie(c.fabric.search_path, c.fabric.backends, c.fabric.wrap, c.fabric.options),
        std::tie(e.pool_bytes, e.pool_slice_bytes, e.block_bytes_hint, e.hugepages, e.pool_file, e.numa_affinity,
                 e.eviction_policy, e.admission_policy, e.lease_time, e.max_lease_time, e.max_leases_per_instance,
                 e.incomplete_block_time, e.max_queued_transfers, e.digests, e.verify_on_load, e.devices, e.distinct_windows),
        std::tie(t.paths, t.capacity_bytes, t.backend, t.segment_bytes, t.write_bytes_per_day, t.write_queue_bytes,
                 t.prefetch_bytes, t.max_prefetch_requests, t.read_bytes_in_flight, t.prefetch_time, t.idle_time, t.io_time,
                 t.threads, t.discard, t.prefill_tokens_per_second, t.tokens_per_block));
}

TEST(Config, WhatIsPrintedReadsAsTheSame) {
    const char* const files[] = {
        "",
        "[pool]\nsize = 4097\nslice = \"1.0009765625 KiB\"\nblock-size-hint = \"1000003\"\nfile = "
        "\"\\\"C:\\\\x\\\"\\t\\u0001é\"\n",
        "[pool]\nsize = \"123456789012345\"\n[ssd]\ncapacity = \"1048576tb\"\nwrite-queue = \"1.5gb\"\nbytes-per-day = "
        "1152921504606846975\nprefetch = 1\n",
        "[server]\ndrain-timeout = \"61s\"\n[cache]\nlease-time = \"1000000h\"\nmax-lease-time = \"90m\"\nmax-leases = "
        "3\nincomplete-block-time = \"3600001ms\"\n",
        "[metrics]\ndistinct-windows = []\n[admin]\nmetrics = false\n[transfer]\nmax-queued = 7\n",
        "[ssd]\npaths = [\"/a,b\", \"/c d\", \"/e\\\"f\", \"/g#h\"]\ndiscard = \"all\"\nmax-prefetches = "
        "9\nprefill-tokens-per-second = "
        "123456789\n",
        "[modules]\nbackends = [\"host\"]\nwrap = [\"fault=host\", \"trace=fault\"]\ndevices = [\"host:0\"]\n[module.fault]\n"
        "seed = 7\nhang = \"0.5\"\nquiet = true\n[module.fault.deep]\nkey = \"x\"\n[module.\"my.policy\"]\n\"a key\" = "
        "\"\\n\"\n",
    };
    for (const char* file : files) {
        Config config, again;
        const auto parsed = parse_config(file, "test.toml", config);
        ASSERT_TRUE(parsed) << parsed.error().message;
        const std::string text = to_toml(config);
        const auto reread = parse_config(text, "printed.toml", again);
        ASSERT_TRUE(reread) << reread.error().message << "\n" << text;
        EXPECT_EQ(members(config), members(again)) << text;
        EXPECT_EQ(to_toml(again), text);
    }
}

TEST(Config, WhatIsPrintedHasTheTypesOfAFile) {
    Config config;
    ASSERT_TRUE(parse_config("[module.fault]\nseed = 7\n", "test.toml", config));
    const std::string text = to_toml(config);
    for (const char* line :
         {"size = \"30 GiB\"\n", "metrics = true\n", "max-queued = 1024\n", "drain-timeout = \"30s\"\n",
          "distinct-windows = [\"15m\", \"1h\", \"1d\"]\n", "paths = []\n", "[module.fault]\nseed = \"7\"\n"})
        EXPECT_THAT(text, ::testing::HasSubstr(line));
}

TEST(Config, TheExamplesCanBeRead) {
    Config config;
    const auto read = read_config(PEGAFLOW_EXAMPLES "/quickstart.toml", config);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(config.engine.pool_bytes, std::uint64_t{512} << 20);
    Config host;
    const auto also = read_config(PEGAFLOW_EXAMPLES "/gpu-host.toml", host);
    ASSERT_TRUE(also) << also.error().message;
    EXPECT_EQ(host.engine.tier.paths.size(), 2U);
    EXPECT_EQ(host.engine.tier.prefill_tokens_per_second, 20000U);
}

TEST(Config, WindowsAreDifferentWholeMinutes) {
    Config config;
    ASSERT_TRUE(set_option(config, "metrics.distinct-windows", "60m,90m,1d,120s"));
    const std::vector<std::chrono::nanoseconds> expected = {1h, 90min, 24h, 2min};
    EXPECT_EQ(config.engine.distinct_windows, expected);
    EXPECT_THAT(to_toml(config), ::testing::HasSubstr("distinct-windows = [\"1h\", \"90m\", \"1d\", \"2m\"]"));
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
        EXPECT_TRUE(option.set(config, option.get(defaults))) << option.key;
        EXPECT_TRUE(option.set(config, option.example)) << option.key;
        EXPECT_EQ(option.get(config), option.example) << option.key;
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
