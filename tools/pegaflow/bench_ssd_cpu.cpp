// SPDX-License-Identifier: Apache-2.0
// The processor time of a load: that of the process, and of the kernel's workers that hand requests to disks for it.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <ctime>
#include <filesystem>
#include <string>
#include <string_view>

#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {
namespace {

std::string first_bytes(const std::string& path) {
    char text[128];
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : ::read(fd, text, sizeof text);
    if (fd >= 0) ::close(fd);
    return {text, static_cast<std::size_t>(std::max<ssize_t>(0, got))};
}

}  // namespace

bool is_block_worker(std::string_view name) noexcept {
    if (!name.starts_with("kworker/")) return false;
    name.remove_prefix(name.find('/') + 1);
    const std::size_t end = name.find_first_not_of("0123456789:");
    return end != std::string_view::npos && name[end] == 'H' && end != 0;
}

double block_worker_seconds() {
    std::error_code error;
    double out = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
        const std::string& path = entry.path().native();
        if (std::isdigit(static_cast<unsigned char>(path.back())) == 0 || !is_block_worker(first_bytes(path + "/comm")))
            continue;
        const std::string text = first_bytes(path + "/schedstat");
        std::uint64_t nanoseconds = 0;
        std::from_chars(text.data(), text.data() + text.size(), nanoseconds);
        out += static_cast<double>(nanoseconds) / 1e9;
    }
    return out;
}

double CpuUse::others() {
    const auto used = [](clockid_t clock) {
        timespec now{};
        ::clock_gettime(clock, &now);
        return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
    };
    return used(CLOCK_PROCESS_CPUTIME_ID) - used(CLOCK_THREAD_CPUTIME_ID);
}

double CpuUse::seconds() const {
    const double used = others() - others_;
    return used + block_worker_seconds() - workers_;
}

}  // namespace pegaflow::cli::ssd
