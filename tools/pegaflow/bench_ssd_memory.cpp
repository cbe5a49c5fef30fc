// SPDX-License-Identifier: Apache-2.0
// What kind of pages the buffers of a benchmark are in: a device handles one huge page sooner than hundreds of small ones, so
// that a ratio compares only where both sides have the same.
#include <fmt/format.h>

#include <fstream>
#include <istream>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {

bool in_huge_pages(std::istream& maps, std::uint64_t at, std::uint64_t length) {
    std::uint64_t huge = 0;
    std::uint64_t mapped = 0;  // of the piece
    bool within = false;
    for (std::string line; std::getline(maps, line);) {
        std::uint64_t begin = 0;
        std::uint64_t end = 0;
        char dash = 0;
        std::istringstream words(line);
        if (words >> std::hex >> begin >> dash >> end && dash == '-') {
            within = begin < at + length && at < end;
            mapped += within ? end - begin : 0;
            continue;
        }
        std::istringstream fields(line);
        std::string name;
        std::uint64_t kib = 0;
        if (!within || !(fields >> name >> kib)) continue;
        if (name == "AnonHugePages:" || name == "ShmemPmdMapped:" || name == "Private_Hugetlb:" || name == "Shared_Hugetlb:")
            huge += kib << 10;
    }
    return mapped != 0 && huge >= mapped / 2;
}

bool in_huge_pages(const void* at, std::uint64_t length) {
    std::ifstream maps("/proc/self/smaps");
    return in_huge_pages(maps, reinterpret_cast<std::uint64_t>(at), length);
}

std::uint64_t free_huge_bytes() {
    std::ifstream file("/proc/meminfo");
    std::uint64_t pages = 0;
    std::uint64_t kib = 0;
    for (std::string line; std::getline(file, line);) {
        std::istringstream fields(line);
        std::string name;
        std::uint64_t value = 0;
        if (!(fields >> name >> value)) continue;
        if (name == "HugePages_Free:") pages = value;
        if (name == "Hugepagesize:") kib = value;
    }
    return pages * (kib << 10);
}

Result<std::string> choose_fio_memory(const std::string& wanted, bool ours_huge, std::uint64_t buffer_bytes) {
    if (wanted == "plain" || (wanted.empty() && !ours_huge)) return std::string("plain");
    const std::uint64_t free = free_huge_bytes();
    if (free >= buffer_bytes) return std::string("huge");
    if (wanted.empty()) return std::string("plain");
    return fail(Code::kInvalid,
                fmt::format("--fio-memory huge: fio's buffers take {} of huge pages that are set aside, {} are free "
                            "(vm.nr_hugepages)",
                            format_size(buffer_bytes), format_size(free)));
}

}  // namespace pegaflow::cli::ssd
