// SPDX-License-Identifier: Apache-2.0
// arguments.hpp - the command line that the transfer benchmarks share: what to move, how often, and how results are printed.
#pragma once

#include <string>
#include <vector>

#include "tools/pegaflow/transfer/report.hpp"
#include "tools/pegaflow/transfer/sample.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {

inline constexpr const char* kAllSizes = "2K..1M";

struct Arguments {
    std::string device, preset, compare;
    std::string sizes = "2K,4K,8K,16K,32K,64K,256K,1M";
    std::string fragment;  // "" = a block is one
    std::string total = "64M";
    std::string layout = "random";
    std::string device_layout = "layer-first", host_layout = "page-first";
    ModelShape model;
    std::vector<std::string> paths = {"auto"};
    std::vector<std::string> options, search_path, wrap;
    Plan plan;
    std::string json, csv;  // where to: a file, "-" = standard output, "" = nowhere
    bool all = false, quiet = false, list = false;
    double min_ratio = 0, threshold = 5;
};

// The options that all transfer benchmarks have; `device_help` says what -d takes.
void add_transfer_options(CLI::App& verb, Arguments& arguments, const std::string& device_help);

// The sizes of a list such as "4K,64K" or "2K..1M", which doubles from the one to the other. kInvalid.
Result<std::vector<std::uint64_t>> parse_sizes(const std::string& text);
// The shapes to measure: one a size, or the model's. kInvalid.
Result<std::vector<Shape>> shapes(const Arguments& arguments);
// The parts of a list that commas separate; kInvalid when there is none.
Result<std::vector<std::string>> split(const std::string& text);
// What contradicts itself, or cannot be done with a device of this kind. kInvalid, kUnsupported.
Result<void> check(const Arguments& arguments, const DeviceInfo& device);
// Options of the device's back end, with the path when one is forced. kInvalid.
Result<FabricOptions> fabric_options(const Arguments& arguments, const std::string& device, const std::string& path);
// Memory that the largest of the shapes needs, on both sides.
struct Needs {
    std::uint64_t device_bytes = 0, host_bytes = 0;
};
Needs needs(const Plan& plan, const std::vector<Shape>& shapes);
// Large copies, one range each, several in flight: what a report's peak is measured with.
Plan peak_plan(const Plan& plan, std::uint64_t total);
// The peak is the best repetition: what disturbs the others does not lower what the link can do.
double peak_of(const Point& point);
// Of --list: devices, ways to copy, models.
Result<void> print_choices(const Arguments& arguments, std::ostream& out);

// Prints results in the form that was asked for, and turns what they say into the exit code.
class Printer {
public:
    Printer(const Arguments& arguments, Report& report, Context& context);
    void begin();  // the report's direction and peak are known; again when they change
    // Says on a terminal what is being measured.
    void announce(const std::string& path, const Shape& shape, std::uint32_t round);
    void add(Row row);
    Result<void> end();

private:
    bool is_table() const { return !arguments_.quiet && arguments_.json != "-" && arguments_.csv != "-"; }
    const Arguments& arguments_;
    Report& report_;
    Context& context_;
    bool announced_ = false;
    std::string csv_;
};

// All shapes by all paths in turns. `sides` are those of the paths.
Result<void> measure_points(const Arguments& arguments, std::vector<Sides>& sides, const std::vector<Shape>& shapes,
                            bool to_device, Printer& printer);

}  // namespace pegaflow::cli
