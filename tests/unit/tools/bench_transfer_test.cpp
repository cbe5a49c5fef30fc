// SPDX-License-Identifier: Apache-2.0
// `pegaflow bench d2h` and `h2d` as programs, over host memory: reports, what options change, and each way to end.
#include <utility>
#include <vector>

#include "tests/unit/tools/program.hpp"

namespace pegaflow {
namespace {

namespace json = boost::json;

// Nothing here is about speed. What a test asks for itself stands instead.
constexpr std::pair<const char*, const char*> kSmall[] = {{"-d", "host:0"},      {"--total", "256K"}, {"--peak-bytes", "1M"},
                                                          {"-n", "2"},           {"-w", "1"},         {"--repetitions", "5"},
                                                          {"--outstanding", "2"}};

class BenchTransferTest : public testing::ProgramTest, public ::testing::WithParamInterface<const char*> {
protected:
    testing::Ended bench(const std::string& arguments) {
        std::string line = fmt::format("bench {} {}", GetParam(), arguments);
        for (const auto& [name, value] : kSmall) {
            if (line.find(fmt::format(" {} ", name)) == std::string::npos) line += fmt::format(" {} {}", name, value);
        }
        return run(line);
    }
    // The results of a run that ended well.
    json::array results(const std::string& arguments) {
        const testing::Ended ended = bench(arguments + " --json");
        EXPECT_EQ(ended.exit, 0) << ended.err;
        if (ended.exit != 0) return {};
        return ended.json().at("results").as_array();
    }
    std::uint64_t number(const json::value& row, const char* name) { return row.at(name).to_number<std::uint64_t>(); }
};

TEST_P(BenchTransferTest, AReportHasItsHeadAndVerifiedResults) {
    const testing::Ended ended = bench("-s 4K,64K --json");
    ASSERT_EQ(ended.exit, 0) << ended.err;
    const json::value report = ended.json();
    testing::expect_head(report, GetParam());
    EXPECT_GT(report.at("peak").at("measured_bytes_per_s").to_number<double>(), 0);
    const json::array& rows = report.at("results").as_array();
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(number(rows[0], "fragment_bytes"), 4096U);
    EXPECT_EQ(number(rows[1], "fragment_bytes"), 65536U);
    for (const json::value& row : rows) {
        EXPECT_EQ(row.at("path").as_string(), GetParam());
        EXPECT_TRUE(row.at("verified").as_bool());
        EXPECT_EQ(number(row, "wrong_bytes"), 0U);
        EXPECT_EQ(row.at("bytes_per_s").at("samples").as_array().size(), 5U);
        EXPECT_EQ(row.at("samples_us").as_array().size(), 10U);  // iterations x repetitions
        EXPECT_GT(row.at("time_us").at("p50").to_number<double>(), 0);
        EXPECT_GE(row.at("time_us").at("max").to_number<double>(), row.at("time_us").at("p90").to_number<double>());
        EXPECT_TRUE(row.at("time_us").at("p99").is_null());  // ten samples do not tell it
        EXPECT_TRUE(row.at("time_us").at("p999").is_null());
        EXPECT_GT(row.at("ops_per_s").to_number<double>(), 0);
    }
}

TEST_P(BenchTransferTest, AThousandSamplesTellAP99) {
    const json::array rows = results("-s 64K -n 250 --total 64K");
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_TRUE(rows[0].at("time_us").at("p99").is_double());
    EXPECT_TRUE(rows[0].at("time_us").at("p999").is_null());
}

TEST_P(BenchTransferTest, RangesDouble) {
    std::vector<std::uint64_t> sizes;
    for (const json::value& row : results("-s 8K..64K,2K")) sizes.push_back(number(row, "block_bytes"));
    EXPECT_EQ(sizes, (std::vector<std::uint64_t>{8192, 16384, 32768, 65536, 2048}));
    EXPECT_EQ(bench("-s 64K..8K").exit, 1);
}

TEST_P(BenchTransferTest, AllSizesAreTheRange) {
    const json::array rows = results("-a --total 1M --outstanding 1 --repetitions 1");
    ASSERT_EQ(rows.size(), 10U);
    EXPECT_EQ(number(rows[0], "block_bytes"), 2048U);
    EXPECT_EQ(number(rows[9], "block_bytes"), 1U << 20);
}

TEST_P(BenchTransferTest, LayoutsThreadsAndBatchesMoveTheRightBytes) {
    for (const char* layout : {"contiguous", "strided", "random", "both-random"}) {
        const json::array rows = results(fmt::format("-s 4K --layout {} --threads 2 --batch 7", layout));
        ASSERT_EQ(rows.size(), 1U) << layout;
        EXPECT_TRUE(rows[0].at("verified").as_bool()) << layout;
        EXPECT_EQ(number(rows[0], "wrong_bytes"), 0U) << layout;
        EXPECT_EQ(rows[0].at("layout").as_string(), layout);
        EXPECT_EQ(number(rows[0], "threads"), 2U);
        EXPECT_EQ(number(rows[0], "batch_blocks"), 7U);
    }
}

TEST_P(BenchTransferTest, AModelOfOnesOwnLiesInLayersOrPages) {
    for (const char* device : {"layer-first", "page-first"}) {
        for (const char* host : {"layer-first", "page-first"}) {
            const json::array rows =
                results(fmt::format("--layers 3 --kv-heads 2 --head-dim 16 --tokens-per-block 8 --dtype fp8 --gpu-layout {} "
                                    "--host-layout {}",
                                    device, host));
            ASSERT_EQ(rows.size(), 1U);
            EXPECT_EQ(number(rows[0], "fragment_bytes"), 8U * 2 * 16);
            EXPECT_EQ(number(rows[0], "block_bytes"), 3U * 2 * 8 * 2 * 16);
            EXPECT_EQ(number(rows[0], "wrong_bytes"), 0U);
            EXPECT_EQ(rows[0].at("device_layout").as_string(), device);
            EXPECT_EQ(rows[0].at("host_layout").as_string(), host);
        }
    }
}

TEST_P(BenchTransferTest, FragmentsDivideABlock) {
    const json::array rows = results("-s 64K --fragment 4K");
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(number(rows[0], "block_bytes"), 65536U);
    EXPECT_EQ(number(rows[0], "fragment_bytes"), 4096U);
    EXPECT_EQ(number(rows[0], "fragments"), 64U);  // 256K
    EXPECT_EQ(number(rows[0], "wrong_bytes"), 0U);
    EXPECT_EQ(bench("-s 64K --fragment 24K").exit, 1);
}

TEST_P(BenchTransferTest, ADurationStandsForACount) {
    const testing::Ended ended =
        run(fmt::format("bench {} -d host:0 --total 64K --peak-bytes 1M -s 4K -D 0.01 --repetitions 2 --json", GetParam()));
    ASSERT_EQ(ended.exit, 0) << ended.err;
    const json::value row = ended.json().at("results").as_array().at(0);
    EXPECT_TRUE(row.at("iters").is_null());
    EXPECT_DOUBLE_EQ(row.at("seconds").to_number<double>(), 0.01);
    EXPECT_FALSE(row.at("samples_us").as_array().empty());
    EXPECT_EQ(bench("-D 1").exit, 1);  // with -n
}

TEST_P(BenchTransferTest, AVeryShortDurationStillMovesEverything) {
    const testing::Ended ended = run(
        fmt::format("bench {} -d host:0 --total 1M --peak-bytes 1M -s 4K -D 0.001 -w 0 --outstanding 16 --repetitions 1 --json",
                    GetParam()));
    ASSERT_EQ(ended.exit, 0) << ended.err;
    EXPECT_TRUE(ended.json().at("results").as_array().at(0).at("verified").as_bool());
}

TEST_P(BenchTransferTest, FilesAreWrittenBesideATableOrQuietly) {
    testing::Ended ended = bench("-s 4K --json=report.json --csv=report.csv");
    ASSERT_EQ(ended.exit, 0) << ended.err;
    EXPECT_TRUE(ended.out.starts_with(fmt::format("# pegaflow bench {}", GetParam()))) << ended.out;
    EXPECT_EQ(json::parse(text("report.json")).at("results").as_array().size(), 1U);
    EXPECT_TRUE(text("report.csv").starts_with("path,backend,fragment_bytes,")) << text("report.csv");
    ended = bench("-s 4K --quiet --csv=again.csv");
    EXPECT_EQ(ended.exit, 0) << ended.err;
    EXPECT_EQ(ended.out, "");
    EXPECT_NE(text("again.csv"), "");
    EXPECT_EQ(bench("-s 4K --json --csv").exit, 1);
    EXPECT_EQ(bench("-s 4K --json=nowhere/report.json").exit, 1);
}

TEST_P(BenchTransferTest, AListNamesDevicesWaysAndModels) {
    const testing::Ended ended = bench("--list");
    EXPECT_EQ(ended.exit, 0) << ended.err;
    for (const char* part : {"device   host:0", "backend  auto", "preset   llama-3.1-8b"})
        EXPECT_NE(ended.out.find(part), std::string::npos) << part << "\n" << ended.out;
}

TEST_P(BenchTransferTest, WhatMakesNoSenseIsRefused) {
    for (const char* arguments : {"-d nowhere:7", "-s 3", "-s 1M", "--backend staged", "--preset nothing", "--layers 3",
                                  "--layout curved", "--threshold 3", "--threads 2 --bidir", "--numa north", "--numa 9999",
                                  "--preset qwen3-8b --fragment 4K", "--compare nowhere.json"}) {
        const testing::Ended ended = bench(arguments);
        EXPECT_EQ(ended.exit, 1) << arguments;
        EXPECT_NE(ended.err, "") << arguments;
    }
}

// Few machines have set some aside.
TEST_P(BenchTransferTest, HugePagesAreTakenOrTheReasonIsSaid) {
    const testing::Ended ended = bench("-s 4K --hugepages 2M --json");
    if (ended.exit == 0) {
        EXPECT_EQ(ended.json().at("env").at("hugepages").as_string(), "2M");
    } else {
        EXPECT_EQ(ended.exit, 1);
        EXPECT_NE(ended.err.find("huge pages"), std::string::npos) << ended.err;
    }
    const testing::Ended off = bench("-s 4K --hugepages off --numa off --json");
    ASSERT_EQ(off.exit, 0) << off.err;
    EXPECT_EQ(off.json().at("env").at("hugepages").as_string(), "off");
}

TEST_P(BenchTransferTest, WrongBytesEndWithTwo) {
    const testing::Ended ended = bench("-s 4K --wrap fault=host --option fault.corrupt=1 --json");
    EXPECT_EQ(ended.exit, 2) << ended.err;
    const json::value row = ended.json().at("results").as_array().at(0);
    EXPECT_TRUE(row.at("verified").as_bool());
    EXPECT_GT(number(row, "wrong_bytes"), 0U);
}

TEST_P(BenchTransferTest, AFailedTransferEndsWithOne) {
    const testing::Ended ended = bench("-s 4K --wrap fault=host --option fault.fail=1 --json");
    EXPECT_EQ(ended.exit, 1);
    EXPECT_EQ(ended.out, "");
}

TEST_P(BenchTransferTest, BelowTheRatioEndsWithThree) { EXPECT_EQ(bench("-s 4K --min-ratio 100000").exit, 3); }

// The same results, but as if they had been a thousand times as fast.
TEST_P(BenchTransferTest, AnOlderFasterResultEndsWithFour) {
    testing::Ended ended = bench("-s 4K --json");
    ASSERT_EQ(ended.exit, 0) << ended.err;
    json::value report = ended.json();
    json::object& row = report.at("results").as_array().at(0).as_object();
    for (json::value& sample : row.at("bytes_per_s").at("samples").as_array()) sample = 1000 * sample.to_number<double>();
    // Older results have fewer members.
    for (const char* member : {"device_layout", "host_layout", "threads", "batch_blocks", "time_us", "samples_us"})
        row.erase(member);
    write("old.json", json::serialize(report));
    ended = bench("-s 4K --compare old.json");
    EXPECT_EQ(ended.exit, 4) << ended.err;
    EXPECT_NE(ended.err.find("SLOWER"), std::string::npos) << ended.err;
    EXPECT_EQ(bench("-s 4K --compare old.json --threshold 100").exit, 0);
    EXPECT_EQ(bench("-s 8K --compare old.json").exit, 1);  // it has no such point
}

TEST_P(BenchTransferTest, BothDirectionsRunAtOnce) {
    const json::array rows = results("-s 4K --bidir --seconds 0.05");
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].at("together").at("copies_bytes_per_s").as_array().size(), 2U);
}

INSTANTIATE_TEST_SUITE_P(Directions, BenchTransferTest, ::testing::Values("d2h", "h2d"),
                         [](const auto& direction) { return std::string(direction.param); });

}  // namespace
}  // namespace pegaflow
