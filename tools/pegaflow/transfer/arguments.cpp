// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/arguments.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>
#include <sstream>

#include "pegaflow/bytes.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint32_t kPeakRepetitions = 8;

}  // namespace

Result<std::vector<std::string>> split(const std::string& text) {
    std::vector<std::string> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        if (!part.empty()) out.push_back(part);
    }
    if (out.empty()) return fail(Code::kInvalid, fmt::format("\"{}\" is no list", text));
    return out;
}

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

double peak_of(const Point& point) { return percentile(point.rates, 1); }

Plan peak_plan(const Plan& plan, std::uint64_t total) {
    Plan peak = plan;
    peak.shape = {{"", 1, 1, total}, 1, Order::kContiguous, Order::kContiguous};
    peak.verify = peak.digests = false;
    peak.outstanding = 4;
    peak.iterations = 20;
    peak.repetitions = std::max(plan.repetitions, kPeakRepetitions);
    return peak;
}

void add_transfer_options(CLI::App& verb, Arguments& a, const std::string& device_help) {
    verb.add_option("-d,--device", a.device, device_help);
    verb.add_option("-s,--block-size,--page", a.sizes, "Fragment sizes, comma separated")->capture_default_str();
    verb.add_option("--preset", a.preset, "A model's KV cache instead of sizes: " + preset_names());
    verb.add_option("--total,--bytes", a.total, "Bytes a transfer")->capture_default_str();
    verb.add_option("--path", a.paths, "Copy paths of a GPU, comma separated: auto, loop, batch, bulk, vector, staged, shared")
        ->delimiter(',')
        ->check(CLI::IsMember({"auto", "loop", "batch", "bulk", "vector", "staged", "shared"}));
    verb.add_option("--option", a.options, "KEY=VALUE for the back end (may be repeated)");
    verb.add_option("-n,--iters", a.plan.iterations, "Transfers a repetition")
        ->check(CLI::Range(1, 1000000))
        ->capture_default_str();
    verb.add_option("-w,--warmup", a.plan.warmup)->check(CLI::Range(0, 1000))->capture_default_str();
    verb.add_option("--repetitions", a.plan.repetitions)->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--outstanding,--inflight", a.plan.outstanding, "Transfers in flight in pipelined runs")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    verb.add_option("--seed", a.plan.seed)->capture_default_str();
    verb.add_flag("!--no-verify", a.plan.verify, "Do not check the bytes");
    verb.add_flag("--json", a.json);
    verb.add_flag("--csv", a.csv);
    verb.add_option("--min-ratio", a.min_ratio, "Exit 3 when a point is below this percentage of the peak");
    verb.add_option("--compare", a.compare, "An older JSON of this verb: exit 4 when a point is slower with significance");
    verb.add_option("--search-path", a.search_path, "Further directories with back ends");
}

Printer::Printer(const Arguments& arguments, Report& report, Context& context)
    : arguments_(arguments), report_(report), context_(context) {}

void Printer::begin() {
    if (is_table()) print_header(report_, context_.out);
    if (arguments_.csv && report_.rows.empty()) print_csv_header(context_.out);
}

void Printer::announce(const std::string& path, const Shape& shape) {
    if (::isatty(2) != 0) context_.err << fmt::format("\r{} {} ...", path, format_size(shape.geometry.fragment)) << std::flush;
}

void Printer::add(Row row) {
    if (::isatty(2) != 0) context_.err << "\r\033[K" << std::flush;
    row.direction = report_.path;
    row.peak = report_.peak;
    if (row.point.wrong_bytes != 0 || row.point.wrong_digests != 0) context_.exit = kVerifyFailed;
    const double percent = row.percent(report_);
    if (context_.exit == kOk && arguments_.min_ratio > 0 && percent < arguments_.min_ratio) context_.exit = kBelowRatio;
    if (arguments_.csv) print_csv_row(report_, row, context_.out);
    if (is_table()) print_row(report_, row, context_.out);
    context_.out.flush();
    report_.rows.push_back(std::move(row));
}

Result<void> Printer::end() {
    if (arguments_.json) context_.out << to_json(report_) << "\n";
    if (!arguments_.compare.empty()) return compare_with(report_, arguments_.compare, context_);
    return {};
}

}  // namespace pegaflow::cli
