// SPDX-License-Identifier: Apache-2.0
// cuda_soak - random transfers between GPUs, host and other processes for a while, with cancels, closing channels and killed
// peers; every byte is looked at, and nothing may be left at the end.
//
//   cuda_soak [--seconds N] [--seed S] [--devices cuda:0,cuda:1] [--threads N] [--json]
//
// --threads is per GPU. Each thread's choices follow from the seed, its number and its iteration, which a failure names. The
// summary goes to standard error; with --json also, as JSON, to standard output. Exit 0 when all is right, 1 when not, 2 when
// the arguments are wrong, 77 when there is no GPU. PEGAFLOW_LIBCUDA names a driver other than the system's.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <thread>

#include "tests/torture/cuda_soak/leaks.hpp"
#include "tests/torture/cuda_soak/memory.hpp"
#include "tests/torture/cuda_soak/peers.hpp"

namespace pegaflow::soak {
namespace {

constexpr int kWrong = 1, kUsage = 2, kSkipped = 77;
constexpr std::chrono::seconds kHangs{90};

struct Arguments {
    double seconds = 20;
    std::uint64_t seed = 1;
    std::uint64_t threads = std::thread::hardware_concurrency() >= 8 ? 4 : 2;
    std::vector<std::string> devices;
    bool json = false;
};

bool parse(const std::vector<std::string>& words, Arguments& out) {
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i] == "--json") {
            out.json = true;
            continue;
        }
        if (i + 1 == words.size()) return false;
        const std::string& value = words[i + 1];
        if (words[i] == "--seconds") {
            out.seconds = std::atof(value.c_str());
        } else if (words[i] == "--seed") {
            out.seed = std::strtoull(value.c_str(), nullptr, 10);
        } else if (words[i] == "--threads") {
            out.threads = std::strtoull(value.c_str(), nullptr, 10);
        } else if (words[i] == "--devices") {
            std::istringstream names(value);
            for (std::string name; std::getline(names, name, ',');) out.devices.push_back(name);
        } else {
            return false;
        }
        ++i;
    }
    return out.seconds > 0 && out.devices.size() <= 2;
}

// The devices asked for, or the first two. Empty, with the reason, where there are none.
std::vector<std::string> find_devices(const Arguments& arguments, std::string& why) {
    FabricOptions options;
    options.backends = {"cuda"};
    const auto fabric = Fabric::open(options);
    if (!fabric) return why = fabric.error().message, std::vector<std::string>{};
    std::vector<std::string> present;
    for (const DeviceInfo& info : (*fabric)->devices()) {
        if (info.backend == "cuda") present.push_back(info.name);
    }
    if (arguments.devices.empty()) {
        present.resize(std::min<std::size_t>(present.size(), 2));
        return present;
    }
    for (const std::string& name : arguments.devices) {
        if (std::find(present.begin(), present.end(), name) == present.end())
            return why = "there is no " + name, std::vector<std::string>{};
    }
    return arguments.devices;
}

void run_one(std::uint64_t id, const char* name, Report& report, Watch& watch, const Arguments& arguments,
             const std::map<std::string, const HeldGpu*>& gpus, double seconds) {
    Phase phase;
    phase.id = id;
    phase.name = name;
    phase.report = &report;
    phase.watch = &watch;
    phase.gpus = gpus;
    for (const auto& [device, gpu] : gpus) phase.devices.push_back(device);
    run_phase(phase, arguments.threads, std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)));
}

int soak(const Arguments& arguments) {
    std::string why;
    const std::vector<std::string> devices = find_devices(arguments, why);
    Report report(arguments.seed, arguments.json);
    std::map<std::string, std::unique_ptr<HeldGpu>> held;
    std::map<std::string, const HeldGpu*> gpus;
    for (const std::string& device : devices) {
        auto gpu = HeldGpu::open(device);
        if (gpu == nullptr) continue;
        report.gpus.push_back({device, gpu->name()});
        report.driver = gpu->driver_version();
        gpus[device] = gpu.get();
        held[device] = std::move(gpu);
    }
    if (gpus.empty() && why.starts_with("there is no cuda:")) {
        std::cerr << "cuda_soak: " << why << "\n";
        return kUsage;
    }
    if (gpus.empty()) {
        report.skip("everything: there is no GPU that the cuda back end can use: " + why);
        if (arguments.json) std::cout << "{\"result\":\"skipped\"}" << std::endl;
        return kSkipped;
    }
    if (gpus.size() < 2) report.skip("transfers between two GPUs: one is used");
    make_noise(kLargest);
    const bool fake = report.gpus.front().name == "Fake GPU";
    {
        Watch watch(report, kHangs);
        // What drivers and allocators set up on first use is there when it has ended.
        const double warm_up = std::clamp(arguments.seconds / 4, 1.0, 5.0);
        run_one(1, "warm-up", report, watch, arguments, gpus, warm_up);
        const Resources before = Resources::count(gpus);
        run_one(2, "main", report, watch, arguments, gpus, std::max(arguments.seconds - warm_up, 1.0));
        check_leaks(before, gpus, fake, report);
    }
    return report.finish() ? 0 : kWrong;
}

int run(const std::vector<std::string>& words) {
    if (words.size() == 5 && words[0] == "--child") {
        return run_child(words[1], words[2], std::strtoull(words[3].c_str(), nullptr, 10),
                         static_cast<std::uint32_t>(std::strtoul(words[4].c_str(), nullptr, 10)));
    }
    Arguments arguments;
    if (parse(words, arguments)) return soak(arguments);
    std::cerr << "usage: cuda_soak [--seconds N] [--seed S] [--devices cuda:0,cuda:1] [--threads N] [--json]\n";
    return kUsage;
}

}  // namespace
}  // namespace pegaflow::soak

int main(int argc, char** argv) { return pegaflow::soak::run({argv + 1, argv + argc}); }
