// SPDX-License-Identifier: Apache-2.0
// pegaflow bench d2h, h2d: scattered blocks between a device's memory and host memory, by each path that is asked for, against
// the peak of large copies that is measured in the same process. Every point is verified outside the timed part.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/transfer/report.hpp"
#include "tools/pegaflow/transfer/together.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

struct Arguments {
    bool to_device = false;
    std::string device, preset, compare;
    std::string sizes = "2K,4K,8K,16K,32K,64K,256K,1M";
    std::string total = "64M";
    std::string layout = "random";
    std::vector<std::string> paths = {"auto"};
    std::vector<std::string> options, search_path;
    Plan plan;
    bool json = false, csv = false, bidirectional = false, interfere = false;
    double seconds = 3, min_ratio = 0;
};

Result<std::vector<std::string>> split(const std::string& text) {
    std::vector<std::string> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        if (!part.empty()) out.push_back(part);
    }
    if (out.empty()) return fail(Code::kInvalid, fmt::format("\"{}\" is no list", text));
    return out;
}

// The shapes to measure: one a size, or the preset's.
Result<std::vector<Shape>> shapes(const Arguments& arguments) {
    PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments.total));
    std::vector<Shape> out;
    Shape shape;
    if (arguments.layout == "contiguous") shape.device_order = Order::kContiguous;
    if (arguments.layout == "both-random") shape.host_order = Order::kRandom;
    if (!arguments.preset.empty()) {
        PEGA_ASSIGN(shape.geometry, preset(arguments.preset));
        shape.blocks = std::max<std::uint64_t>(total / shape.geometry.page(), 1);
        out.push_back(shape);
        return out;
    }
    PEGA_ASSIGN(const auto sizes, split(arguments.sizes));
    for (const std::string& text : sizes) {
        PEGA_ASSIGN(const std::uint64_t size, parse_size(text));
        if (size == 0 || size % 8 != 0 || size > total)
            return fail(Code::kInvalid, fmt::format("block size {} must be a multiple of 8 and at most --total", text));
        shape.geometry = {"", 1, 1, size};
        shape.blocks = total / size;
        out.push_back(shape);
    }
    return out;
}

// Options of the device's back end, with the path when it is one that knows paths.
Result<FabricOptions> fabric_options(const Arguments& arguments, const std::string& device, const std::string& path) {
    FabricOptions out;
    out.search_path = arguments.search_path;
    const std::string backend = device.substr(0, device.find(':'));
    for (const std::string& option : arguments.options) {
        const std::size_t equals = option.find('=');
        if (equals == std::string::npos) return fail(Code::kInvalid, fmt::format("--option {} is not KEY=VALUE", option));
        out.options[backend][option.substr(0, equals)] = option.substr(equals + 1);
    }
    if (!path.empty() && path != "auto") out.options[backend]["path"] = path;
    return out;
}

// Large copies, one range each, several in flight.
Plan peak_plan(const Plan& plan, std::uint64_t total) {
    Plan peak = plan;
    peak.shape = {{"", 1, 1, total}, 1, Order::kContiguous, Order::kContiguous};
    peak.verify = false;
    peak.outstanding = 4;
    peak.iterations = 20;
    return peak;
}

class Bench {
public:
    Bench(const Arguments& arguments, Context& context) : arguments_(arguments), context_(context) {}

    Result<void> run() {
        PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments_.total));
        PEGA_ASSIGN(const FabricOptions plain, fabric_options(arguments_, "", ""));
        PEGA_ASSIGN(device_, choose_device(plain, arguments_.device, &report_.device));
        PEGA_ASSIGN(const auto list, shapes(arguments_));
        report_.path = arguments_.to_device ? "h2d" : "d2h";
        report_.layout = arguments_.layout;
        report_.command = context_.command;
        report_.verify = arguments_.plan.verify;
        PEGA_TRY(measure_peak(total));
        if (!arguments_.json && !arguments_.csv) print_header(report_, context_.out);
        if (arguments_.csv) print_csv_header(context_.out);
        for (const std::string& path : arguments_.paths) {
            PEGA_ASSIGN(Sides sides, open(path, arguments_.plan.outstanding * total));
            for (const Shape& shape : list)
                PEGA_TRY(arguments_.bidirectional || arguments_.interfere ? together(sides, path, shape)
                                                                          : point(sides, path, shape));
        }
        if (arguments_.json) context_.out << to_json(report_) << "\n";
        if (!arguments_.compare.empty()) return compare_with(report_, arguments_.compare, context_);
        return {};
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
        report_.peak = percentile(peak.rates, 0.5);
        if (!arguments_.bidirectional && !arguments_.interfere) return {};
        std::vector<Plan> both = {plan, plan};
        both[1].to_device = !plan.to_device;
        PEGA_ASSIGN(Sides other, open(gpu ? "loop" : "", peak_plan(arguments_.plan, total).outstanding * total));
        PEGA_ASSIGN(const Window window, run_together({&sides, &other}, both, std::nullopt, arguments_.seconds));
        report_.both_peak = window.sum();
        return {};
    }
    void add(Row row) {
        if (row.point.wrong_bytes != 0) context_.exit = kVerifyFailed;
        const double percent = row.percent(report_);
        if (context_.exit == kOk && arguments_.min_ratio > 0 && percent < arguments_.min_ratio) context_.exit = kBelowRatio;
        if (arguments_.csv) print_csv_row(report_, row, context_.out);
        if (!arguments_.json && !arguments_.csv) print_row(report_, row, context_.out);
        context_.out.flush();
        report_.rows.push_back(std::move(row));
    }
    Result<void> point(Sides& sides, const std::string& path, const Shape& shape) {
        if (::isatty(2) != 0)
            context_.err << fmt::format("\r{} {} ...", path, format_size(shape.geometry.fragment)) << std::flush;
        Plan plan = arguments_.plan;
        plan.shape = shape;
        plan.to_device = arguments_.to_device;
        Row row{path, shape, {}, {}};
        PEGA_ASSIGN(row.point, measure(sides, plan));
        if (::isatty(2) != 0) context_.err << "\r\033[K" << std::flush;
        add(std::move(row));
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
        add(std::move(row));
        return {};
    }

    const Arguments& arguments_;
    Context& context_;
    std::string device_;
    Report report_;
};

void add_options(CLI::App& verb, Arguments& a) {
    verb.add_option("-d,--device", a.device, "Device name; default: the last GPU, else the host");
    verb.add_option("-s,--block-size", a.sizes, "Fragment sizes, comma separated")->capture_default_str();
    verb.add_option("--preset", a.preset, "A model's KV cache instead of sizes: " + preset_names());
    verb.add_option("--total", a.total, "Bytes a transfer")->capture_default_str();
    verb.add_option("--layout", a.layout, "contiguous, random on the device (host consecutive), or random on both sides")
        ->check(CLI::IsMember({"contiguous", "random", "both-random"}))
        ->capture_default_str();
    verb.add_option("--path", a.paths, "Copy paths of a GPU, comma separated: auto, loop, batch, bulk, vector, staged")
        ->delimiter(',')
        ->check(CLI::IsMember({"auto", "loop", "batch", "bulk", "vector", "staged"}));
    verb.add_option("--option", a.options, "KEY=VALUE for the back end (may be repeated)");
    verb.add_option("-n,--iters", a.plan.iterations, "Transfers a repetition")
        ->check(CLI::Range(1, 1000000))
        ->capture_default_str();
    verb.add_option("-w,--warmup", a.plan.warmup)->check(CLI::Range(0, 1000))->capture_default_str();
    verb.add_option("--repetitions", a.plan.repetitions)->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--outstanding", a.plan.outstanding, "Transfers in flight in pipelined runs")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    verb.add_option("--seed", a.plan.seed)->capture_default_str();
    verb.add_flag("!--no-verify", a.plan.verify, "Do not check the bytes");
    verb.add_flag("--bidir", a.bidirectional, "Both directions at once, against large copies in both");
    verb.add_flag("--interfere", a.interfere, "Both directions beside a bf16 matrix product: what each loses");
    verb.add_option("--seconds", a.seconds, "Window of --bidir and --interfere")->capture_default_str();
    verb.add_flag("--json", a.json);
    verb.add_flag("--csv", a.csv);
    verb.add_option("--min-ratio", a.min_ratio, "Exit 3 when a point is below this percentage of the peak");
    verb.add_option("--compare", a.compare, "An older JSON of this verb: exit 4 when a point is slower with significance");
    verb.add_option("--search-path", a.search_path, "Further directories with back ends");
}

}  // namespace

void add_bench_transfer(CLI::App& bench_verb, Context& context) {
    for (const bool to_device : {false, true}) {
        auto arguments = std::make_shared<Arguments>();
        arguments->to_device = to_device;
        CLI::App& verb = *bench_verb.add_subcommand(
            to_device ? "h2d" : "d2h", to_device ? "Host memory to a device, in blocks" : "A device to host memory, in blocks");
        add_options(verb, *arguments);
        verb.callback([arguments, &context] {
            if (const auto done = Bench(*arguments, context).run(); !done) context.fail(done.error());
        });
    }
}

}  // namespace pegaflow::cli
