// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_gpu.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace pegaflow::cli {
namespace {

class BenchGpuTest : public ::testing::Test {
protected:
    BenchGpuTest() : dir_(fmt::format("{}/pegaflow_pci_{}", ::testing::TempDir(), ::getpid())) {
        std::filesystem::create_directories(dir_);
    }
    ~BenchGpuTest() override { std::filesystem::remove_all(dir_); }
    void write(const std::string& name, const std::string& text) const { std::ofstream(dir_ + "/" + name) << text << "\n"; }
    void write_link(const std::string& speed, const std::string& width) const {
        write("class", "0x030200");
        write("current_link_speed", speed);
        write("current_link_width", width);
        write("max_link_speed", "32.0 GT/s PCIe");
        write("max_link_width", "16");
    }
    const std::string dir_;
};

TEST_F(BenchGpuTest, ALinkTellsWhatItCarries) {
    write_link("32.0 GT/s PCIe", "16");
    const Gpu gpu = read_link(dir_);
    EXPECT_EQ(gpu.pcie_gen, 5);
    EXPECT_EQ(gpu.pcie_width, 16);
    EXPECT_FALSE(gpu.is_slowed());
    EXPECT_NEAR(gpu.link_bytes_per_s(), 63.0e9, 0.1e9);
}

TEST_F(BenchGpuTest, ALinkBelowWhatTheDeviceCanIsSlowed) {
    write_link("8.0 GT/s PCIe", "16");
    EXPECT_TRUE(read_link(dir_).is_slowed());
    EXPECT_NEAR(read_link(dir_).link_bytes_per_s(), 15.75e9, 0.1e9);
    write_link("32.0 GT/s PCIe", "8");
    EXPECT_TRUE(read_link(dir_).is_slowed());
}

TEST_F(BenchGpuTest, WhatIsNotKnownIsNotInvented) {
    write_link("Unknown", "0");
    const Gpu gpu = read_link(dir_);
    EXPECT_EQ(gpu.pcie_gen, 0);
    EXPECT_EQ(gpu.pcie_width, 0);
    EXPECT_EQ(gpu.link_bytes_per_s(), 0);
    EXPECT_FALSE(gpu.is_slowed());
    EXPECT_EQ(read_link(dir_ + "/nowhere").pcie_gen, 0);
}

TEST_F(BenchGpuTest, AnotherDeviceAtThePlaceIsNotTaken) {
    write_link("32.0 GT/s PCIe", "16");
    write("class", "0x060000");  // a host bridge
    EXPECT_EQ(read_link(dir_).pcie_gen, 0);
}

}  // namespace
}  // namespace pegaflow::cli
