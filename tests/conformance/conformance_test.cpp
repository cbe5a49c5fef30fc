// SPDX-License-Identifier: Apache-2.0
// The conformance suites, run on each back end by name, on each wrapped in the interposers, and on policies.
#include "tools/conformance/conformance.hpp"

#include <cstdlib>
#include <filesystem>

namespace pegaflow::conformance {
namespace {

struct Subject {
    const char* name;
    const char* file;
    std::vector<std::string> options;
    std::vector<const char*> companions;

    std::vector<const char*> needs() const {
        std::vector<const char*> files = companions;
        files.push_back(file);
        return files;
    }
};

void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }

class Conformance : public ::testing::TestWithParam<Subject> {};

TEST_P(Conformance, Passes) {
    const char* directory = std::getenv("PEGAFLOW_PLUGIN_PATH");
    ASSERT_NE(directory, nullptr) << "PEGAFLOW_PLUGIN_PATH says where the modules are";
    const auto path = [&](const char* file) { return (std::filesystem::path(directory) / file).string(); };
    Options options;
    options.path = path(GetParam().file);
    for (const char* file : GetParam().needs()) {
        if (!std::filesystem::exists(path(file)))
            GTEST_SKIP() << file << " was not built here: a library that it needs is missing";
    }
    options.options = GetParam().options;
    for (const char* companion : GetParam().companions) options.companions.push_back(path(companion));
    std::size_t passed = 0;
    std::string first_reason;
    for (const CheckResult& result : run(options)) {
        EXPECT_NE(result.outcome, Outcome::kFailed) << result.name << ": " << result.text;
        passed += result.outcome == Outcome::kPassed ? 1 : 0;
        if (result.outcome == Outcome::kSkipped && first_reason.empty()) first_reason = result.text;
    }
    if (passed == 0 && !HasFailure()) GTEST_SKIP() << first_reason;
}

constexpr const char* kHost = "pegaflow-backend-host.so";
constexpr const char* kTemplate = "pegaflow-backend-template.so";
constexpr const char* kNvme = "pegaflow-backend-nvme.so";

INSTANTIATE_TEST_SUITE_P(
    Modules, Conformance,
    ::testing::Values(Subject{"host", kHost, {}, {}}, Subject{"host_one_thread", kHost, {"threads=1"}, {}},
                      Subject{"cuda", "pegaflow-backend-cuda.so", {}, {}}, Subject{"nvme", kNvme, {}, {}},
                      Subject{"nvme_deferred", kNvme, {"ring=deferred"}, {}},
                      Subject{"nvme_small_ring", kNvme, {"ring=deferred", "depth=3", "io_bytes=4096"}, {}},
                      Subject{"nvme_plain", kNvme, {"fixed=off", "depth_bytes=8192"}, {}},
                      Subject{"nvme_page_cache", kNvme, {"direct=off"}, {}},
                      Subject{"fault_over_nvme", "pegaflow-plugin-fault.so", {"inner=nvme"}, {kNvme}},
                      Subject{"trace_over_nvme", "pegaflow-plugin-trace.so", {"inner=nvme"}, {kNvme}},
                      Subject{"template", kTemplate, {}, {}},
                      Subject{"fault_over_template", "pegaflow-plugin-fault.so", {"inner=template"}, {kTemplate}},
                      Subject{"trace_over_template", "pegaflow-plugin-trace.so", {"inner=template"}, {kTemplate}},
                      Subject{"template_policy", "pegaflow-plugin-template_policy.so", {}, {}},
                      Subject{"template_policy_patient", "pegaflow-plugin-template_policy.so", {"chances=3"}, {}},
                      Subject{"fault_over_host", "pegaflow-plugin-fault.so", {"inner=host"}, {kHost}},
                      Subject{"trace_over_host", "pegaflow-plugin-trace.so", {"inner=host"}, {kHost}},
                      Subject{"trace_over_fault_over_host",
                              "pegaflow-plugin-trace.so",
                              {"inner=fault", "inner.inner=host", "inner.inner.threads=1"},
                              {"pegaflow-plugin-fault.so", kHost}}),
    [](const auto& subject) { return std::string(subject.param.name); });

}  // namespace
}  // namespace pegaflow::conformance
