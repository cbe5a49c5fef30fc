// SPDX-License-Identifier: Apache-2.0
// pegaflow doctor: what this machine has, what is missing, what the links reach, and what to do about it.
#include <fmt/format.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "pegaflow/bytes.hpp"
#include "pegaflow/transfer.hpp"
#include "server/config.hpp"
#include "tools/pegaflow/doctor.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kPeakBytes = std::uint64_t{256} << 20;
constexpr int kPeakRounds = 5;

void check_shared_memory(std::vector<Finding>& out) {
    std::error_code error;
    const auto space = fs::space("/dev/shm", error);
    if (error || space.available < (std::uint64_t{64} << 20)) {
        out.push_back({"fail", "/dev/shm", error ? "is not there" : "is nearly full",
                       "load states and shared memory live there: mount a tmpfs of some GiB"});
    } else {
        out.push_back({"ok", "/dev/shm", fmt::format("{} available", format_size(space.available)), ""});
    }
}

void check_io(std::vector<Finding>& out) {
    io_uring_params params{};
    const long ring = ::syscall(SYS_io_uring_setup, 4, &params);
    if (ring >= 0) {
        ::close(static_cast<int>(ring));
        out.push_back({"ok", "io_uring", "available", ""});
    } else {
        out.push_back({"warn", "io_uring", std::string("refused: ") + std::strerror(errno),
                       "check kernel.io_uring_disabled and the container's seccomp profile"});
    }
}

// GB/s of one large copy, the best that the device's link does; median of some rounds.
Result<double> link_peak(Device& device, bool read) {
    PEGA_ASSIGN(Region local, device.allocate(device.info().kind, kPeakBytes));
    PEGA_ASSIGN(Region remote, device.allocate(PEGA_MEMORY_HOST, kPeakBytes));
    PEGA_ASSIGN(Channel channel, device.open_channel());
    std::vector<double> rates;
    Transfer transfer;
    for (int i = 0; i < kPeakRounds + 1; ++i) {
        transfer.clear().flat(local, remote).range(0, 0, kPeakBytes);
        if (read) transfer.read();
        const auto start = std::chrono::steady_clock::now();
        PEGA_ASSIGN(const Completion completion, channel.submit_wait(transfer));
        PEGA_TRY(completion.wait());
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        if (i > 0) rates.push_back(static_cast<double>(kPeakBytes) / seconds.count() / 1e9);
    }
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() / 2];
}

// Opens every device, because a link is measured by using it. The peak of one large copy needs no table of small ones.
void check_devices(const std::vector<std::string>& search_path, std::vector<Finding>& out) {
    FabricOptions options{.search_path = search_path};
    options.options["cuda"]["calibrate"] = "off";
    auto fabric = Fabric::open(options);
    if (!fabric) {
        out.push_back({"fail", "modules", fabric.error().message,
                       "`pegaflow plugins` shows which files are found; set PEGAFLOW_PLUGIN_PATH to their directory"});
        return;
    }
    for (const ModuleReport& module : (*fabric)->modules()) {
        if (!module.problem.empty())
            out.push_back({"warn", "module " + module.name, module.problem, "`pegaflow plugins` shows more"});
    }
    if ((*fabric)->devices().empty())
        out.push_back(
            {"fail", "devices", "no back end can be used", "set PEGAFLOW_PLUGIN_PATH to the directory of the back ends"});
    for (const DeviceInfo& info : (*fabric)->devices()) {
        const auto device = (*fabric)->device(info.name);
        if (!device) {
            out.push_back({"fail", info.name, device.error().message,
                           "`pegaflow plugins` shows its back end; dmesg shows what the driver thinks of it"});
            continue;
        }
        if (info.kind == PEGA_MEMORY_FILE) {
            out.push_back({"ok", info.name, info.text + "; `pegaflow bench ssd` measures it", ""});
            continue;
        }
        const auto write = link_peak(**device, false);
        const auto read = link_peak(**device, true);
        if (!write || !read) {
            out.push_back({"fail", info.name, (write ? read : write).error().message,
                           fmt::format("a copy of {} failed: free that much memory there, then look into dmesg",
                                       format_size(kPeakBytes))});
            continue;
        }
        out.push_back(
            {"ok", info.name,
             fmt::format("{}; one large copy: {:.1f} GB/s from the device, {:.1f} GB/s to it", info.text, *write, *read), ""});
    }
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
    struct Arguments {
        bool json = false;
        bool quick = false;
        bool calibrate = false;
        std::string config_file;
        std::vector<std::string> search_path, ssd;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb =
        *app.add_subcommand("doctor", "Examine this machine: devices, limits, problems, link peaks, and what to do");
    verb.add_option("--config,-c", arguments->config_file, "The server's TOML file: the pool that is to fit this machine");
    verb.add_flag("--json", arguments->json, "Print JSON");
    verb.add_option("--search-path", arguments->search_path, "Further directories with back ends");
    verb.add_option("--ssd", arguments->ssd, "Check caches on SSD instead: directories, container files or block devices");
    verb.add_flag("--calibrate", arguments->calibrate,
                  "Measure the ways to copy of every GPU anew and show them as a table and a plot");
    verb.add_flag("--quick", arguments->quick, "With --ssd: tables only, no pages");
    verb.callback([arguments, &context] {
        if (!arguments->ssd.empty()) return doctor_ssd(arguments->ssd, !arguments->quick, arguments->json, context);
        if (arguments->calibrate) return doctor_calibrate(arguments->search_path, arguments->json, context);
        server::Config config;
        if (!arguments->config_file.empty()) {
            if (const auto read = server::read_config(arguments->config_file, config); !read) return context.fail(read.error());
        }
        std::vector<Finding> findings;
        const Roots roots;
        check_memory(roots, {config.engine.pool_bytes, config.engine.hugepages}, Limits::of_this_process(), findings);
        check_shared_memory(findings);
        check_numa(roots, findings);
        check_io(findings);
        check_rdma(roots, findings);
        check_nvidia(roots, findings);
        check_disks(roots, findings);
        check_devices(arguments->search_path, findings);
        boost::json::array list;
        for (const Finding& f : findings) {
            list.push_back(
                boost::json::object{{"level", f.level}, {"subject", f.subject}, {"text", f.text}, {"advice", f.advice}});
            if (!arguments->json) {
                context.out << fmt::format("{:<5} {:<16} {}\n", f.level, f.subject, f.text);
                if (!f.advice.empty()) context.out << fmt::format("{:<22} -> {}\n", "", f.advice);
            }
            if (f.level == "fail") context.exit = kUsage;
        }
        if (arguments->json)
            context.out << boost::json::serialize(
                               boost::json::object{{"schema", "pegaflow.doctor"}, {"findings", std::move(list)}})
                        << "\n";
    });
}

}  // namespace pegaflow::cli
