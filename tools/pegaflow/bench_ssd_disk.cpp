// SPDX-License-Identifier: Apache-2.0
// What a path stands on: file system, disk, queue, and what about them makes numbers look better or worse than they are.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>

#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {
namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    while (!line.empty() && line.back() == ' ') line.pop_back();
    return line;
}

// /sys/block/<disk> of a device number, also when that is of a partition; empty when there is none.
fs::path disk_of(dev_t device) {
    std::error_code error;
    fs::path path = fs::canonical(fmt::format("/sys/dev/block/{}:{}", major(device), minor(device)), error);
    if (error) return {};
    if (!fs::exists(path / "queue", error)) path = path.parent_path();
    return fs::exists(path / "queue", error) ? path : fs::path();
}

const char* file_system(long type) {
    switch (type) {
        case 0xEF53:
            return "ext4";
        case 0x58465342:
            return "xfs";
        case 0x9123683E:
            return "btrfs";
        case 0x01021994:
            return "tmpfs";
        case 0x794C7630:
            return "overlayfs";
        default:
            return "";
    }
}

}  // namespace

boost::json::object describe(const std::string& path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) return {{"path", path}};
    const bool block = S_ISBLK(info.st_mode);
    boost::json::object out = {{"path", path}};
    struct statfs system{};
    if (!block && ::statfs(path.c_str(), &system) == 0) {
        const char* name = file_system(static_cast<long>(system.f_type));
        out["file_system"] = *name != '\0' ? std::string(name) : fmt::format("{:#x}", system.f_type);
    }
    const fs::path disk = disk_of(block ? info.st_rdev : info.st_dev);
    if (disk.empty()) return out;
    out["disk"] = disk.filename().string();
    for (const char* attribute : {"scheduler", "write_cache", "rotational", "logical_block_size", "physical_block_size",
                                  "max_sectors_kb", "nr_requests", "io_poll"}) {
        out[attribute] = first_line(disk / "queue" / attribute);
    }
    for (const char* attribute :
         {"model", "firmware_rev", "numa_node", "device/current_link_speed", "device/current_link_width"}) {
        const std::string text = first_line(disk / "device" / attribute);
        if (!text.empty()) out[fs::path(attribute).filename().string()] = text;
    }
    return out;
}

}  // namespace pegaflow::cli::ssd
