// SPDX-License-Identifier: Apache-2.0
// `pegaflow doctor --ssd` as a program, on directories that are good, damaged and made to do harm.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "tests/unit/engine/tier/fake_device.hpp"
#include "tools/pegaflow/printable.hpp"

namespace pegaflow::cli {
namespace {

namespace fs = std::filesystem;
using namespace engine::tier;

TEST(PrintableTest, WhatIsNoTextIsShownAsBytes) {
    EXPECT_EQ(printable("model \"7b\" \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"),
              "model \"7b\" \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    EXPECT_EQ(printable("\x1b[31m\n\x7f"), "\\x1b[31m\\x0a\\x7f");
    EXPECT_EQ(printable("a\xff\xc3"), "a\\xff\\xc3");
    EXPECT_EQ(printable("\xc0\x80"), "\\xc0\\x80") << "longer than it need be";
    EXPECT_EQ(printable("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "half a pair";
    EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b") << "a control character of two bytes";
    EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
}

class DoctorSsdTest : public ::testing::Test {
protected:
    DoctorSsdTest()
        : dir_(fmt::format("{}/pegaflow_doctor_{}", ::testing::TempDir(), ::getpid())),
          host_(4 << 20),
          device_(small_superblock(4), host_) {
        fs::create_directories(dir_ + "/cache");
    }
    ~DoctorSsdTest() override { fs::remove_all(dir_); }

    std::string file() const { return dir_ + "/cache/pegaflow.tier"; }
    void fill(const char* name_space = "model") {
        Bench bench(device_, host_);
        bench.scope = bench.scopes.number_of(name_space, "layout");
        bench.write(0, 110);
    }
    void put(Superblock superblock) {
        encode(superblock, std::span(device_.durable).first(kBlockBytes));
        encode(superblock, std::span(device_.durable).subspan(kSuperblockCopyAt, kBlockBytes));
        std::ofstream(file(), std::ios::binary)
            .write(reinterpret_cast<const char*>(device_.durable.data()), static_cast<std::streamsize>(device_.durable.size()));
    }
    // How the program ended; `text_` is what it wrote.
    int doctor(const std::string& more = "") {
        const int status =
            std::system(fmt::format("{} doctor --ssd {}/cache {} >{}/out 2>&1", PEGAFLOW_PROGRAM, dir_, more, dir_).c_str());
        std::ifstream out(dir_ + "/out", std::ios::binary);
        text_.assign(std::istreambuf_iterator<char>(out), {});
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    const std::string dir_;
    std::string text_;
    FakeHost host_;
    FakeDevice device_;
};

TEST_F(DoctorSsdTest, AGoodCacheHasNoProblems) {
    fill();
    put(device_.superblock);
    EXPECT_EQ(doctor(), 0) << text_;
    EXPECT_NE(text_.find("namespace \"model\", layout layout: 110 blocks"), std::string::npos) << text_;
    EXPECT_NE(text_.find("no problems"), std::string::npos) << text_;
    EXPECT_EQ(doctor("--json"), 0) << text_;
    const auto report = boost::json::parse(text_).at("caches").at(0);
    EXPECT_EQ(report.at("blocks").as_int64(), 110);
    EXPECT_TRUE(report.at("problems").as_array().empty());
}

TEST_F(DoctorSsdTest, ADamagedOneHasThemNamed) {
    fill();
    device_.durable[kSegmentsAt + 3 * kBlockBytes + 77] ^= std::byte{1};
    put(device_.superblock);
    EXPECT_EQ(doctor(), 2) << text_;
    EXPECT_NE(text_.find("does not have its digest"), std::string::npos) << text_;
    EXPECT_EQ(doctor("--json"), 2) << text_;
    EXPECT_EQ(boost::json::parse(text_).at("caches").at(0).at("problems").as_array().size(), 1U);
}

TEST_F(DoctorSsdTest, OneThatNamesMoreThanThereIsIsRefused) {
    Superblock superblock = device_.superblock;
    superblock.segment_count = std::uint64_t{1} << 31;
    put(superblock);
    EXPECT_EQ(doctor(), 1) << text_;
    EXPECT_NE(text_.find("2147483648 segments"), std::string::npos) << text_;
}

TEST_F(DoctorSsdTest, APipeIsRefusedAtOnce) {
    ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
    EXPECT_EQ(doctor(), 1) << text_;
    EXPECT_NE(text_.find("neither a directory, nor a file"), std::string::npos) << text_;
}

TEST_F(DoctorSsdTest, TextOfACacheDoesNotReachTheTerminalAsItIs) {
    fill("\x1b[2J\xff");
    put(device_.superblock);
    EXPECT_EQ(doctor(), 0) << text_;
    EXPECT_EQ(text_.find('\x1b'), std::string::npos);
    EXPECT_NE(text_.find("\\x1b[2J\\xff"), std::string::npos) << text_;
    EXPECT_EQ(doctor("--json"), 0) << text_;
    EXPECT_EQ(boost::json::parse(text_).at("caches").at(0).at("scopes").at(0).at("namespace").as_string(), "\\x1b[2J\\xff");
}

}  // namespace
}  // namespace pegaflow::cli
