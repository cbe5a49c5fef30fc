// SPDX-License-Identifier: Apache-2.0
// Results of a transfer benchmark against older ones: the same points, and whether what they lost is more than noise.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <ostream>
#include <utility>

#include "tools/pegaflow/transfer/report.hpp"

namespace pegaflow::cli {
namespace {

namespace json = boost::json;

constexpr double kLevel = 0.01;  // of significance

// Two-sided p of the Mann-Whitney U test by its normal approximation; fewer than four samples a side say nothing.
double mann_whitney(const std::vector<double>& a, const std::vector<double>& b) {
    if (a.size() < 4 || b.size() < 4) return 1;
    double u = 0;
    for (const double x : a) {
        for (const double y : b) u += x > y ? 1.0 : (x == y ? 0.5 : 0.0);
    }
    const double n = static_cast<double>(a.size());
    const double m = static_cast<double>(b.size());
    const double z = std::abs(u - n * m / 2) / std::sqrt(n * m * (n + m + 1) / 12);
    return std::erfc(z / std::sqrt(2.0));
}

// A member that older results do not have.
template <class T>
T member(const json::object& row, const char* name, T otherwise) {
    const json::value* value = row.if_contains(name);
    return value == nullptr ? std::move(otherwise) : json::value_to<T>(*value);
}

bool is_same_point(const json::object& old, const json::object& now) {
    for (const char* name : {"path", "backend", "layout"}) {
        if (old.at(name) != now.at(name)) return false;
    }
    for (const char* name : {"fragment_bytes", "bytes"}) {
        if (old.at(name).to_number<std::uint64_t>() != now.at(name).to_number<std::uint64_t>()) return false;
    }
    for (const char* name : {"device_layout", "host_layout"}) {
        const std::string usual = std::string(name) == "device_layout" ? "layer-first" : "page-first";
        if (member(old, name, usual) != member(now, name, usual)) return false;
    }
    return member<std::uint64_t>(old, "block_bytes", 0) == member<std::uint64_t>(now, "block_bytes", 0) &&
           member<std::uint64_t>(old, "threads", 1) == member<std::uint64_t>(now, "threads", 1) &&
           member<std::uint64_t>(old, "batch_blocks", 0) == member<std::uint64_t>(now, "batch_blocks", 0);
}

}  // namespace

Result<void> compare_with(const Report& report, const std::string& file, double threshold, Context& context) try {
    const auto wrong = fmt::format("--compare {}: this is no result of `pegaflow bench {} --json`", file, report.path);
    std::ifstream in(file);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    boost::system::error_code error;
    const json::value old = json::parse(text, error);
    if (error || !old.is_object() || !old.as_object().contains("results") || !old.at("results").is_array())
        return fail(Code::kInvalid, wrong);
    std::size_t compared = 0;
    for (const Row& row : report.rows) {
        const json::object now = to_json(report, row);
        for (const json::value& before : old.at("results").as_array()) {
            const json::object* o = before.if_object();
            if (o == nullptr || !o->contains("bytes_per_s") || !is_same_point(*o, now)) continue;
            ++compared;
            const auto samples = json::value_to<std::vector<double>>(o->at("bytes_per_s").at("samples"));
            const double ratio = row.rate() / percentile(samples, 0.5);
            const double p = mann_whitney(row.point.rates, samples);
            const bool slower = 100 * ratio < 100 - threshold && p < kLevel;
            context.err << fmt::format("{} {}: {:+.1f} % (p {:.3f}){}\n", shape_name(row.plan.shape), row.path,
                                       100 * ratio - 100, p, slower ? "  SLOWER" : "");
            if (slower && context.exit == kOk) context.exit = kRegression;
        }
    }
    if (compared != 0) return {};
    return fail(Code::kInvalid, fmt::format("--compare {}: it has none of these points", file));
} catch (const boost::system::system_error&) {  // of the JSON library: a member is missing or of another type
    return fail(Code::kInvalid,
                fmt::format("--compare {}: this is no result of `pegaflow bench {} --json`", file, report.path));
}

}  // namespace pegaflow::cli
