// SPDX-License-Identifier: Apache-2.0
// doctor.hpp - what an examination found, and the examinations that have a file of their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace pegaflow::cli {

// Whatever is not "ok" comes with advice.
struct Finding {
    std::string level;  // ok, warn, fail
    std::string subject;
    std::string text;
    std::string advice;
};

// Where the kernel describes the machine: tests have their own.
struct Roots {
    std::filesystem::path sys = "/sys", proc = "/proc", dev = "/dev";
};

// What the server is to get.
struct PoolWish {
    std::uint64_t bytes = 0;
    bool hugepages = false;
};

// Limits of this process; null = none.
struct Limits {
    std::optional<std::uint64_t> locked_bytes;  // RLIMIT_MEMLOCK; null also for who may exceed it

    static Limits of_this_process();
};

// The first line of a file without the blanks at its end; "" when it cannot be read.
std::string line_of(const std::filesystem::path& path);
// The names in a directory, sorted.
std::vector<std::string> names_in(const std::filesystem::path& directory);

// Whether the pool fits into memory, the control group, and what may be locked; huge pages.
void check_memory(const Roots& roots, const PoolWish& pool, const Limits& limits, std::vector<Finding>& out);
// The nodes of the machine, and which GPUs, RDMA adapters and NVMe drives lie at each.
void check_numa(const Roots& roots, std::vector<Finding>& out);
// RDMA adapters: their ports, links and device files.
void check_rdma(const Roots& roots, std::vector<Finding>& out);
// NVIDIA GPUs on the bus, and their driver.
void check_nvidia(const Roots& roots, std::vector<Finding>& out);
// Disks that may hold a cache: kind, scheduler, poll queues, write cache, alignment, link.
void check_disks(const Roots& roots, std::vector<Finding>& out);

}  // namespace pegaflow::cli
