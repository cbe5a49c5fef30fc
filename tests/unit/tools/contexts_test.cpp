// SPDX-License-Identifier: Apache-2.0
// `pegaflow plugins` and opened devices over the fake driver, which notes each context that it is asked for: nobody gets one on
// a GPU without asking for it.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

class ContextsTest : public ::testing::Test {
protected:
    ContextsTest() : dir_(fmt::format("{}/pegaflow_plugins_{}", ::testing::TempDir(), ::getpid())) {
        std::filesystem::create_directories(dir_);
        ::setenv("PEGAFLOW_LIBCUDA", FAKE_DRIVER, 1);
        ::setenv("PEGAFLOW_FAKE_CALLS", (dir_ + "/calls").c_str(), 1);
    }
    ~ContextsTest() override {
        ::unsetenv("PEGAFLOW_FAKE_CALLS");
        std::filesystem::remove_all(dir_);
    }
    std::string text(const std::string& name) const {
        std::ifstream file(dir_ + "/" + name);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    bool retained(int gpu) const { return text("calls").find(fmt::format("retain {}\n", gpu)) != std::string::npos; }
    std::string plugins(const std::string& arguments) const {
        const std::string command = fmt::format("{} plugins {} >{}/out 2>&1", PEGAFLOW_PROGRAM, arguments, dir_);
        EXPECT_EQ(std::system(command.c_str()), 0) << text("out");
        return text("out");
    }

    std::string dir_;
};

TEST_F(ContextsTest, ListingNamesTheGpusAndTakesNoContext) {
    const std::string listed = plugins("");
    EXPECT_NE(listed.find("cuda:0  Fake GPU"), std::string::npos) << listed;
    EXPECT_NE(listed.find("cuda:1  Fake GPU"), std::string::npos) << listed;
    EXPECT_EQ(listed.find("; alignment "), std::string::npos) << "only an open device says what it can do: " << listed;
    EXPECT_EQ(text("calls"), "");
}

TEST_F(ContextsTest, CapabilitiesAreAskedOfOpenDevices) {
    const std::string listed = plugins("--capabilities");
    EXPECT_NE(listed.find("; moves host-gpu gpu-host gpu-gpu"), std::string::npos) << listed;
    EXPECT_TRUE(retained(0) && retained(1));
}

TEST_F(ContextsTest, OpeningOneGpuLeavesTheOtherAlone) {
    FabricOptions options{.backends = {"cuda"}};
    options.options["cuda"]["calibrate"] = "off";
    auto fabric = Fabric::open(options);
    ASSERT_TRUE(fabric) << fabric.error().message;
    ASSERT_EQ((*fabric)->devices().size(), 2U);
    EXPECT_EQ(text("calls"), "");
    const auto device = (*fabric)->device("cuda:1");
    ASSERT_TRUE(device) << device.error().message;
    auto memory = (*device)->allocate(PEGA_MEMORY_GPU, 1 << 20);
    ASSERT_TRUE(memory) << memory.error().message;
    EXPECT_TRUE(retained(1));
    EXPECT_FALSE(retained(0)) << text("calls");
}

}  // namespace
}  // namespace pegaflow
