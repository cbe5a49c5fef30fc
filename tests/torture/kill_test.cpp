// SPDX-License-Identifier: Apache-2.0
// A writer that is killed at random moments: what it called durable is there afterwards, and nothing has a wrong byte.
// PEGAFLOW_TIER_KILLS sets how many (default 4), PEGAFLOW_TIER_FLIPS how many bits are flipped (default 6).
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "engine/tier/checker.hpp"
#include "engine/tier/container.hpp"

namespace pegaflow {
namespace {

namespace fs = std::filesystem;

class TierKillTest : public ::testing::Test {
protected:
    TierKillTest() : dir_(fmt::format("{}/pegaflow_kill_{}", ::testing::TempDir(), ::getpid())) {
        fs::create_directories(dir_);
    }
    ~TierKillTest() override {
        std::error_code error;
        fs::remove_all(dir_, error);
    }
    // Runs the program with its output appended to a file.
    pid_t start(const std::vector<std::string>& arguments, const std::string& output) {
        std::vector<char*> words;
        std::string program = PEGAFLOW_TORTURE;
        words.push_back(program.data());
        for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
        words.push_back(nullptr);
        const pid_t child = ::fork();
        if (child == 0) {
            const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
            ::dup2(fd, STDOUT_FILENO);
            ::execv(program.c_str(), words.data());
            ::_exit(127);
        }
        return child;
    }
    static int wait_for(pid_t child) {
        int status = 0;
        ::waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    struct Found {
        std::uint64_t checked = 0, lost = 0, wrong = 0;
    };
    // What the last check printed.
    Found found() const {
        std::ifstream text(dir_ + "/check");
        std::string line, last;
        while (std::getline(text, line)) last = line;
        Found out;
        std::sscanf(last.c_str(), "%lu durable, %*u found, %lu lost, %lu wrong", &out.checked, &out.lost, &out.wrong);
        return out;
    }
    std::string cache() const { return dir_ + "/cache"; }
    std::string log() const { return dir_ + "/durable"; }
    std::uint64_t lines() const {
        std::ifstream file(log());
        return static_cast<std::uint64_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
    }

    std::string dir_;
};

TEST_F(TierKillTest, WhatWasDurableSurvivesKillsAtAnyMoment) {
    if (wait_for(start({"write", cache(), "1", "0"}, log())) == 2) GTEST_SKIP() << "the nvme back end cannot be used here";
    const char* wanted = std::getenv("PEGAFLOW_TIER_KILLS");
    const int kills = wanted != nullptr ? std::atoi(wanted) : 4;
    std::mt19937 random(11);
    std::uint64_t durable = 0;
    Found all;
    for (int i = 0; i < kills; ++i) {
        if (i % 8 == 7) {  // before the cache is so full that blocks must go
            durable += lines();
            fs::remove_all(cache());
            fs::remove(log());
        }
        const pid_t child = start({"write", cache(), std::to_string(i + 2), "20", "1024", "100"}, log());
        ASSERT_GT(child, 0);
        // Every other time not before something is durable, however slow this build starts.
        const std::uint64_t before = lines();
        for (int step = 0; i % 2 == 0 && step < 2000 && lines() == before; ++step)
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
        ::kill(child, SIGKILL);
        wait_for(child);
        ASSERT_EQ(wait_for(start({"check", cache(), log(), "1024"}, dir_ + "/check")), 0) << "after kill " << i;
        const Found now = found();
        all = {all.checked + now.checked, all.lost + now.lost, all.wrong + now.wrong};
    }
    EXPECT_GT(durable + lines(), 0U);
    RecordProperty("kills", std::to_string(kills));
    RecordProperty("durable_blocks", std::to_string(durable + lines()));
    RecordProperty("checks", std::to_string(all.checked));
    RecordProperty("lost", std::to_string(all.lost));
    RecordProperty("wrong", std::to_string(all.wrong));
    const auto report = engine::tier::check_container(cache());
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->wrong_pages, 0U);
    EXPECT_TRUE(report->problems.empty()) << report->problems.front();
}

TEST_F(TierKillTest, AFlippedBitIsFoundByTheCheckerAndIsNeverServed) {
    if (wait_for(start({"write", cache(), "1", "20", "256", "24"}, log())) == 2)
        GTEST_SKIP() << "the nvme back end cannot be used here";
    const std::string file = cache() + "/" + engine::tier::kContainerFile;
    const auto before = engine::tier::check_container(cache());
    ASSERT_TRUE(before && before->problems.empty());
    std::mt19937_64 random(23);
    const char* wanted = std::getenv("PEGAFLOW_TIER_FLIPS");
    const int flips = wanted != nullptr ? std::atoi(wanted) : 6;
    int noticed = 0;
    for (int i = 0; i < flips; ++i) {
        // Within the first segments, which are full: every byte up to their tables belongs to something.
        const std::uint64_t at = (1 << 20) + random() % 4 * (4 << 20) + random() % (3 << 20);
        std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
        bytes.seekg(static_cast<std::streamoff>(at));
        const int old = bytes.get();
        bytes.seekp(static_cast<std::streamoff>(at));
        bytes.put(static_cast<char>(old ^ (1 << random() % 8)));
        bytes.close();
        const auto report = engine::tier::check_container(cache());
        ASSERT_TRUE(report);
        EXPECT_FALSE(report->problems.empty()) << "bit flipped at " << at;
        noticed += report->problems.empty() ? 0 : 1;
        const int status = wait_for(start({"check", cache(), log(), "256"}, dir_ + "/check"));
        EXPECT_LE(status, 1);
        EXPECT_EQ(found().wrong, 0U) << "bit flipped at " << at;
        std::fstream restore(file, std::ios::in | std::ios::out | std::ios::binary);
        restore.seekp(static_cast<std::streamoff>(at));
        restore.put(static_cast<char>(old));
    }
    RecordProperty("bits_flipped", std::to_string(flips));
    RecordProperty("found_by_checker", std::to_string(noticed));
}

}  // namespace
}  // namespace pegaflow
