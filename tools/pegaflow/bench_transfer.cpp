// SPDX-License-Identifier: Apache-2.0
// pegaflow bench d2h, h2d: scattered blocks between a device's memory and host memory, by each path that is asked for, against
// the peak of large copies that is measured in the same process. Every point is verified outside the timed part.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/transfer/arguments.hpp"
#include "tools/pegaflow/transfer/together.hpp"

namespace pegaflow::cli {
namespace {

struct TransferArguments : Arguments {
    bool to_device = false, bidirectional = false, interfere = false;
    double seconds = 3;
};

class Bench {
public:
    Bench(const TransferArguments& arguments, Context& context)
        : arguments_(arguments), printer_(arguments, report_, context), context_(context) {}

    Result<void> run() {
        PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments_.total));
        PEGA_ASSIGN(const FabricOptions plain, fabric_options(arguments_, "", ""));
        PEGA_ASSIGN(device_, choose_device(plain, arguments_.device, &report_.device));
        PEGA_ASSIGN(const auto list, shapes(arguments_));
        report_.path = arguments_.to_device ? "h2d" : "d2h";
        report_.layout = arguments_.layout;
        report_.command = context_.command;
        report_.verify = arguments_.plan.verify;
        report_.digests = arguments_.plan.digests;
        PEGA_TRY(measure_peak(total));
        printer_.begin();
        for (const std::string& path : arguments_.paths) {
            PEGA_ASSIGN(Sides sides, open(path, arguments_.plan.outstanding * total));
            for (const Shape& shape : list)
                PEGA_TRY(arguments_.bidirectional || arguments_.interfere ? together(sides, path, shape)
                                                                          : point(sides, path, shape));
        }
        return printer_.end();
    }

private:
    Result<Sides> open(const std::string& path, std::uint64_t bytes) {
        PEGA_ASSIGN(const FabricOptions options, fabric_options(arguments_, device_, path));
        return Sides::make(options, device_, bytes, arguments_.layout == "both-random" ? 2 * bytes : bytes);
    }
    Result<void> measure_peak(std::uint64_t asked) {
        const std::uint64_t total = std::max<std::uint64_t>(asked, 64U << 20);
        const bool gpu = report_.device.kind == PEGA_MEMORY_GPU;
        PEGA_ASSIGN(Sides sides, open(gpu ? "loop" : "", peak_plan(arguments_.plan, total).outstanding * total));
        // Pages that were never written are one page of zeros to the processor's caches.
        PEGA_TRY(sides.prepare(true, 1));
        Plan plan = peak_plan(arguments_.plan, total);
        plan.to_device = arguments_.to_device;
        PEGA_ASSIGN(const Point peak, measure(sides, plan));
        report_.peak = peak_of(peak);
        if (!arguments_.bidirectional && !arguments_.interfere) return {};
        std::vector<Plan> both = {plan, plan};
        both[1].to_device = !plan.to_device;
        PEGA_ASSIGN(Sides other, open(gpu ? "loop" : "", peak_plan(arguments_.plan, total).outstanding * total));
        PEGA_ASSIGN(const Window window, run_together({&sides, &other}, both, std::nullopt, arguments_.seconds));
        report_.both_peak = window.sum();
        return {};
    }
    Result<void> point(Sides& sides, const std::string& path, const Shape& shape) {
        printer_.announce(path, shape);
        Plan plan = arguments_.plan;
        plan.shape = shape;
        plan.to_device = arguments_.to_device;
        Row row{path, shape, {}, {}};
        PEGA_ASSIGN(row.point, measure(sides, plan));
        printer_.add(std::move(row));
        return {};
    }
    // Both directions, and with --interfere the matrix product: each alone, then all at once.
    Result<void> together(Sides& sides, const std::string& path, const Shape& shape) {
        std::vector<Plan> plans(2, arguments_.plan);
        for (Plan& plan : plans) plan.shape = shape;
        plans[1].to_device = true;
        PEGA_ASSIGN(Sides other, open(path, arguments_.plan.outstanding * shape.bytes()));
        Row row{path, shape, {}, {}};
        PEGA_ASSIGN(row.together.copies, run_together({&sides, &other}, plans, std::nullopt, arguments_.seconds));
        if (arguments_.interfere) {
            const std::uint32_t gpu = report_.device.index;
            PEGA_ASSIGN(row.together.product, run_together({}, {}, gpu, arguments_.seconds));
            PEGA_ASSIGN(row.together.all, run_together({&sides, &other}, plans, gpu, arguments_.seconds));
        }
        printer_.add(std::move(row));
        return {};
    }

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
                        "contiguous, random on the device (host consecutive), or random on both sides")
            ->check(CLI::IsMember({"contiguous", "random", "both-random"}))
            ->capture_default_str();
        verb.add_flag("--bidir", arguments->bidirectional, "Both directions at once, against large copies in both");
        verb.add_flag("--interfere", arguments->interfere, "Both directions beside a bf16 matrix product: what each loses");
        verb.add_flag("--digests", arguments->plan.digests,
                      "Ask for the digests of pages along with the bytes, and check them");
        verb.add_option("--seconds", arguments->seconds, "Window of --bidir and --interfere")->capture_default_str();
        verb.callback([arguments, &context] {
            if (const auto done = Bench(*arguments, context).run(); !done) context.fail(done.error());
        });
    }
}

}  // namespace pegaflow::cli
