// SPDX-License-Identifier: Apache-2.0
// A writer that is killed at random moments: what it called durable is there afterwards, and nothing has a wrong byte.
// PEGAFLOW_TIER_KILLS sets how many (default 4), PEGAFLOW_TIER_FLIPS how many bits are flipped (default 8).
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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
        if (child_ > 0) kill_child();
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
    int run(const std::vector<std::string>& arguments, const std::string& output) { return wait_for(start(arguments, output)); }

    // A load that goes on until it is killed.
    void start_load(std::uint64_t seed, const char* capacity_mib) {
        child_ = start({"churn", cache(), std::to_string(seed), capacity_mib}, log());
        ASSERT_GT(child_, 0);
    }
    bool alive() const {
        siginfo_t info{};
        return ::waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
    }
    // How it ended: as wait tells it.
    int kill_child() {
        int status = 0;
        ::kill(child_, SIGKILL);
        ::waitpid(std::exchange(child_, 0), &status, 0);
        return status;
    }
    // As long as the load runs, however slow this build is.
    void wait_for_lines(std::uint64_t count) {
        while (alive() && lines() < count) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }

    struct Found {
        std::uint64_t durable = 0, found = 0, lost = 0, wrong = 0, beyond = 0;
    };
    // What the check says of a cache; its exit code in `status`.
    Found check(const std::string& cache, const char* capacity_mib, const char* recent_mib, int* status) {
        const std::string output = dir_ + "/check";
        fs::remove(output);
        *status = run({"check", cache, log(), capacity_mib, recent_mib}, output);
        std::ifstream text(output);
        std::string line;
        std::getline(text, line);
        Found out;
        const int fields = std::sscanf(line.c_str(), "%lu durable, %lu found, %lu lost, %lu wrong, %lu beyond", &out.durable,
                                       &out.found, &out.lost, &out.wrong, &out.beyond);
        EXPECT_EQ(fields, 5) << "the check says: " << line;
        return out;
    }
    std::string cache() const { return dir_ + "/cache"; }
    std::string log() const { return dir_ + "/durable"; }
    std::uint64_t lines() const {
        std::ifstream file(log());
        return static_cast<std::uint64_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
    }

    std::string dir_;
    pid_t child_ = 0;
};

int number_of(const char* variable, int otherwise) {
    const char* wanted = std::getenv(variable);
    return wanted != nullptr ? std::atoi(wanted) : otherwise;
}

TEST_F(TierKillTest, WhatWasDurableSurvivesKillsAtAnyMoment) {
    constexpr const char* kCapacity = "160";  // MiB
    // More than the cache holds, so that older blocks go from the first kill on.
    if (run({"write", cache(), "1", "600", kCapacity, "200"}, log()) == 2)
        GTEST_SKIP() << "the nvme back end cannot be used here";
    constexpr const char* kRecent = "48";  // MiB, that newer blocks and what kills leave unused cannot have pushed out
    const int kills = number_of("PEGAFLOW_TIER_KILLS", 4);
    std::mt19937 random(11);
    std::uint64_t durable = 0;
    Found all;
    int counted = 0, tries = 0;
    for (; counted < kills && tries < 3 * kills + 6; ++tries) {
        const std::uint64_t before = lines();
        start_load(static_cast<std::uint64_t>(tries) + 2, kCapacity);
        // Every third time whenever it may be, also before anything was written; else not before something is durable.
        if (tries % 3 != 2) wait_for_lines(before + 2);
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
        ASSERT_TRUE(alive()) << "the load ended before kill " << tries;
        const int end = kill_child();
        ASSERT_TRUE(WIFSIGNALED(end) && WTERMSIG(end) == SIGKILL) << end;
        const std::uint64_t now = lines() - std::min(lines(), before + 1);  // besides "begin"
        int status = -1;
        const Found found = check(cache(), kCapacity, kRecent, &status);
        ASSERT_EQ(status, 0) << "after kill " << tries << ": " << found.lost << " lost, " << found.wrong << " wrong";
        durable += now;
        all = {all.durable + found.durable, all.found + found.found, all.lost + found.lost, all.wrong + found.wrong,
               all.beyond + found.beyond};
        counted += now != 0 ? 1 : 0;  // of a load that had promised nothing yet, nothing can be lost
    }
    EXPECT_EQ(counted, kills) << "kills after something was durable, of " << tries;
    RecordProperty("kills", std::to_string(tries));
    RecordProperty("kills_with_durable_blocks", std::to_string(counted));
    RecordProperty("durable_blocks", std::to_string(durable));
    RecordProperty("checks", std::to_string(all.durable));
    RecordProperty("lost", std::to_string(all.lost));
    RecordProperty("wrong", std::to_string(all.wrong));
    RecordProperty("beyond", std::to_string(all.beyond));
    EXPECT_GT(all.beyond, 0U) << "blocks that nobody had been told of";
    const auto report = engine::tier::check_container(cache());
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_GT(report->lifetime_written_bytes, report->capacity_bytes) << "no block had to go";
    EXPECT_EQ(report->wrong_pages, 0U);
    EXPECT_TRUE(report->problems.empty()) << report->problems.front();
}

// A cache that was killed in the midst of its writes, so that it has full segments and open ones.
TEST_F(TierKillTest, AFlippedBitIsFoundByTheCheckerOrChangesNothing) {
    constexpr const char* kCapacity = "96";  // MiB: no block has to go
    if (run({"write", cache(), "1", "600", kCapacity, "24"}, log()) == 2)
        GTEST_SKIP() << "the nvme back end cannot be used here";
    start_load(2, kCapacity);
    wait_for_lines(lines() + 60);
    ASSERT_TRUE(alive());
    kill_child();
    const std::string name = engine::tier::kContainerFile;
    const auto before = engine::tier::check_container(cache());
    ASSERT_TRUE(before) << before.error().message;
    ASSERT_GT(before->sealed_segments, 4U);
    const std::uint64_t size = fs::file_size(cache() + "/" + name);
    const std::uint64_t segment = before->segment_bytes, header = size - before->capacity_bytes;
    const std::uint64_t used = before->sealed_segments + before->open_segments;
    std::mt19937_64 random(23);
    const auto place = [&](int i) {
        switch (i % 4) {
            case 0:  // any byte
                return random() % size;
            case 1:  // what stands before the segments
                return random() % header;
            case 2:  // of a segment's header and first extent, or of its end, where its table is
                return header + random() % used * segment + (random() % 2 == 0 ? 0 : segment - (64 << 10)) +
                       random() % (64 << 10);
            default:  // of those that have something in them
                return header + random() % used * segment + random() % segment;
        }
    };
    const int flips = number_of("PEGAFLOW_TIER_FLIPS", 8);
    int noticed = 0, harmless = 0;
    std::uint64_t lost = 0;
    for (int i = 0; i < flips; ++i) {
        const std::string copy = dir_ + "/flipped";
        fs::remove_all(copy);
        fs::copy(cache(), copy);
        const std::uint64_t at = place(i);
        std::fstream bytes(copy + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
        bytes.seekg(static_cast<std::streamoff>(at));
        const int old = bytes.get();
        bytes.seekp(static_cast<std::streamoff>(at));
        bytes.put(static_cast<char>(old ^ (1 << random() % 8)));
        bytes.close();
        ASSERT_TRUE(bytes) << "at " << at;
        const auto report = engine::tier::check_container(copy);
        const bool found = !report || report->problems != before->problems;  // the kill may have torn something
        int status = -1;
        const Found now = check(copy, kCapacity, "0", &status);
        ASSERT_TRUE(status == 0 || status == 1) << status << ", bit flipped at " << at;
        EXPECT_EQ(now.wrong, 0U) << "bit flipped at " << at;
        EXPECT_TRUE(found || status == 0) << now.lost << " blocks lost and nothing found, bit flipped at " << at;
        noticed += found ? 1 : 0;
        harmless += !found && status == 0 ? 1 : 0;
        lost += now.lost;
    }
    EXPECT_EQ(noticed + harmless, flips);
    RecordProperty("bits_flipped", std::to_string(flips));
    RecordProperty("found_by_checker", std::to_string(noticed));
    RecordProperty("without_effect", std::to_string(harmless));
    RecordProperty("blocks_lost_to_flips", std::to_string(lost));
}

}  // namespace
}  // namespace pegaflow
