// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_head.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <ostream>

#include "base/numa.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

constexpr double kBusy = 0.5;  // of the processors, by the load average of a minute

std::string utc_now() {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(": ");
        if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
    }
    return {};
}

// The node of the processor that this thread runs on; -1 when the machine has only one.
int own_node() {
    const auto nodes = base::numa_nodes();
    if (nodes.size() < 2) return -1;
    const int cpu = ::sched_getcpu();
    for (const base::NumaNode& node : nodes) {
        if (std::find(node.cpus.begin(), node.cpus.end(), cpu) != node.cpus.end()) return node.id;
    }
    return -1;
}

}  // namespace

Head::Head(const Context& context) : command_(context.command), start_time_(utc_now()) {
    utsname system{};
    ::uname(&system);
    const long processors = std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN));
    env_ = {{"host", system.nodename}, {"kernel", system.release}, {"cpu", processor()}, {"processors", processors}};
    const std::string build = kBuildType;
    if (build != "Release" && build != "RelWithDebInfo" && build != "MinSizeRel")
        warn(fmt::format("this is a {} build", build.empty() ? "debug" : build));
    double load = 0;
    if (::getloadavg(&load, 1) == 1 && load > kBusy * static_cast<double>(processors))
        warn(fmt::format("the machine is busy: load {:.1f} on {} processors", load, processors));
    std::string governor;
    std::getline(std::ifstream("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"), governor);
    if (governor == "powersave") warn("processors save power (scaling_governor)");
}

void Head::device(const DeviceInfo& info) {
    env_["device"] = info.text;
    env_["uuid"] = info.uuid;
    env_["numa_node"] = info.numa_node;
    const int node = own_node();
    if (node >= 0 && info.numa_node >= 0 && node != info.numa_node)
        warn(fmt::format("this runs on NUMA node {}, {} is on node {}", node, info.name, info.numa_node));
    if (info.kind != PEGA_MEMORY_GPU) return;
    gpu_ = find_gpu(info.uuid);
    boost::json::object gpu{{"name", info.text}};
    if (gpu_.pcie_gen != 0) gpu["pcie_gen"] = gpu_.pcie_gen;
    if (gpu_.pcie_width != 0) gpu["pcie_width"] = gpu_.pcie_width;
    if (!gpu_.driver.empty()) gpu["driver"] = gpu_.driver;
    if (!gpu_.cuda.empty()) gpu["cuda"] = gpu_.cuda;
    env_["gpu"] = std::move(gpu);
    std::erase_if(warnings_, [](const std::string& text) { return text.starts_with("the PCIe link"); });
    if (gpu_.is_slowed())
        warn(fmt::format("the PCIe link of {} runs at gen {} x{}, it can do gen {} x{}", info.name, gpu_.pcie_gen,
                         gpu_.pcie_width, gpu_.most_gen, gpu_.most_width));
}

void Head::hugepages(const std::string& kind) {
    env_["hugepages"] = kind;
    if (kind == "off") warn("host memory is in no huge pages that are set aside (vm.nr_hugepages)");
}

void Head::warn(std::string text) {
    if (std::find(warnings_.begin(), warnings_.end(), text) == warnings_.end()) warnings_.push_back(std::move(text));
}

std::string Head::title(const std::string& name) const {
    std::string out = fmt::format("pegaflow bench {}  v{}", name, PEGAFLOW_VERSION);
    if (*kGitRevision != '\0') out += fmt::format(" (git {})", kGitRevision);
    if (gpu_.pcie_gen != 0) out += fmt::format("  PCIe gen{} x{}", gpu_.pcie_gen, gpu_.pcie_width);
    if (!gpu_.driver.empty()) out += "  driver " + gpu_.driver;
    if (!gpu_.cuda.empty()) out += "  CUDA " + gpu_.cuda;
    const auto* node = env_.if_contains("numa_node");
    if (node != nullptr && node->to_number<int>() >= 0) out += fmt::format("  NUMA {}", node->to_number<int>());
    const auto* pages = env_.if_contains("hugepages");
    if (pages != nullptr) out += fmt::format("  hugepages {}", std::string(pages->as_string()));
    return out;
}

void Head::print_warnings(std::ostream& out) const {
    for (const std::string& text : warnings_) out << "# warning: " << text << "\n";
}

boost::json::object Head::to_json() const {
    boost::json::object env = env_;
    env["warnings"] = boost::json::array(warnings_.begin(), warnings_.end());
    return {{"schema", "pegaflow.bench"},
            {"schema_version", 1},
            {"tool", boost::json::object{{"version", PEGAFLOW_VERSION}, {"git", kGitRevision}, {"build", kBuildType}}},
            {"command", boost::json::array(command_.begin(), command_.end())},
            {"start_time", start_time_},
            {"env", std::move(env)}};
}

void add_output_option(CLI::App& verb, const std::string& name, std::string& to, const std::string& what) {
    verb.add_option(name, to, what + " to a file, or to standard output without one")->expected(0, 1)->default_str("-");
}

Result<void> write_output(const std::string& to, const std::string& text, std::ostream& standard) {
    if (to.empty()) return {};
    if (to == "-") {
        standard << text;
    } else if (std::ofstream file(to); !(file << text).flush()) {
        return fail(Code::kInvalid, fmt::format("cannot write {}", to));
    }
    return {};
}

}  // namespace pegaflow::cli
