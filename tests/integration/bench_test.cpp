// SPDX-License-Identifier: Apache-2.0
// `pegaflow bench ssd --compare fio` as a program: which references it runs beside a tier, and what it says of them.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace pegaflow::integration {
namespace {

class BenchSsdTest : public ::testing::Test {
protected:
    BenchSsdTest() : dir_(fmt::format("{}/pegaflow_bench_{}", ::testing::TempDir(), ::getpid())) {
        std::filesystem::create_directories(dir_);
    }
    ~BenchSsdTest() override { std::filesystem::remove_all(dir_); }

    static bool has_fio() { return std::system("fio --version >/dev/null 2>&1") == 0; }
    // The one result of a short run beside fio. Its working directory is the one in which the files lie.
    boost::json::object measure(const std::string& mode) {
        const std::string command = fmt::format(
            "cd {0} && {1} bench ssd -d . --tier --rw {2} -s 64K --file-size 64M --depth 8 -D 0.3 --warmup 0 "
            "--repetitions 1 --compare fio --json=report >out 2>&1",
            dir_, PEGAFLOW_PROGRAM, mode);
        EXPECT_EQ(std::system(command.c_str()), 0) << text("out");
        const boost::json::value report = boost::json::parse(text("report"));
        std::filesystem::remove(dir_ + "/out");
        std::filesystem::remove(dir_ + "/report");
        return report.at("results").as_array().at(0).as_object();
    }
    std::string text(const std::string& name) const {
        std::ifstream file(dir_ + "/" + name);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    static bool has_argument(const boost::json::object& reference, const std::string& start) {
        const auto& words = reference.at("command").as_array();
        return std::any_of(words.begin(), words.end(), [&](const auto& word) { return word.as_string().starts_with(start); });
    }
    static void expect_reference(const boost::json::object& result, const std::string& name, const std::string& argument) {
        ASSERT_TRUE(result.contains(name));
        const boost::json::object& reference = result.at(name).as_object();
        EXPECT_TRUE(has_argument(reference, argument)) << boost::json::serialize(reference.at("command"));
        EXPECT_FALSE(has_argument(result.at("reference").as_object(), argument));
        const double rate = result.at("bytes_per_s").at("median").as_double();
        const double theirs = reference.at("bytes_per_s").at("median").as_double();
        ASSERT_GT(theirs, 0);
        EXPECT_NEAR(result.at("pct_of_" + name).as_double(), 100 * rate / theirs, 0.01);
        EXPECT_GT(result.at("cpu_pct_of_" + name).as_double(), 0);
    }

    std::string dir_;
};

// A tier checks what it reads: so does the second fio, which leaves nothing behind.
TEST_F(BenchSsdTest, ReadsOfATierAreComparedWithAFioThatVerifies) {
    if (!has_fio()) GTEST_SKIP() << "fio is not installed";
    const boost::json::object result = measure("read");
    EXPECT_EQ(result.at("wrong_bytes").to_number<std::uint64_t>(), 0U);
    expect_reference(result, "verifying_reference", "--verify=crc32c");
    EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

// What a tier calls written is durable and has a digest: so is what the second fio wrote.
TEST_F(BenchSsdTest, WritesOfATierAreComparedWithAFioThatFlushesAndMakesChecksums) {
    if (!has_fio()) GTEST_SKIP() << "fio is not installed";
    const boost::json::object result = measure("write");
    EXPECT_EQ(result.at("wrong_bytes").to_number<std::uint64_t>(), 0U);
    EXPECT_TRUE(result.at("verified").as_bool());
    EXPECT_GT(result.at("checked_bytes").to_number<std::uint64_t>(), 0U) << "read back after it was written";
    expect_reference(result, "durable_reference", "--fdatasync=");
    expect_reference(result, "durable_reference", "--verify=crc32c");
    EXPECT_TRUE(std::filesystem::is_empty(dir_));
}

TEST_F(BenchSsdTest, WhatATierDecidesItselfCannotBeAskedOfIt) {
    for (const char* option : {"--sequential", "--batch 4", "--threads 2", "--backend passthru"}) {
        const std::string command =
            fmt::format("cd {} && {} bench ssd -d . --tier --file-size 64M {} >out 2>&1", dir_, PEGAFLOW_PROGRAM, option);
        EXPECT_NE(std::system(command.c_str()), 0) << option;
        const std::string name(option, std::strcspn(option, " "));
        EXPECT_NE(text("out").find(name + (name == "--backend" ? " passthru" : "") + " has no meaning with --tier"),
                  std::string::npos)
            << text("out");
    }
}

}  // namespace
}  // namespace pegaflow::integration
