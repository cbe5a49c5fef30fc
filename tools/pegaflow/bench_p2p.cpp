// SPDX-License-Identifier: Apache-2.0
// pegaflow bench p2p: scattered fragments between a device's memory and that of another process, which owns another device of
// this host (GPU to GPU), against the peak of large copies by the copy engine that is measured in the same run. Every point is
// verified outside the timed part: the bytes on both sides, and that the other process sees the same.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "base/crc32c.hpp"
#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/transfer/arguments.hpp"
#include "tools/pegaflow/transfer/peer.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint32_t kPeakOutstanding = 2;

struct PeerArguments : Arguments {
    PeerArguments() {
        sizes = "4K,8K,16K,32K,64K,128K,256K,512K,1M";
        total = "128M";
        plan.iterations = 40;
    }
    std::vector<std::string> modes = {"write", "read"};
    std::string peak_bytes = "256M";
};

// This process's device and the other's.
struct Ends {
    std::string here, there;
};

// Those asked for ("A,B", or "A" for both), else the first two GPUs, else one device for both. kNotFound.
Result<Ends> choose_ends(const FabricOptions& options, const std::string& asked, Report& report) {
    PEGA_ASSIGN(const auto fabric, Fabric::open(options));
    std::vector<DeviceInfo> chosen;
    if (!asked.empty()) {
        PEGA_ASSIGN(const auto names, split(asked));
        for (const std::string& name : names) {
            const auto found = std::ranges::find(fabric->devices(), name, &DeviceInfo::name);
            if (found == fabric->devices().end())
                return fail(Code::kNotFound, fmt::format("device {} is not here; `pegaflow plugins` says what is", name));
            chosen.push_back(*found);
        }
    } else {
        std::ranges::copy_if(fabric->devices(), std::back_inserter(chosen), [&](const DeviceInfo& device) {
            return device.kind == PEGA_MEMORY_GPU && (chosen.empty() || device.backend == chosen.front().backend);
        });
        if (chosen.empty() && !fabric->devices().empty()) chosen.push_back(fabric->devices().front());
    }
    if (chosen.empty()) return fail(Code::kNotFound, "there is no device; `pegaflow plugins` says why");
    if (!asked.empty() && chosen.size() > 2) return fail(Code::kInvalid, "--device takes two devices, A,B");
    const DeviceInfo& there = chosen.size() > 1 ? chosen[1] : chosen[0];
    if (chosen[0].backend != there.backend)
        return fail(Code::kInvalid, fmt::format("{} and {} are of different back ends, which do not reach each other",
                                                chosen[0].name, there.name));
    report.device = chosen[0];
    report.peer = there.name + " (" + there.text + ")";
    return Ends{chosen[0].name, there.name};
}

class Bench {
public:
    Bench(const PeerArguments& arguments, Context& context)
        : arguments_(arguments), report_(context), printer_(arguments, report_, context), context_(context) {}

    Result<void> run() {
        if (arguments_.list) return print_choices(arguments_, context_.out);
        PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments_.total));
        PEGA_ASSIGN(const FabricOptions plain, fabric_options(arguments_, "", ""));
        PEGA_ASSIGN(ends_, choose_ends(plain, arguments_.device, report_));
        PEGA_TRY(check(arguments_, report_.device));
        PEGA_ASSIGN(const auto list, shapes(arguments_));
        memory_ = needs(arguments_.plan, list);
        PEGA_ASSIGN(const std::uint64_t peak_bytes, parse_size(arguments_.peak_bytes));
        peak_bytes_ = std::max(total, peak_bytes);
        report_.layout = arguments_.layout;
        report_.verify = arguments_.plan.verify;
        report_.head.device(report_.device);
        PEGA_ASSIGN(peer_, start_peer(std::max(memory_.host_bytes, kPeakOutstanding * peak_bytes_)));
        for (const std::string& mode : arguments_.modes) {
            report_.path = "p2p-" + mode;
            const bool reads = mode == "read";
            PEGA_TRY(measure_peak(reads));
            printer_.begin();
            std::vector<Sides> sides;
            for (const std::string& path : arguments_.paths) {
                PEGA_ASSIGN(Sides opened, open(path, memory_.device_bytes, memory_.host_bytes));
                sides.push_back(std::move(opened));
            }
            PEGA_TRY(measure_points(arguments_, sides, list, reads, printer_));
        }
        return printer_.end();
    }

private:
    Result<std::unique_ptr<PeerProcess>> start_peer(std::uint64_t bytes) {
        std::vector<std::string> words = {"bench", "p2p-peer", "--device", ends_.there, "--bytes", std::to_string(bytes)};
        for (const std::string& option : arguments_.options) words.insert(words.end(), {"--option", option});
        for (const std::string& folder : arguments_.search_path) words.insert(words.end(), {"--search-path", folder});
        return PeerProcess::start(words);
    }
    Result<Sides> open(const std::string& path, std::uint64_t bytes, std::uint64_t remote_bytes) {
        PEGA_ASSIGN(const FabricOptions options, peer_options(arguments_, ends_.here, path));
        PEGA_ASSIGN(Sides sides,
                    Sides::make_peer(options, ends_.here, bytes, {peer_->address(), peer_->descriptor(), remote_bytes}));
        sides.witness([peer = peer_.get()](std::span<const std::byte> image) -> Result<bool> {
            PEGA_ASSIGN(const std::uint32_t theirs, peer->digest(image.size()));
            return theirs == base::crc32c(image.data(), image.size());
        });
        return sides;
    }
    Result<void> measure_peak(bool reads) {
        const bool gpu = report_.device.kind == PEGA_MEMORY_GPU;
        const std::uint64_t bytes = kPeakOutstanding * peak_bytes_;
        PEGA_ASSIGN(Sides sides, open(gpu ? "loop" : "", bytes, bytes));
        PEGA_TRY(sides.prepare(reads, 1));
        Plan plan = peak_plan(arguments_.plan, peak_bytes_);
        plan.outstanding = kPeakOutstanding;
        plan.to_device = reads;
        PEGA_ASSIGN(const Point peak, measure(sides, plan));
        report_.peak = peak_of(peak);
        return {};
    }

public:
    // Copies between GPUs are not chosen by the measured table: a GPU is not calibrated for this.
    static Result<FabricOptions> peer_options(const Arguments& arguments, const std::string& device, const std::string& path) {
        PEGA_ASSIGN(FabricOptions out, fabric_options(arguments, device, path));
        const std::string backend = device.substr(0, device.find(':'));
        if (backend == "cuda") out.options[backend].emplace("calibrate", "off");
        return out;
    }

private:
    const PeerArguments& arguments_;
    Report report_;
    Printer printer_;
    Context& context_;
    Ends ends_;
    Needs memory_;
    std::uint64_t peak_bytes_ = 0;
    std::unique_ptr<PeerProcess> peer_;
};

Result<void> serve(const Arguments& arguments) {
    PEGA_ASSIGN(const std::uint64_t bytes, parse_size(arguments.total));
    PEGA_ASSIGN(const FabricOptions options, Bench::peer_options(arguments, arguments.device, ""));
    return serve_peer(options, arguments.device, bytes, stdin, stdout);
}

}  // namespace

void add_bench_p2p(CLI::App& bench_verb, Context& context) {
    auto arguments = std::make_shared<PeerArguments>();
    CLI::App& verb = *bench_verb.add_subcommand(
        "p2p", "A device's memory to and from another process's on this host (GPU to GPU), in blocks");
    add_transfer_options(verb, *arguments, "This process's device and the other's, A,B; default: the first two GPUs");
    verb.add_option("--mode", arguments->modes, "write: to the other process's memory; read: from it; comma separated")
        ->delimiter(',')
        ->check(CLI::IsMember({"read", "write"}))
        ->capture_default_str();
    verb.add_option("--peak-bytes", arguments->peak_bytes, "Bytes of one large copy of the peak; at least --total")
        ->capture_default_str();
    verb.add_option(
            "--layout", arguments->layout,
            "contiguous, strided (every second block here, consecutive there), random here (consecutive there), or random "
            "on both sides, spread over twice the memory")
        ->check(CLI::IsMember({"contiguous", "strided", "random", "both-random"}))
        ->capture_default_str();
    verb.callback([arguments, &context] {
        if (const auto done = Bench(*arguments, context).run(); !done) context.fail(done.error());
    });
    CLI::App& peer = *bench_verb.add_subcommand("p2p-peer", "The other process of p2p, which p2p starts itself");
    peer.group("");
    auto own = std::make_shared<Arguments>();
    peer.add_option("--device", own->device)->required();
    peer.add_option("--bytes", own->total)->required();
    peer.add_option("--option", own->options);
    peer.add_option("--search-path", own->search_path);
    peer.callback([own, &context] {
        if (const auto done = serve(*own); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
