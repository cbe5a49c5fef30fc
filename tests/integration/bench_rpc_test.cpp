// SPDX-License-Identifier: Apache-2.0
// `pegaflow bench rpc` as a program: it starts a server and calls it.
#include "tests/unit/tools/program.hpp"

namespace pegaflow::integration {
namespace {

class BenchRpcTest : public testing::ProgramTest {};

TEST_F(BenchRpcTest, AQueryIsMeasuredBesideAnEmptyCall) {
    const testing::Ended ended = run("bench rpc --hashes 10 -n 20 --json");
    ASSERT_EQ(ended.exit, 0) << ended.err;
    const boost::json::value report = ended.json();
    testing::expect_head(report, "rpc");
    EXPECT_EQ(report.at("hashes").to_number<int>(), 10);
    EXPECT_EQ(report.at("iterations").to_number<int>(), 20);
    for (const char* call : {"empty_us", "query_us"}) {
        const auto& times = report.at(call);
        EXPECT_GT(times.at("p50").to_number<double>(), 0);
        EXPECT_LE(times.at("min").to_number<double>(), times.at("p50").to_number<double>());
        EXPECT_LE(times.at("p50").to_number<double>(), times.at("max").to_number<double>());
        EXPECT_TRUE(times.at("p99").is_null());  // twenty samples do not tell it
    }
    const double empty = report.at("empty_us").at("p50").to_number<double>();
    const double query = report.at("query_us").at("p50").to_number<double>();
    EXPECT_NEAR(report.at("ratio").to_number<double>(), query / empty, 1e-6);
}

TEST_F(BenchRpcTest, ARatioAboveTheLimitEndsWithThree) {
    const testing::Ended ended = run("bench rpc --hashes 1 -n 10 --max-ratio 0.000001");
    EXPECT_EQ(ended.exit, 3) << ended.err;
    EXPECT_NE(ended.out.find("ratio of medians"), std::string::npos) << ended.out;
}

}  // namespace
}  // namespace pegaflow::integration
