// SPDX-License-Identifier: Apache-2.0
// pegaflow bench d2h, h2d: scattered blocks between a device's memory and host memory, by each path that is asked for, against
// the peak of large copies that is measured in the same process. Every point is verified outside the timed part.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <memory>

#include "base/numa.hpp"
#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/transfer/arguments.hpp"
#include "tools/pegaflow/transfer/together.hpp"

namespace pegaflow::cli {
namespace {

struct TransferArguments : Arguments {
    bool to_device = false, bidirectional = false, interfere = false;
    double seconds = 3;
    std::string numa = "auto", hugepages = "auto", peak_bytes = "64M";
    bool is_together() const { return bidirectional || interfere; }
};

// Lets this process run, and with that allocate, on one NUMA node: the device's, or the one that was named. kInvalid.
Result<void> bind_process(const std::string& numa, const DeviceInfo& device) {
    if (numa == "off") return {};
    if (numa == "auto") {
        const bool matters = device.numa_node >= 0 && base::numa_nodes().size() > 1;
        if (matters) base::bind_thread_to_node(device.numa_node);  // where it is refused, the report warns
        return {};
    }
    int node = -1;
    const auto [end, error] = std::from_chars(numa.data(), numa.data() + numa.size(), node);
    if (error != std::errc() || end != numa.data() + numa.size())
        return fail(Code::kInvalid, "--numa takes auto, off or the number of a node, not " + numa);
    if (!base::bind_thread_to_node(node)) return fail(Code::kInvalid, "--numa: this process cannot run on node " + numa);
    return {};
}

class Bench {
public:
    Bench(const TransferArguments& arguments, Context& context)
        : arguments_(arguments), report_(context), printer_(arguments, report_, context), context_(context) {}

    Result<void> run() {
        if (arguments_.list) return print_choices(arguments_, context_.out);
        PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments_.total));
        PEGA_ASSIGN(const FabricOptions plain, fabric_options(arguments_, "", ""));
        PEGA_ASSIGN(device_, choose_device(plain, arguments_.device, &report_.device));
        PEGA_TRY(check(arguments_, report_.device));
        if (arguments_.is_together() && arguments_.plan.threads != 1)
            return fail(Code::kInvalid, "--bidir and --interfere have one thread a direction: leave --threads out");
        PEGA_TRY(bind_process(arguments_.numa, report_.device));
        PEGA_ASSIGN(const auto list, shapes(arguments_));
        report_.path = arguments_.to_device ? "h2d" : "d2h";
        report_.layout = arguments_.layout;
        report_.verify = arguments_.plan.verify;
        report_.digests = arguments_.plan.digests;
        PEGA_ASSIGN(const std::uint64_t peak_bytes, parse_size(arguments_.peak_bytes));
        PEGA_TRY(measure_peak(std::max(total, peak_bytes)));
        // Now that the link is awake.
        report_.head.device(report_.device);
        if (report_.device.kind == PEGA_MEMORY_GPU) report_.theoretical = report_.head.link_bytes_per_s();
        const Needs memory = needs(arguments_.plan, list);
        std::vector<Sides> sides;
        for (const std::string& path : arguments_.paths) {
            PEGA_ASSIGN(Sides opened, open(path, memory.device_bytes, memory.host_bytes));
            report_.head.hugepages(opened.has_huge_pages() ? "2M" : "off");
            sides.push_back(std::move(opened));
        }
        printer_.begin();
        if (!arguments_.is_together()) {
            PEGA_TRY(measure_points(arguments_, sides, list, arguments_.to_device, printer_));
        }
        for (std::size_t i = 0; arguments_.is_together() && i < sides.size(); ++i) {
            for (const Shape& shape : list) PEGA_TRY(together(sides[i], arguments_.paths[i], shape));
        }
        return printer_.end();
    }

private:
    Result<Sides> open(const std::string& path, std::uint64_t bytes, std::uint64_t host_bytes) {
        PEGA_ASSIGN(const FabricOptions options, fabric_options(arguments_, device_, path));
        const HugePages pages = arguments_.hugepages == "2M"    ? HugePages::k2M
                                : arguments_.hugepages == "off" ? HugePages::kOff
                                                                : HugePages::kAuto;
        return Sides::make(options, device_, bytes, host_bytes, pages);
    }
    Result<void> measure_peak(std::uint64_t bytes) {
        Plan plan = peak_plan(arguments_.plan, bytes);
        const std::string path = report_.device.kind == PEGA_MEMORY_GPU ? "loop" : "";
        PEGA_ASSIGN(Sides sides, open(path, plan.device_bytes(), plan.host_bytes()));
        // Pages that were never written are one page of zeros to the processor's caches.
        PEGA_TRY(sides.prepare(true, 1));
        plan.to_device = arguments_.to_device;
        PEGA_ASSIGN(const Point peak, measure(sides, plan));
        report_.peak = peak_of(peak);
        if (!arguments_.is_together()) return {};
        std::vector<Plan> both = {plan, plan};
        both[1].to_device = !plan.to_device;
        PEGA_ASSIGN(Sides other, open(path, plan.device_bytes(), plan.host_bytes()));
        PEGA_ASSIGN(const Window window, run_together({&sides, &other}, both, std::nullopt, window_seconds()));
        report_.both_peak = window.sum();
        return {};
    }
    // Both directions, and with --interfere the matrix product: each alone, then all at once.
    Result<void> together(Sides& sides, const std::string& path, const Shape& shape) {
        std::vector<Plan> plans(2, arguments_.plan);
        for (Plan& plan : plans) plan.shape = shape;
        plans[1].to_device = true;
        PEGA_ASSIGN(Sides other, open(path, plans[1].device_bytes(), plans[1].host_bytes()));
        Row row{path, plans[0], {}, {}};
        PEGA_ASSIGN(row.together.copies, run_together({&sides, &other}, plans, std::nullopt, window_seconds()));
        if (arguments_.interfere) {
            const std::uint32_t gpu = report_.device.index;
            PEGA_ASSIGN(row.together.product, run_together({}, {}, gpu, window_seconds()));
            PEGA_ASSIGN(row.together.all, run_together({&sides, &other}, plans, gpu, window_seconds()));
        }
        printer_.add(std::move(row));
        return {};
    }
    double window_seconds() const { return arguments_.plan.seconds > 0 ? arguments_.plan.seconds : arguments_.seconds; }

    const TransferArguments& arguments_;
    Report report_;
    Printer printer_;
    Context& context_;
    std::string device_;
};

}  // namespace

void add_bench_transfer(CLI::App& bench_verb, Context& context) {
    for (const bool to_device : {false, true}) {
        auto arguments = std::make_shared<TransferArguments>();
        arguments->to_device = to_device;
        CLI::App& verb = *bench_verb.add_subcommand(
            to_device ? "h2d" : "d2h", to_device ? "Host memory to a device, in blocks" : "A device to host memory, in blocks");
        add_transfer_options(verb, *arguments, "Device name; default: the last GPU, else the host");
        verb.add_option("--layout", arguments->layout,
                        "contiguous, strided (every second block of the device, host consecutive), random (on the device, host "
                        "consecutive), or both-random (spread over twice the memory of the host)")
            ->check(CLI::IsMember({"contiguous", "strided", "random", "both-random"}))
            ->capture_default_str();
        verb.add_option("--peak-bytes", arguments->peak_bytes, "Bytes of one large copy of the peak; at least --total")
            ->capture_default_str();
        verb.add_flag("--bidir", arguments->bidirectional, "Both directions at once, against large copies in both");
        verb.add_flag("--interfere", arguments->interfere, "Both directions beside a bf16 matrix product: what each loses");
        verb.add_flag("--digests", arguments->plan.digests,
                      "Ask for the digests of pages along with the bytes, and check them");
        verb.add_option("--seconds", arguments->seconds, "Window of --bidir and --interfere; -D is the same there")
            ->capture_default_str();
        verb.add_option("--numa", arguments->numa, "Node to run and allocate on: auto (the device's), a number, off")
            ->capture_default_str();
        verb.add_option("--hugepages", arguments->hugepages,
                        "Host memory in pages of 2 MiB that are set aside: auto (if there are enough), 2M (or fail), off")
            ->check(CLI::IsMember({"auto", "2M", "off"}))
            ->capture_default_str();
        verb.callback([arguments, &context] {
            if (const auto done = Bench(*arguments, context).run(); !done) context.fail(done.error());
        });
    }
}

}  // namespace pegaflow::cli
