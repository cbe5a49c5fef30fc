// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <ostream>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_head.hpp"
#include "tools/pegaflow/transfer/arguments.hpp"

namespace pegaflow::cli {

Printer::Printer(const Arguments& arguments, Report& report, Context& context)
    : arguments_(arguments), report_(report), context_(context) {
    if (!arguments.csv.empty()) csv_ = csv_header();
}

void Printer::begin() {
    if (is_table()) print_header(report_, context_.out);
}

void Printer::announce(const std::string& path, const Shape& shape, std::uint32_t round) {
    if (arguments_.quiet || ::isatty(2) == 0) return;
    announced_ = true;
    context_.err << fmt::format("\r\033[K{} {}, round {} of {} ...", path, shape_name(shape), round + 1,
                                arguments_.plan.repetitions)
                 << std::flush;
}

void Printer::add(Row row) {
    if (announced_) context_.err << "\r\033[K" << std::flush;
    announced_ = false;
    row.direction = report_.path;
    row.peak = report_.peak;
    if (row.point.wrong_bytes != 0 || row.point.wrong_digests != 0) context_.exit = kVerifyFailed;
    const double percent = row.percent(report_);
    if (context_.exit == kOk && arguments_.min_ratio > 0 && percent < arguments_.min_ratio) context_.exit = kBelowRatio;
    if (!arguments_.csv.empty()) csv_ += csv_row(report_, row);
    if (is_table()) print_row(report_, row, context_.out);
    context_.out.flush();
    report_.rows.push_back(std::move(row));
}

Result<void> Printer::end() {
    PEGA_TRY(write_output(arguments_.csv, csv_, context_.out));
    if (!arguments_.json.empty()) PEGA_TRY(write_output(arguments_.json, to_json(report_) + "\n", context_.out));
    if (arguments_.compare.empty()) return {};
    return compare_with(report_, arguments_.compare, arguments_.threshold, context_);
}

Result<void> measure_points(const Arguments& arguments, std::vector<Sides>& sides, const std::vector<Shape>& shapes,
                            bool to_device, Printer& printer) {
    std::vector<Measurement> points;
    for (Sides& side : sides) {
        for (const Shape& shape : shapes) {
            Plan plan = arguments.plan;
            plan.shape = shape;
            plan.to_device = to_device;
            PEGA_ASSIGN(Measurement point, Measurement::open(side, plan));
            points.push_back(std::move(point));
        }
    }
    const auto path_of = [&](std::size_t point) -> const std::string& { return arguments.paths[point / shapes.size()]; };
    PEGA_TRY(measure_in_turns(points, arguments.plan.seed, [&](std::size_t point, std::uint32_t round) {
        printer.announce(path_of(point), points[point].plan().shape, round);
    }));
    for (std::size_t i = 0; i < points.size(); ++i) printer.add(Row{path_of(i), points[i].plan(), points[i].point(), {}});
    return {};
}

}  // namespace pegaflow::cli
