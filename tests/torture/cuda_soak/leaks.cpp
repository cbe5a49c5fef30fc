// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/leaks.hpp"

#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace pegaflow::soak {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);  // for contexts of killed processes, and threads that end
constexpr std::uint64_t kGpuSlack = 64U << 20;        // what a driver keeps for itself
constexpr std::uint64_t kResidentSlack = 256U << 20;
// A driver opens descriptors and starts threads of its own when it likes; what leaks, leaks at each of hundreds of sessions.
constexpr std::uint64_t kDescriptorSlack = 8, kThreadSlack = 4;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kResidentCounts = false;  // sanitizers keep what was freed
#else
constexpr bool kResidentCounts = true;
#endif

std::uint64_t entries(const char* directory) {
    const std::filesystem::directory_iterator all(directory);
    return static_cast<std::uint64_t>(std::distance(begin(all), end(all)));
}

std::string in_mib(std::uint64_t bytes) { return fmt::format("{} MiB", bytes >> 20); }

std::vector<std::string> differences(const Resources& before, const Resources& now, bool fake) {
    std::vector<std::string> out;
    if (now.descriptors > before.descriptors + (fake ? 0 : kDescriptorSlack))
        out.push_back(fmt::format("{} descriptors are open, {} before", now.descriptors, before.descriptors));
    if (now.threads > before.threads + (fake ? 0 : kThreadSlack))
        out.push_back(fmt::format("{} threads run, {} before", now.threads, before.threads));
    for (const auto& [device, used] : now.gpu_used) {
        const auto first = before.gpu_used.find(device);
        if (first != before.gpu_used.end() && used > first->second + (fake ? 0 : kGpuSlack))
            out.push_back(fmt::format("{}: {} are in use, {} before", device, in_mib(used), in_mib(first->second)));
    }
    for (const std::string& object : now.objects) out.push_back("/dev/shm/" + object + " is left");
    if (kResidentCounts && now.resident > before.resident + before.resident / 4 + kResidentSlack)
        out.push_back(fmt::format("{} are resident, {} before", in_mib(now.resident), in_mib(before.resident)));
    return out;
}

std::string open_descriptors() {
    std::map<std::string, int> targets;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        ++targets[target.substr(0, target.find(':'))];
    }
    std::string out;
    for (const auto& [target, count] : targets) out += fmt::format("{}{} x {}", out.empty() ? "" : ", ", count, target);
    return out;
}

}  // namespace

Resources Resources::count(const std::map<std::string, const HeldGpu*>& gpus) {
    Resources out;
    ::malloc_trim(0);
    out.descriptors = entries("/proc/self/fd");
    out.threads = entries("/proc/self/task");
    std::uint64_t ignored = 0;
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> ignored >> pages;
    out.resident = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    for (const auto& [device, gpu] : gpus) {
        if (const auto used = gpu->used_bytes()) out.gpu_used[device] = *used;
    }
    // Others run tests here too: of the objects, ours bear the process's number.
    const std::string own = "_" + std::to_string(::getpid()) + "_";
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with("pega") && name.find(own) != std::string::npos) out.objects.push_back(name);
    }
    return out;
}

void check_leaks(const Resources& before, const std::map<std::string, const HeldGpu*>& gpus, bool fake, Report& report) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    Resources now = Resources::count(gpus);
    std::vector<std::string> found = differences(before, now, fake);
    while (!found.empty() && std::chrono::steady_clock::now() < limit) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        now = Resources::count(gpus);
        found = differences(before, now, fake);
    }
    report.resources = fmt::format("descriptors {} to {}, threads {} to {}, resident {} to {}", before.descriptors,
                                   now.descriptors, before.threads, now.threads, in_mib(before.resident), in_mib(now.resident));
    for (const auto& [device, used] : now.gpu_used)
        report.resources += fmt::format(", {} {} to {}", device, in_mib(before.gpu_used.at(device)), in_mib(used));
    if (now.gpu_used.empty()) report.skip("the check of GPU memory in use: the driver does not tell it");
    report.leaks = found.size();
    for (const std::string& leak : found) report.fail({"after everything was closed", 0}, leak);
    if (now.descriptors > before.descriptors) report.resources += "; open: " + open_descriptors();
}

}  // namespace pegaflow::soak
