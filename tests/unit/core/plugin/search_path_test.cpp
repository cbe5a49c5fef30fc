// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/search_path.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace pegaflow::core {
namespace {

namespace fs = std::filesystem;

class SearchPathTest : public ::testing::Test {
protected:
    void SetUp() override {
        char name[] = "/tmp/pegaflow-search-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        root_ = name;
        if (const char* before = std::getenv("PEGAFLOW_PLUGIN_PATH")) before_ = before;
    }
    void TearDown() override {
        ::setenv("PEGAFLOW_PLUGIN_PATH", before_.c_str(), 1);
        fs::remove_all(root_);
    }
    std::string directory(const std::string& name) {
        fs::create_directories(root_ / name);
        return (root_ / name).string();
    }
    void file(const std::string& path) { std::ofstream(root_ / path) << "x"; }

    fs::path root_;
    std::string before_;
};

TEST_F(SearchPathTest, EnvironmentThenOptionsThenBesideTheLibrary) {
    const std::string first = directory("env1");
    const std::string second = directory("env2");
    const std::string third = directory("option");
    ::setenv("PEGAFLOW_PLUGIN_PATH", (first + "::/no/such/place:" + second).c_str(), 1);
    const std::vector<std::string> extra = {third, first};
    const auto found = module_directories(extra);
    ASSERT_GE(found.size(), 4U);
    EXPECT_EQ(found[0], first);
    EXPECT_EQ(found[1], second);
    EXPECT_EQ(found[2], third);
    EXPECT_EQ(std::count(found.begin(), found.end(), first), 1);
    // The build tree has the layout of an installation: modules in pegaflow/ beside the library.
    EXPECT_EQ(fs::path(found[3]).filename(), "pegaflow");
    EXPECT_EQ(fs::path(found[4]), fs::path(found[3]).parent_path());
}

TEST_F(SearchPathTest, TheFirstOfTwoFilesWithOneNameWins) {
    const std::vector<std::string> both = {directory("a"), directory("b")};
    file("a/pegaflow-backend-x.so");
    file("b/pegaflow-backend-x.so");
    file("b/pegaflow-plugin-y.so");
    file("b/libother.so");
    file("b/pegaflow-backend-x.so.1");
    EXPECT_THAT(module_files(both),
                ::testing::ElementsAre(both[0] + "/pegaflow-backend-x.so", both[1] + "/pegaflow-plugin-y.so"));
}

TEST(ModuleName, ComesFromTheFileName) {
    EXPECT_EQ(module_name("/a/b/pegaflow-backend-host.so"), "host");
    EXPECT_EQ(module_name("pegaflow-plugin-fault.so"), "fault");
    EXPECT_EQ(module_name("/a/libpegaflow.so"), "");
    EXPECT_EQ(module_name("/pegaflow-backend-x/readme"), "");
    EXPECT_TRUE(is_backend_file("/a/pegaflow-backend-host.so"));
    EXPECT_FALSE(is_backend_file("/pegaflow-backend-x/pegaflow-plugin-y.so"));
}

}  // namespace
}  // namespace pegaflow::core
