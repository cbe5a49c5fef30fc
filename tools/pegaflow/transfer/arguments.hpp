// SPDX-License-Identifier: Apache-2.0
// arguments.hpp - the command line that the transfer benchmarks share: what to move, how often, and how results are printed.
#pragma once

#include <string>
#include <vector>

#include "tools/pegaflow/transfer/report.hpp"
#include "tools/pegaflow/transfer/sample.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {

struct Arguments {
    std::string device, preset, compare;
    std::string sizes = "2K,4K,8K,16K,32K,64K,256K,1M";
    std::string total = "64M";
    std::string layout = "random";
    std::vector<std::string> paths = {"auto"};
    std::vector<std::string> options, search_path;
    Plan plan;
    bool json = false, csv = false;
    double min_ratio = 0;
};

// The options that all transfer benchmarks have; `device_help` says what -d takes.
void add_transfer_options(CLI::App& verb, Arguments& arguments, const std::string& device_help);

// The shapes to measure: one a size, or the preset's. kInvalid.
Result<std::vector<Shape>> shapes(const Arguments& arguments);
// The parts of a list that commas separate; kInvalid when there is none.
Result<std::vector<std::string>> split(const std::string& text);
// Options of the device's back end, with the path when one is forced. kInvalid.
Result<FabricOptions> fabric_options(const Arguments& arguments, const std::string& device, const std::string& path);
// Large copies, one range each, several in flight: what a report's peak is measured with.
Plan peak_plan(const Plan& plan, std::uint64_t total);
// The peak is the best repetition: what disturbs the others does not lower what the link can do.
double peak_of(const Point& point);

// Prints rows as they come, in the form that was asked for, and turns what they say into the exit code.
class Printer {
public:
    Printer(const Arguments& arguments, Report& report, Context& context);
    void begin();  // the report's direction and peak are known; again when they change
    // Says on a terminal what is being measured; `add` takes it away again.
    void announce(const std::string& path, const Shape& shape);
    void add(Row row);
    Result<void> end();

private:
    bool is_table() const { return !arguments_.json && !arguments_.csv; }
    const Arguments& arguments_;
    Report& report_;
    Context& context_;
};

}  // namespace pegaflow::cli
