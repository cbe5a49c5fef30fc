// SPDX-License-Identifier: Apache-2.0
// Disks as the kernel describes them in /sys/block: what an SSD tier and the nvme back end should know about them.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/doctor.hpp"

namespace pegaflow::cli {
namespace {

namespace fs = std::filesystem;

std::uint64_t number_of(const fs::path& path) { return std::strtoull(line_of(path).c_str(), nullptr, 10); }

// The one in brackets: "[none] mq-deadline".
std::string scheduler_of(const fs::path& queue) {
    const std::string all = line_of(queue / "scheduler");
    const std::size_t begin = all.find('[');
    const std::size_t end = all.find(']');
    return begin == std::string::npos || end == std::string::npos ? all : all.substr(begin + 1, end - begin - 1);
}

bool is_physical(const std::string& name) {
    return !name.starts_with("loop") && !name.starts_with("ram") && !name.starts_with("zram") && !name.starts_with("sr") &&
           !name.starts_with("fd");
}

void check_link(const fs::path& disk, const std::string& name, std::vector<Finding>& out) {
    const fs::path pci = disk / "device" / "device";
    const std::string speed = line_of(pci / "current_link_speed");
    const std::string width = line_of(pci / "current_link_width");
    const std::string best_speed = line_of(pci / "max_link_speed");
    const std::string best_width = line_of(pci / "max_link_width");
    if (speed.empty() || (speed == best_speed && width == best_width)) return;
    out.push_back({"warn", name, fmt::format("its link runs at {} x{}, of {} x{}", speed, width, best_speed, best_width),
                   "another slot or cable; the drive cannot be faster than its link"});
}

void check_disk(const fs::path& disk, std::vector<Finding>& out) {
    const std::string name = disk.filename().string();
    const fs::path queue = disk / "queue";
    const std::string model = line_of(disk / "device" / "model");
    const std::string scheduler = scheduler_of(queue);
    const bool volatile_cache = line_of(queue / "write_cache") == "write back";
    out.push_back({"ok", name,
                   fmt::format("{}{}; blocks of {} (physical {}), requests up to {} KiB, scheduler {}, {} write cache, {}",
                               format_size(number_of(disk / "size") * 512), model.empty() ? "" : " " + model,
                               number_of(queue / "logical_block_size"), number_of(queue / "physical_block_size"),
                               number_of(queue / "max_sectors_kb"), scheduler.empty() ? "none" : scheduler,
                               volatile_cache ? "volatile" : "no volatile",
                               number_of(queue / "io_poll") != 0 ? "poll queues" : "no poll queues"),
                   ""});
    if (number_of(queue / "rotational") != 0)
        out.push_back({"warn", name, "says that it rotates", "an SSD tier needs an SSD; virtual disks may say so wrongly"});
    if (!scheduler.empty() && scheduler != "none")
        out.push_back({"warn", name, fmt::format("the scheduler {} costs processor time for each request", scheduler),
                       fmt::format("echo none > /sys/block/{}/queue/scheduler", name)});
    if (number_of(queue / "logical_block_size") < 4096 && number_of(queue / "physical_block_size") >= 4096)
        out.push_back({"ok", name, "takes 512 bytes, works in 4096: writes that are not multiples of 4096 are read first",
                       "keep block sizes multiples of 4096"});
    if (volatile_cache)
        out.push_back({"ok", name, "written bytes are safe from a loss of power after a flush only",
                       "durable transfers flush or write through; a drive with power loss protection makes that cheap"});
    check_link(disk, name, out);
}

}  // namespace

void check_disks(const Roots& roots, std::vector<Finding>& out) {
    std::vector<fs::path> disks;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(roots.sys / "block", error)) {
        if (is_physical(entry.path().filename().string()) && number_of(entry.path() / "size") != 0)
            disks.push_back(entry.path());
    }
    std::sort(disks.begin(), disks.end());
    for (const fs::path& disk : disks) check_disk(disk, out);
    if (disks.empty()) out.push_back({"ok", "disks", "none are visible here", ""});
}

}  // namespace pegaflow::cli
