// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "calibration.hpp"

namespace cuda_backend {

std::string uuid_text(const Uuid&) { return "GPU-test"; }  // device.cpp is not linked here

namespace {

class CalibrationFile : public ::testing::Test {
protected:
    CalibrationFile()
        : path_(std::filesystem::temp_directory_path() / ("pegaflow-calibration-" + std::to_string(::getpid()) + ".txt")) {}
    ~CalibrationFile() override { std::filesystem::remove(path_); }
    std::string text() const {
        std::ifstream file(path_);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void put(const std::string& text) const { std::ofstream(path_) << text; }
    const std::string path_;
};

TEST_F(CalibrationFile, WhatWasWrittenIsRead) {
    PathTable table;
    table.at(true, Path::kStaged, 1, 2) = 4.25e10;
    ASSERT_TRUE(write_calibration(path_, "GPU-x driver 1", table));
    PathTable read;
    ASSERT_TRUE(read_calibration(path_, "GPU-x driver 1", read));
    EXPECT_TRUE(read.measured);
    EXPECT_DOUBLE_EQ(read.at(true, Path::kStaged, 1, 2), 4.25e10);
}

TEST_F(CalibrationFile, AnotherDriverMeasuresAgain) {
    ASSERT_TRUE(write_calibration(path_, "GPU-x driver 1", PathTable()));
    PathTable read;
    EXPECT_FALSE(read_calibration(path_, "GPU-x driver 2", read));
    EXPECT_FALSE(read.measured);
}

TEST_F(CalibrationFile, DamagedFilesAreNotBelieved) {
    ASSERT_TRUE(write_calibration(path_, "id", PathTable()));
    const std::string good = text();
    PathTable read;
    put(good.substr(0, good.size() / 2));
    EXPECT_FALSE(read_calibration(path_, "id", read)) << "cut";
    std::string bad = good;
    bad.replace(bad.find("bulk"), 4, "bulb");
    put(bad);
    EXPECT_FALSE(read_calibration(path_, "id", read)) << "an unknown path";
    put(good + "d2h loop 2048 1048576 -5\n");
    EXPECT_FALSE(read_calibration(path_, "id", read)) << "a negative rate";
    EXPECT_FALSE(read_calibration("/nonexistent/file", "id", read));
}

}  // namespace
}  // namespace cuda_backend
