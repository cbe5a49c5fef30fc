// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/arguments.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <ostream>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_head.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint32_t kPeakRepetitions = 8;
constexpr const char* kPaths[] = {"auto", "loop", "batch", "bulk", "vector", "staged", "shared"};

Result<std::uint64_t> parse_block(const std::string& text) {
    PEGA_ASSIGN(const std::uint64_t size, parse_size(text));
    if (size == 0 || size % 8 != 0) return fail(Code::kInvalid, fmt::format("size {} must be a multiple of 8", text));
    return size;
}

bool names_a_model(const Arguments& a) { return a.model.layers != 0 || a.model.kv_heads != 0 || a.model.head_dim != 0; }

// A block of `size`: one fragment, or as many as fit, which lie apart on the device as the layers of a model do.
Result<Geometry> block_of(std::uint64_t size, const std::string& fragment_text) {
    if (fragment_text.empty()) return Geometry{"", 1, 1, size};
    PEGA_ASSIGN(const std::uint64_t fragment, parse_block(fragment_text));
    if (size % fragment != 0)
        return fail(Code::kInvalid,
                    fmt::format("--fragment {} does not divide blocks of {}", fragment_text, format_size(size)));
    return Geometry{"", static_cast<std::uint32_t>(size / fragment), 1, fragment};
}

Result<std::vector<Geometry>> geometries(const Arguments& arguments, std::uint64_t total) {
    if (!arguments.preset.empty()) {
        PEGA_ASSIGN(const Geometry known, preset(arguments.preset));
        return std::vector{known};
    }
    if (names_a_model(arguments)) {
        PEGA_ASSIGN(const Geometry own, model(arguments.model));
        return std::vector{own};
    }
    std::vector<Geometry> out;
    PEGA_ASSIGN(const auto sizes, parse_sizes(arguments.all ? kAllSizes : arguments.sizes));
    for (const std::uint64_t size : sizes) {
        if (size > total) return fail(Code::kInvalid, fmt::format("blocks of {} are larger than --total", format_size(size)));
        PEGA_ASSIGN(const Geometry block, block_of(size, arguments.fragment));
        out.push_back(block);
    }
    return out;
}

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

Result<std::vector<std::uint64_t>> parse_sizes(const std::string& text) {
    PEGA_ASSIGN(const auto parts, split(text));
    std::vector<std::uint64_t> out;
    for (const std::string& part : parts) {
        const std::size_t dots = part.find("..");
        PEGA_ASSIGN(const std::uint64_t first, parse_block(part.substr(0, dots)));
        std::uint64_t last = first;
        if (dots != std::string::npos) {
            PEGA_ASSIGN(last, parse_block(part.substr(dots + 2)));
        }
        if (last < first) return fail(Code::kInvalid, fmt::format("the range {} ends before it begins", part));
        for (std::uint64_t size = first; size <= last && size >= first; size *= 2) out.push_back(size);
    }
    return out;
}

Result<std::vector<Shape>> shapes(const Arguments& arguments) {
    PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments.total));
    Shape shape;
    if (arguments.layout == "contiguous") shape.device_order = Order::kContiguous;
    if (arguments.layout == "strided") shape.device_order = Order::kStrided;
    if (arguments.layout == "both-random") shape.host_order = Order::kRandom;
    if (arguments.device_layout == "page-first") shape.device_placement = Placement::kPageFirst;
    if (arguments.host_layout == "layer-first") shape.host_placement = Placement::kLayerFirst;
    PEGA_ASSIGN(const auto list, geometries(arguments, total));
    std::vector<Shape> out;
    for (const Geometry& geometry : list) {
        shape.geometry = geometry;
        shape.blocks = std::max<std::uint64_t>(total / geometry.page(), 1);
        out.push_back(shape);
    }
    return out;
}

Result<void> check(const Arguments& a, const DeviceInfo& device) {
    const bool model = !a.preset.empty() || names_a_model(a);
    if (!a.preset.empty() && names_a_model(a)) return fail(Code::kInvalid, "--preset and --layers ... name two models");
    if (model && !a.fragment.empty()) return fail(Code::kInvalid, "--fragment divides blocks of -s; a model has its own");
    if (a.json == "-" && a.csv == "-")
        return fail(Code::kInvalid, "--json and --csv cannot both go to standard output: give one a file");
    const bool forced = std::any_of(a.paths.begin(), a.paths.end(), [](const std::string& p) { return p != "auto"; });
    if (forced && device.kind != PEGA_MEMORY_GPU)
        return fail(Code::kUnsupported, fmt::format("--backend: {} has one way to copy only, auto", device.name));
    return {};
}

Needs needs(const Plan& plan, const std::vector<Shape>& shapes) {
    Needs out;
    for (const Shape& shape : shapes) {
        out.device_bytes = std::max(out.device_bytes, plan.slots() * shape.device_bytes());
        out.host_bytes = std::max(out.host_bytes, plan.slots() * shape.host_bytes());
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
        const std::string key = option.substr(0, equals);
        const std::size_t dot = key.find('.');
        out.options[dot == std::string::npos ? backend : key.substr(0, dot)][key.substr(dot + 1)] = option.substr(equals + 1);
    }
    for (const std::string& text : arguments.wrap) {
        const std::size_t equals = text.find('=');
        if (equals == std::string::npos) return fail(Code::kInvalid, fmt::format("--wrap {} is not WRAPPER=BACKEND", text));
        out.wrap.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    }
    if (!path.empty() && path != "auto") out.options[backend]["path"] = path;
    return out;
}

double peak_of(const Point& point) { return percentile(point.rates, 1); }

Plan peak_plan(const Plan& plan, std::uint64_t total) {
    Plan peak;
    peak.shape = {{"", 1, 1, total}, 1, Order::kContiguous, Order::kContiguous};
    peak.warmup = plan.warmup;
    peak.seed = plan.seed;
    peak.verify = false;
    peak.repetitions = std::max(plan.repetitions, kPeakRepetitions);
    return peak;
}

Result<void> print_choices(const Arguments& arguments, std::ostream& out) {
    PEGA_ASSIGN(const FabricOptions options, fabric_options(arguments, "", ""));
    PEGA_ASSIGN(const auto fabric, Fabric::open(options));
    for (const DeviceInfo& device : fabric->devices()) {
        if (device.kind == PEGA_MEMORY_FILE) continue;
        out << fmt::format("device   {}  {}\n", device.name, device.text);
    }
    for (const char* path : kPaths) out << fmt::format("backend  {}{}\n", path, path == kPaths[0] ? "" : "  (GPUs)");
    std::stringstream names(preset_names());
    for (std::string name; std::getline(names >> std::ws, name, ',');) {
        PEGA_ASSIGN(const Geometry g, preset(name));
        out << fmt::format("preset   {}  {} layers, blocks of {} in fragments of {}\n", name, g.layers, format_size(g.page()),
                           format_size(g.fragment));
    }
    return {};
}

namespace {

void add_shape_options(CLI::App& verb, Arguments& a) {
    CLI::Option* const sizes =
        verb.add_option("-s,--block-size,--page", a.sizes, "Block sizes, comma separated; A..B doubles from A to B")
            ->capture_default_str();
    verb.add_flag("-a,--all", a.all, fmt::format("All sizes, {}", kAllSizes))->excludes(sizes);
    verb.add_option("--fragment", a.fragment, "Blocks of -s in fragments of this size, which lie apart like layers");
    verb.add_option("--preset", a.preset, "A model's KV cache instead of sizes: " + preset_names())->excludes(sizes);
    verb.add_option("--layers", a.model.layers, "A model of your own instead, with --kv-heads and --head-dim")
        ->check(CLI::Range(1, 1000))
        ->excludes(sizes);
    verb.add_option("--tokens-per-block", a.model.tokens)->check(CLI::Range(1, 65536))->capture_default_str();
    verb.add_option("--kv-heads", a.model.kv_heads)->check(CLI::Range(1, 1024));
    verb.add_option("--head-dim", a.model.head_dim)->check(CLI::Range(1, 65536));
    verb.add_option("--dtype", a.model.dtype)->check(CLI::IsMember({"fp8", "bf16", "fp16", "fp32"}))->capture_default_str();
    verb.add_option("--gpu-layout,--device-layout", a.device_layout, "How the device's memory is divided")
        ->check(CLI::IsMember({"layer-first", "page-first"}))
        ->capture_default_str();
    verb.add_option("--host-layout", a.host_layout, "How the host's memory is divided")
        ->check(CLI::IsMember({"layer-first", "page-first"}))
        ->capture_default_str();
    verb.add_option("--total,--bytes", a.total, "Bytes a transfer")->capture_default_str();
}

void add_measuring_options(CLI::App& verb, Plan& plan) {
    CLI::Option* const count = verb.add_option("-n,--iters", plan.iterations, "Transfers a repetition")
                                   ->check(CLI::Range(1, 1000000))
                                   ->capture_default_str();
    verb.add_option("-D,--duration", plan.seconds,
                    "Seconds a repetition, instead of -n: half alone, half with several in flight")
        ->check(CLI::Range(0.001, 3600.0))
        ->excludes(count);
    verb.add_option("-w,--warmup", plan.warmup, "Transfers before those of a repetition that count")
        ->check(CLI::Range(0, 1000))
        ->capture_default_str();
    verb.add_option("--repetitions", plan.repetitions, "Of each point, in turns with those of the others")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    verb.add_option("--outstanding,--inflight", plan.outstanding, "Transfers in flight in pipelined runs, for each thread")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    verb.add_option("-t,--threads", plan.threads, "Threads that submit in pipelined runs, each through its own channel")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    verb.add_option("--batch", plan.batch, "Blocks a submission; default: a transfer is one")->check(CLI::Range(1, 1 << 24));
    verb.add_option("--seed", plan.seed)->capture_default_str();
    verb.add_flag("!--no-verify", plan.verify, "Do not check the bytes");
}

}  // namespace

void add_transfer_options(CLI::App& verb, Arguments& a, const std::string& device_help) {
    // As other tools call them.
    const std::map<std::string, std::string> other_names = {{"ce", "loop"}, {"kernel", "vector"}, {"tma", "bulk"}};
    verb.add_option("-d,--device", a.device, device_help);
    verb.add_option(
            "--backend,--path", a.paths,
            "Ways of a GPU to copy, comma separated: auto, loop (ce), batch, bulk (tma), vector (kernel), staged, shared")
        ->delimiter(',')
        ->check(CLI::IsMember(std::vector<std::string>(std::begin(kPaths), std::end(kPaths))))
        ->transform(CLI::Transformer(other_names));
    verb.add_option("--option", a.options, "KEY=VALUE for the back end, MODULE.KEY=VALUE for another (may be repeated)");
    verb.add_option("--wrap", a.wrap, "Open a back end through an interposer, as in fault=host (may be repeated)");
    add_shape_options(verb, a);
    add_measuring_options(verb, a.plan);
    add_output_option(verb, "--json", a.json, "JSON");
    add_output_option(verb, "--csv", a.csv, "CSV");
    verb.add_flag("--quiet", a.quiet, "No table and no progress; files and the exit code tell");
    verb.add_flag("--list", a.list, "Say what can be measured here, and end");
    verb.add_option("--min-ratio", a.min_ratio, "Exit 3 when a point is below this percentage of the peak");
    CLI::Option* const compare =
        verb.add_option("--compare", a.compare, "An older JSON of this verb: exit 4 when a point is slower with significance");
    verb.add_option("--threshold", a.threshold, "Percent that a point may lose against --compare")
        ->check(CLI::Range(0.0, 100.0))
        ->capture_default_str()
        ->needs(compare);
    verb.add_option("--search-path", a.search_path, "Further directories with back ends");
}

}  // namespace pegaflow::cli
