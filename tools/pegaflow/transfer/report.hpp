// SPDX-License-Identifier: Apache-2.0
// report.hpp - results of a transfer benchmark as a table, CSV or JSON, and against older ones.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

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
    Shape shape;
    Point point;
    Together together;
    // Set when the row is added: the report's, which change with the direction.
    std::string direction = {};
    double peak = 0;

    double rate() const;  // bytes per second: pipelined median, or the sum of both directions
    double percent(const Report& report) const;
};

struct Report {
    std::string path;  // "d2h", "h2d", "p2p-read", "p2p-write"
    std::string layout;
    DeviceInfo device;
    std::string peer;  // the other process's device; "" = there is none
    std::vector<std::string> command;
    double peak = 0;       // bytes per second of large copies in this direction
    double both_peak = 0;  // of large copies in both directions at once, their sum
    bool verify = true;
    bool digests = false;  // were asked for
    std::vector<Row> rows;
};

void print_header(const Report& report, std::ostream& out);
void print_row(const Report& report, const Row& row, std::ostream& out);
void print_csv_header(std::ostream& out);
void print_csv_row(const Report& report, const Row& row, std::ostream& out);
std::string to_json(const Report& report);
// Compares with the file; prints what got slower. The exit code becomes kRegression when a point lost more than 5 % and the
// Mann-Whitney U test of its repetitions says so at the 1 % level. kInvalid when the file is no result of this verb.
Result<void> compare_with(const Report& report, const std::string& file, Context& context);

}  // namespace pegaflow::cli
