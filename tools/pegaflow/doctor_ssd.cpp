// SPDX-License-Identifier: Apache-2.0
// pegaflow doctor --ssd PATH: what a cache directory or device holds, and whether all of it is what it should be.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <iostream>
#include <thread>

#include "engine/tier/checker.hpp"
#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/printable.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using engine::tier::CheckReport;

void print(const CheckReport& r, std::ostream& out) {
    out << fmt::format("{}: format version {}, {} in {} segments of {}{}\n", printable(r.path), r.version,
                       format_size(r.capacity_bytes), r.capacity_bytes / r.segment_bytes, format_size(r.segment_bytes),
                       r.in_use ? "; a server uses it now: what it writes may look torn" : "");
    out << fmt::format("  segments   {} sealed, {} open, {} empty{}\n", r.sealed_segments, r.open_segments, r.empty_segments,
                       r.foreign_segments == 0 ? "" : fmt::format(", {} foreign", r.foreign_segments));
    out << fmt::format("  blocks     {} with {}; {} records with {} in {} of log\n", r.blocks, format_size(r.block_bytes),
                       r.records, format_size(r.record_bytes), format_size(r.log_bytes));
    for (const auto& [scope, count] : r.scopes) {
        out << fmt::format("             namespace \"{}\", layout {}: {} blocks, {}\n", printable(scope.first),
                           printable(scope.second), count.blocks, format_size(count.bytes));
    }
    out << fmt::format("  endurance  at least {} ever written\n", format_size(r.lifetime_written_bytes));
    out << fmt::format("  pages      {} read, {} wrong\n", r.pages_read, r.wrong_pages);
    for (const std::string& problem : r.problems) out << fmt::format("  problem    {}\n", printable(problem));
    out << fmt::format("  {} in {:.2f} s\n", r.problems.empty() ? "no problems" : fmt::format("{} problems", r.problems.size()),
                       r.seconds);
}

boost::json::object to_json(const CheckReport& r) {
    boost::json::array scopes, problems;
    for (const std::string& problem : r.problems) problems.emplace_back(printable(problem));
    for (const auto& [scope, count] : r.scopes) {
        scopes.push_back(boost::json::object{{"namespace", printable(scope.first)},
                                             {"layout", printable(scope.second)},
                                             {"blocks", count.blocks},
                                             {"bytes", count.bytes}});
    }
    return {{"path", printable(r.path)},
            {"version", r.version},
            {"in_use", r.in_use},
            {"capacity_bytes", r.capacity_bytes},
            {"segment_bytes", r.segment_bytes},
            {"sealed_segments", r.sealed_segments},
            {"open_segments", r.open_segments},
            {"empty_segments", r.empty_segments},
            {"foreign_segments", r.foreign_segments},
            {"blocks", r.blocks},
            {"block_bytes", r.block_bytes},
            {"records", r.records},
            {"record_bytes", r.record_bytes},
            {"log_bytes", r.log_bytes},
            {"lifetime_written_bytes", r.lifetime_written_bytes},
            {"pages_read", r.pages_read},
            {"wrong_pages", r.wrong_pages},
            {"scopes", std::move(scopes)},
            {"problems", std::move(problems)},
            {"seconds", r.seconds}};
}

}  // namespace

void doctor_ssd(const std::vector<std::string>& paths, bool pages, bool json, Context& context) {
    boost::json::array reports;
    for (const std::string& path : paths) {
        const auto report =
            engine::tier::check_container(path, {.pages = pages, .threads = std::max(1U, std::thread::hardware_concurrency())});
        if (!report) {
            context.fail(report.error());
            continue;
        }
        if (!report->problems.empty()) context.exit = kVerifyFailed;
        if (json) {
            reports.push_back(to_json(*report));
        } else {
            print(*report, context.out);
        }
    }
    if (json)
        context.out << boost::json::serialize(
                           boost::json::object{{"schema", "pegaflow.doctor.ssd"}, {"caches", std::move(reports)}})
                    << "\n";
}

}  // namespace pegaflow::cli
