// SPDX-License-Identifier: Apache-2.0
#include "base/numa.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

namespace pegaflow::base {
namespace {

constexpr int kMaxNodes = 1024;
constexpr int kMpolPreferred = 1;  // linux/mempolicy.h

// "0-3,8" as a list of numbers.
std::vector<int> parse_list(const std::string& text) {
    std::vector<int> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        int first = 0;
        int last = 0;
        const int fields = std::sscanf(part.c_str(), "%d-%d", &first, &last);
        if (fields < 1) continue;
        for (int i = first; i <= (fields == 2 ? last : first); ++i) out.push_back(i);
    }
    return out;
}

std::string read_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

}  // namespace

std::vector<NumaNode> numa_nodes() {
    std::vector<NumaNode> nodes;
    for (const int id : parse_list(read_line("/sys/devices/system/node/online"))) {
        NumaNode node{id, parse_list(read_line("/sys/devices/system/node/node" + std::to_string(id) + "/cpulist"))};
        if (!node.cpus.empty()) nodes.push_back(std::move(node));
    }
    if (nodes.empty()) {
        NumaNode all{0, {}};
        for (int i = 0; i < static_cast<int>(std::max(1U, std::thread::hardware_concurrency())); ++i) all.cpus.push_back(i);
        nodes.push_back(std::move(all));
    }
    return nodes;
}

bool bind_thread_to_node(int node) noexcept {
    try {
        for (const NumaNode& candidate : numa_nodes()) {
            if (candidate.id != node) continue;
            cpu_set_t set;
            CPU_ZERO(&set);
            for (const int cpu : candidate.cpus) {
                if (cpu < CPU_SETSIZE) CPU_SET(static_cast<unsigned>(cpu), &set);
            }
            return ::sched_setaffinity(0, sizeof set, &set) == 0;
        }
    } catch (...) {
        return false;
    }
    return false;
}

bool prefer_node(void* address, std::size_t length, int node) noexcept {
    if (node < 0 || node >= kMaxNodes) return false;
    unsigned long mask[kMaxNodes / (8 * sizeof(unsigned long))] = {};
    mask[static_cast<std::size_t>(node) / (8 * sizeof(unsigned long))] |=
        1UL << (static_cast<unsigned>(node) % (8 * sizeof(unsigned long)));
    return ::syscall(SYS_mbind, address, length, kMpolPreferred, mask, kMaxNodes, 0) == 0;
}

}  // namespace pegaflow::base
