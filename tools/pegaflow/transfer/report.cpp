// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/report.hpp"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <ostream>

#include "pegaflow/bytes.hpp"

namespace pegaflow::cli {
namespace {

namespace json = boost::json;

bool is_together(const Row& row) { return !row.together.copies.bytes_per_second.empty(); }

std::string shape_name(const Shape& shape) {
    return shape.geometry.name.empty() ? format_size(shape.geometry.fragment) : shape.geometry.name;
}

json::object times(const std::vector<double>& values) {
    return {{"p50", percentile(values, 0.5)}, {"p90", percentile(values, 0.9)}, {"p99", percentile(values, 0.99)},
            {"min", percentile(values, 0)},   {"max", percentile(values, 1)},   {"mean", mean(values)}};
}

json::object to_json(const Together& t) {
    json::object out{{"copies_bytes_per_s", json::array(t.copies.bytes_per_second.begin(), t.copies.bytes_per_second.end())}};
    if (t.all.bytes_per_second.empty()) return out;
    out["beside_product_bytes_per_s"] = json::array(t.all.bytes_per_second.begin(), t.all.bytes_per_second.end());
    out["copies_kept_pct"] = 100 * t.all.sum() / t.copies.sum();
    out["products_per_s_alone"] = t.product.products_per_second;
    out["products_per_s_beside_copies"] = t.all.products_per_second;
    out["product_loss_pct"] = 100 - 100 * t.all.products_per_second / t.product.products_per_second;
    return out;
}

json::object to_json(const Report& report, const Row& row) {
    const Geometry& g = row.shape.geometry;
    json::object out{{"path", row.direction},
                     {"backend", row.path},
                     {"preset", g.name},
                     {"block_bytes", g.page()},
                     {"fragment_bytes", g.fragment},
                     {"fragments", row.shape.blocks * g.layers * g.segments},
                     {"blocks", row.shape.blocks},
                     {"bytes", row.shape.bytes()},
                     {"layout", report.layout},
                     {"pct_of_peak", row.percent(report)},
                     {"peak_bytes_per_s", is_together(row) ? report.both_peak : row.peak}};
    if (is_together(row)) {
        out["together"] = to_json(row.together);
        return out;
    }
    const Point& p = row.point;
    const double fragments = static_cast<double>(row.shape.blocks * g.layers * g.segments);
    out["bytes_per_s"] = json::object{{"median", percentile(p.rates, 0.5)},
                                      {"min", percentile(p.rates, 0)},
                                      {"max", percentile(p.rates, 1)},
                                      {"cv_pct", cv_percent(p.rates)},
                                      {"samples", json::array(p.rates.begin(), p.rates.end())}};
    out["solo_time_us"] = times(p.solo_us);
    out["solo_pct_of_peak"] = 100 * static_cast<double>(row.shape.bytes()) / percentile(p.solo_us, 0.5) * 1e6 / row.peak;
    out["submit_us"] = times(p.submit_us);
    out["submit_ns_per_fragment"] = percentile(p.submit_us, 0.5) * 1000 / fragments;
    out["verified"] = p.verified;
    out["wrong_bytes"] = p.wrong_bytes;
    if (report.digests) out["digests"] = json::object{{"computed", p.digested}, {"wrong", p.wrong_digests}};
    return out;
}

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

}  // namespace

double Row::rate() const {
    return together.copies.bytes_per_second.empty() ? percentile(point.rates, 0.5) : together.copies.sum();
}

double Row::percent(const Report& report) const {
    return 100 * rate() / (together.copies.bytes_per_second.empty() ? peak : report.both_peak);
}

void print_header(const Report& r, std::ostream& out) {
    out << fmt::format("# pegaflow bench {}  v{}  {} ({})  {}layout {}  verify {}\n", r.path, PEGAFLOW_VERSION, r.device.name,
                       r.device.text, r.peer.empty() ? "" : "other process " + r.peer + "  ", r.layout,
                       r.verify ? "on" : "OFF");
    out << fmt::format("# peak (large copies, measured): {:.2f} GB/s", r.peak / 1e9);
    if (r.both_peak != 0) out << fmt::format("; both directions at once {:.2f} GB/s", r.both_peak / 1e9);
    out << "\n";
    if (r.both_peak != 0) {
        out << fmt::format("{:>18} {:>7} {:>8} {:>7} {:>8} {:>8} {:>12} {:>12} {:>10}\n", "fragment", "path", "GB/s", "%peak",
                           "first", "second", "beside GB/s", "kept %", "product -%");
        return;
    }
    out << fmt::format("{:>18} {:>9} {:>7} {:>8} {:>7} {:>5} {:>9} {:>9} {:>9} {:>7} {:>9} {:>8} {:>6}\n", "fragment", "count",
                       "path", "GB/s", "%peak", "cv%", "solo_p50", "solo_p99", "solo_max", "solo%", "submit_us", "ns/frag",
                       "check");
}

void print_row(const Report& r, const Row& row, std::ostream& out) {
    const std::string name = shape_name(row.shape);
    if (is_together(row)) {
        const Together& t = row.together;
        out << fmt::format("{:>18} {:>7} {:>8.2f} {:>7.1f} {:>8.2f} {:>8.2f}", name, row.path, row.rate() / 1e9, row.percent(r),
                           t.copies.bytes_per_second[0] / 1e9, t.copies.bytes_per_second[1] / 1e9);
        if (!t.all.bytes_per_second.empty()) {
            out << fmt::format(" {:>12.2f} {:>12.1f} {:>10.2f}", t.all.sum() / 1e9, 100 * t.all.sum() / t.copies.sum(),
                               100 - 100 * t.all.products_per_second / t.product.products_per_second);
        }
        out << "\n";
        return;
    }
    const Point& p = row.point;
    const std::uint64_t fragments = row.shape.blocks * row.shape.geometry.layers * row.shape.geometry.segments;
    const double solo = percentile(p.solo_us, 0.5);
    const double submit = percentile(p.submit_us, 0.5);
    out << fmt::format(
        "{:>18} {:>9} {:>7} {:>8.2f} {:>7.1f} {:>5.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>7.1f} {:>9.1f} {:>8.1f} {:>6}\n", name,
        fragments, row.path, row.rate() / 1e9, row.percent(r), cv_percent(p.rates), solo, percentile(p.solo_us, 0.99),
        percentile(p.solo_us, 1), 100 * static_cast<double>(row.shape.bytes()) / solo * 1e6 / r.peak, submit,
        submit * 1000 / static_cast<double>(fragments),
        !p.verified ? "-" : (p.wrong_bytes + p.wrong_digests != 0 ? "WRONG" : (p.digested ? "ok+d" : "ok")));
}

void print_csv_header(std::ostream& out) {
    out << "path,backend,fragment_bytes,bytes,bytes_per_s,pct_of_peak,solo_p50_us,solo_p99_us,submit_us,wrong_bytes\n";
}

void print_csv_row(const Report& r, const Row& row, std::ostream& out) {
    out << fmt::format("{},{},{},{},{:.0f},{:.2f},{:.2f},{:.2f},{:.2f},{}\n", row.direction, row.path,
                       row.shape.geometry.fragment, row.shape.bytes(), row.rate(), row.percent(r),
                       percentile(row.point.solo_us, 0.5), percentile(row.point.solo_us, 0.99),
                       percentile(row.point.submit_us, 0.5), row.point.wrong_bytes);
}

std::string to_json(const Report& report) {
    utsname system{};
    ::uname(&system);
    json::array rows;
    for (const Row& row : report.rows) rows.push_back(to_json(report, row));
    json::object peak{{"measured_bytes_per_s", report.peak}, {"method", "large copies by the copy engine, pipelined"}};
    json::object env{{"kernel", system.release},
                     {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)},
                     {"device", report.device.text},
                     {"uuid", report.device.uuid},
                     {"numa_node", report.device.numa_node}};
    if (!report.peer.empty()) env["peer"] = report.peer;
    if (report.both_peak != 0) peak["both_directions_bytes_per_s"] = report.both_peak;
    return json::serialize(json::object{{"schema", "pegaflow.bench"},
                                        {"schema_version", 1},
                                        {"tool", json::object{{"version", PEGAFLOW_VERSION}}},
                                        {"command", json::array(report.command.begin(), report.command.end())},
                                        {"env", std::move(env)},
                                        {"peak", std::move(peak)},
                                        {"results", std::move(rows)}});
}

Result<void> compare_with(const Report& report, const std::string& file, Context& context) try {
    std::ifstream in(file);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    boost::system::error_code error;
    const json::value old = json::parse(text, error);
    if (error || !old.is_object() || !old.as_object().contains("results") || !old.at("results").is_array())
        return fail(Code::kInvalid,
                    fmt::format("--compare {}: this is no result of `pegaflow bench {} --json`", file, report.path));
    for (const Row& row : report.rows) {
        for (const json::value& before : old.at("results").as_array()) {
            const json::object* o = before.if_object();
            if (o == nullptr || !o->contains("bytes_per_s") || json::value_to<std::string>(o->at("path")) != row.direction ||
                json::value_to<std::string>(o->at("backend")) != row.path ||
                json::value_to<std::string>(o->at("layout")) != report.layout ||
                o->at("fragment_bytes").to_number<std::uint64_t>() != row.shape.geometry.fragment ||
                o->at("bytes").to_number<std::uint64_t>() != row.shape.bytes()) {
                continue;
            }
            const auto samples = json::value_to<std::vector<double>>(o->at("bytes_per_s").at("samples"));
            const double ratio = row.rate() / percentile(samples, 0.5);
            const double p = mann_whitney(row.point.rates, samples);
            context.err << fmt::format("{} {}: {:+.1f} % (p {:.3f})\n", shape_name(row.shape), row.path, 100 * ratio - 100, p);
            if (ratio < 0.95 && p < 0.01 && context.exit == kOk) context.exit = kRegression;
        }
    }
    return {};
} catch (const boost::system::system_error&) {  // of the JSON library: a member is missing or of another type
    return fail(Code::kInvalid,
                fmt::format("--compare {}: this is no result of `pegaflow bench {} --json`", file, report.path));
}

}  // namespace pegaflow::cli
