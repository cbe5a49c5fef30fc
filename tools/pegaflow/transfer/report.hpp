// SPDX-License-Identifier: Apache-2.0
// report.hpp - results of a transfer benchmark as a table, CSV or JSON, and against older ones.
#pragma once

#include <boost/json/object.hpp>
#include <iosfwd>
#include <string>
#include <vector>

#include "tools/pegaflow/bench_head.hpp"
#include "tools/pegaflow/transfer/together.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {

struct Together {
    Window copies;   // both directions
    Window product;  // alone
    Window all;      // both directions and the product
};

struct Report;

struct Row {
    std::string path;
    Plan plan;
    Point point;
    Together together;
    // Set when the row is added: the report's, which change with the direction.
    std::string direction = {};
    double peak = 0;

    double rate() const;  // bytes per second: pipelined median, or the sum of both directions
    double percent(const Report& report) const;
};

struct Report {
    explicit Report(const Context& context) : head(context) {}

    Head head;
    std::string path;  // "d2h", "h2d", "p2p-read", "p2p-write"
    std::string layout;
    DeviceInfo device;
    std::string peer;      // the other process's device; "" = there is none
    double peak = 0;       // bytes per second of large copies in this direction
    double both_peak = 0;  // of large copies in both directions at once, their sum
    // What the link carries one way, before headers of packets; 0 = not known. It is no limit of both directions' sum.
    double theoretical = 0;
    bool verify = true;
    bool digests = false;  // were asked for
    std::vector<Row> rows;
};

void print_header(const Report& report, std::ostream& out);
void print_row(const Report& report, const Row& row, std::ostream& out);
std::string csv_header();
std::string csv_row(const Report& report, const Row& row);
std::string to_json(const Report& report);
boost::json::object to_json(const Report& report, const Row& row);
// "64 KiB", or the model's name.
std::string shape_name(const Shape& shape);
// Percentiles and the like; those that so few samples do not tell (p99 below 1,000, p999 below 10,000) are null.
boost::json::object statistics(const std::vector<double>& values);
// The p99 in microseconds, or `unknown` when it is null there.
std::string p99_text(const std::vector<double>& values, const char* unknown);
// Compares with the file; prints how each point changed. The exit code becomes kRegression when a point lost more than
// `threshold` percent and the Mann-Whitney U test of its repetitions says so at the 1 % level. kInvalid when the file is no
// result of this verb, or has none of these points.
Result<void> compare_with(const Report& report, const std::string& file, double threshold, Context& context);

}  // namespace pegaflow::cli
