// SPDX-License-Identifier: Apache-2.0
// `pegaflow doctor` and `pegaflow plugins` as programs.
#include "tests/unit/tools/program.hpp"

namespace pegaflow {
namespace {

using testing::Ended;

class DoctorTest : public testing::ProgramTest {};

// What is found depends on the machine: that all of it is told, with what to do, does not.
TEST_F(DoctorTest, FindingsAreToldAsTextAndAsJson) {
    const Ended json = run("doctor --json");
    const auto report = json.json();
    EXPECT_EQ(report.at("schema").as_string(), "pegaflow.doctor");
    bool failed = false;
    bool host = false;
    for (const auto& finding : report.at("findings").as_array()) {
        const std::string level(finding.at("level").as_string());
        EXPECT_TRUE(level == "ok" || level == "warn" || level == "fail") << level;
        failed |= level == "fail";
        if (finding.at("subject").as_string() != "host:0") continue;
        host = true;
        EXPECT_EQ(level, "ok");
        EXPECT_NE(finding.at("text").as_string().find("GB/s"), boost::json::string::npos);
    }
    EXPECT_TRUE(host) << json.out;
    EXPECT_EQ(json.exit, failed ? 1 : 0);
    const Ended plain = run("doctor");
    for (const char* subject : {"host:0", "NUMA", "/dev/shm", "io_uring"})
        EXPECT_NE(plain.out.find(subject), std::string::npos) << subject << "\n" << plain.out;
}

TEST_F(DoctorTest, PluginsAreListedWithTheirDevices) {
    const Ended ended = run("plugins");
    EXPECT_EQ(ended.exit, 0) << ended.err;
    for (const char* part : {"\nhost 1.0 (", "  host:0  host memory"})
        EXPECT_NE(("\n" + ended.out).find(part), std::string::npos) << part << "\n" << ended.out;
}

TEST_F(DoctorTest, AFileThatIsNoModuleIsListedWithTheReason) {
    write("pegaflow-backend-broken.so", "not a library");
    const Ended ended = run("plugins --search-path .");
    EXPECT_EQ(ended.exit, 0) << ended.err;
    EXPECT_NE(ended.out.find("pegaflow-backend-broken.so)"), std::string::npos) << ended.out;
    EXPECT_NE(ended.out.find("not usable: "), std::string::npos) << ended.out;
}

}  // namespace
}  // namespace pegaflow
