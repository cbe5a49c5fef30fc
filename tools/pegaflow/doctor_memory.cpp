// SPDX-License-Identifier: Apache-2.0
// Memory: can the pool be had and pinned, and what makes it faster.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/doctor.hpp"

namespace pegaflow::cli {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kMayLock = 14;                             // CAP_IPC_LOCK
constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 60;  // what is larger stands for no limit in a control group

// Of a file with lines "key: value"; 0 when there is none.
std::uint64_t value_of(const fs::path& path, std::string_view key, int base = 10) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with(key)) continue;
        return std::strtoull(line.c_str() + line.find_first_of(" \t:", key.size()) + 1, nullptr, base);
    }
    return 0;
}

std::optional<std::uint64_t> number_in(const fs::path& path) {
    const std::string line = line_of(path);
    if (line.empty() || line.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;  // "max" as well
    return std::strtoull(line.c_str(), nullptr, 10);
}

struct GroupLimit {
    fs::path file;
    std::uint64_t limit = 0;
    std::uint64_t room = 0;  // the file cache gives way
};

// The names of one version of control groups.
struct GroupFiles {
    const char *limit, *used, *cache;
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

// The tightest limit of a group and those above it. What lies outside a container's view is not there.
std::optional<GroupLimit> tightest(const fs::path& mount, fs::path group, const GroupFiles& files) {
    std::optional<GroupLimit> found;
    for (group = group.relative_path();; group = group.parent_path()) {
        const fs::path at = mount / group;
        if (const auto limit = number_in(at / files.limit); limit && *limit < kUnlimited) {
            const std::uint64_t used = number_in(at / files.used).value_or(0);
            const std::uint64_t held = used - std::min(used, value_of(at / "memory.stat", files.cache));
            const std::uint64_t room = *limit - std::min(*limit, held);
            if (!found || room < found->room) found = GroupLimit{at / files.limit, *limit, room};
        }
        if (group.empty()) return found;
    }
}

std::optional<GroupLimit> group_limit(const Roots& roots) {
    std::ifstream file(roots.proc / "self" / "cgroup");
    const fs::path mount = roots.sys / "fs" / "cgroup";
    std::optional<GroupLimit> found;
    for (std::string line; std::getline(file, line);) {  // "4:memory:/group" or "0::/group"
        const std::size_t first = line.find(':');
        const std::size_t second = line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const fs::path group = line.substr(second + 1);
        std::optional<GroupLimit> limit;
        if (controllers.empty()) limit = tightest(mount, group, kVersion2);
        if (("," + controllers + ",").find(",memory,") != std::string::npos)
            limit = tightest(mount / "memory", group, kVersion1);
        if (limit && (!found || limit->room < found->room)) found = limit;
    }
    return found;
}

void check_pool(const Roots& roots, const PoolWish& pool, std::vector<Finding>& out) {
    const std::string wish = fmt::format("pool.size {}", format_size(pool.bytes));
    if (pool.hugepages) {
        const std::uint64_t free =
            value_of(roots.proc / "meminfo", "HugePages_Free:") * value_of(roots.proc / "meminfo", "Hugepagesize:") * 1024;
        if (pool.bytes <= free) return out.push_back({"ok", "pool", wish + " fits the free huge pages", ""});
        return out.push_back({"fail", "pool", fmt::format("{}, but the free huge pages have {}", wish, format_size(free)),
                              "raise vm.nr_hugepages, lower pool.size, or set pool.hugepages = false"});
    }
    const std::uint64_t available = value_of(roots.proc / "meminfo", "MemAvailable:") * 1024;
    if (pool.bytes > available) {
        return out.push_back({"fail", "pool", fmt::format("{}, but {} of memory are available", wish, format_size(available)),
                              "lower pool.size, or end what uses the memory: pinned pages cannot be swapped out"});
    }
    const auto group = group_limit(roots);
    if (group && pool.bytes > group->room) {
        return out.push_back({"fail", "pool",
                              fmt::format("{}, but the control group leaves {} of its {} ({})", wish, format_size(group->room),
                                          format_size(group->limit), group->file.string()),
                              "raise the container's memory limit above pool.size and some GiB, or lower pool.size"});
    }
    out.push_back({"ok", "pool",
                   fmt::format("{} fits: {} available, {}", wish, format_size(available),
                               group ? "the control group leaves " + format_size(group->room) : "no limit of a control group"),
                   ""});
}

void check_locked(const PoolWish& pool, const Limits& limits, std::vector<Finding>& out) {
    if (!limits.locked_bytes) return out.push_back({"ok", "locked memory", "no limit", ""});
    const std::uint64_t limit = *limits.locked_bytes;
    if (limit >= pool.bytes)
        return out.push_back({"ok", "locked memory", fmt::format("limited to {}, the pool fits", format_size(limit)), ""});
    out.push_back({"warn", "locked memory",
                   fmt::format("limited to {}: a pool of {} cannot be registered for RDMA or io_uring", format_size(limit),
                               format_size(pool.bytes)),
                   "set `ulimit -l unlimited`, LimitMEMLOCK=infinity in the unit, or --ulimit memlock=-1 of the container"});
}

void check_huge_pages(const Roots& roots, std::vector<Finding>& out) {
    const fs::path meminfo = roots.proc / "meminfo";
    const std::uint64_t total = value_of(meminfo, "HugePages_Total:");
    if (total == 0) {
        out.push_back({"warn", "huge pages", "none are set aside",
                       "sysctl vm.nr_hugepages=N, then pool.hugepages = true: faster start, fewer translation misses"});
    } else {
        out.push_back({"ok", "huge pages",
                       fmt::format("{} of {} free, {} KiB each", value_of(meminfo, "HugePages_Free:"), total,
                                   value_of(meminfo, "Hugepagesize:")),
                       ""});
    }
    const std::string mode = line_of(roots.sys / "kernel" / "mm" / "transparent_hugepage" / "enabled");
    if (mode.empty() || mode.find("[never]") != std::string::npos) {
        out.push_back({"warn", "transparent huge pages", "none for programs that ask",
                       "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: the index and the pool ask for them"});
    } else {
        out.push_back({"ok", "transparent huge pages", mode, ""});
    }
}

}  // namespace

Limits Limits::of_this_process() {
    rlimit limit{};
    const bool limited = ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    const bool may_exceed = (value_of("/proc/self/status", "CapEff:", 16) >> kMayLock & 1) != 0;
    if (!limited || may_exceed) return {};
    return {std::uint64_t{limit.rlim_cur}};
}

void check_memory(const Roots& roots, const PoolWish& pool, const Limits& limits, std::vector<Finding>& out) {
    check_pool(roots, pool, out);
    check_locked(pool, limits, out);
    check_huge_pages(roots, out);
}

}  // namespace pegaflow::cli
