// SPDX-License-Identifier: Apache-2.0
// program.hpp - the program `pegaflow` as users call it: what it prints, and how it ends.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace pegaflow::testing {

struct Ended {
    int exit = -1;  // -1: by a signal
    std::string out, err;
    boost::json::value json() const { return boost::json::parse(out); }
};

// A directory of its own, which is the program's working directory.
class ProgramTest : public ::testing::Test {
protected:
    ProgramTest() : dir_(fmt::format("{}/pegaflow_program_{}", ::testing::TempDir(), ::getpid())) {
        std::filesystem::create_directories(dir_);
    }
    ~ProgramTest() override { std::filesystem::remove_all(dir_); }

    Ended run(const std::string& arguments) {
        const std::string command = fmt::format("cd {} && {} {} 2>stderr", dir_, PEGAFLOW_PROGRAM, arguments);
        Ended ended;
        std::FILE* pipe = ::popen(command.c_str(), "r");
        if (pipe == nullptr) return ended;
        std::array<char, 4096> buffer;
        while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
            ended.out.append(buffer.data(), count);
        const int status = ::pclose(pipe);
        if (WIFEXITED(status)) ended.exit = WEXITSTATUS(status);
        ended.err = text("stderr");
        return ended;
    }
    std::string text(const std::string& name) const {
        std::ifstream file(dir_ + "/" + name);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void write(const std::string& name, const std::string& content) const { std::ofstream(dir_ + "/" + name) << content; }

    const std::string dir_;
};

// What every report begins with.
inline void expect_head(const boost::json::value& report, const std::string& verb) {
    EXPECT_EQ(report.at("schema").as_string(), "pegaflow.bench");
    EXPECT_EQ(report.at("schema_version").to_number<int>(), 1);
    EXPECT_FALSE(report.at("tool").at("version").as_string().empty());
    EXPECT_TRUE(report.at("tool").at("git").is_string());
    EXPECT_TRUE(report.at("tool").at("build").is_string());
    EXPECT_EQ(report.at("command").as_array().at(1).as_string(), verb);
    const std::string start(report.at("start_time").as_string());
    EXPECT_EQ(start.size(), std::string("2026-01-01T00:00:00Z").size()) << start;
    EXPECT_EQ(start.back(), 'Z');
    EXPECT_FALSE(report.at("env").at("host").as_string().empty());
    EXPECT_FALSE(report.at("env").at("kernel").as_string().empty());
    EXPECT_TRUE(report.at("env").at("warnings").is_array());
}

}  // namespace pegaflow::testing
