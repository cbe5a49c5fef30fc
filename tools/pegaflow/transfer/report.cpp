// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/report.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <ostream>

#include "pegaflow/bytes.hpp"

namespace pegaflow::cli {
namespace {

namespace json = boost::json;

// Fewer samples do not tell a percentile.
constexpr std::size_t kFor99 = 1000, kFor999 = 10000;

bool is_together(const Row& row) { return !row.together.copies.bytes_per_second.empty(); }

const char* to_string(Placement placement) { return placement == Placement::kLayerFirst ? "layer-first" : "page-first"; }

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

// What is moved, and how it is asked for.
json::object describe(const Report& report, const Row& row) {
    const Shape& shape = row.plan.shape;
    const Geometry& g = shape.geometry;
    json::object out{{"path", row.direction},
                     {"backend", row.path},
                     {"preset", g.name},
                     {"block_bytes", g.page()},
                     {"fragment_bytes", g.fragment},
                     {"fragments", shape.fragments()},
                     {"layers", g.layers},
                     {"blocks", shape.blocks},
                     {"bytes", shape.bytes()},
                     {"layout", report.layout},
                     {"device_layout", to_string(shape.device_placement)},
                     {"host_layout", to_string(shape.host_placement)},
                     {"outstanding", row.plan.outstanding},
                     {"threads", row.plan.threads},
                     {"batch_blocks", row.plan.batch},
                     {"seed", row.plan.seed}};
    if (is_together(row)) return out;
    out["repetitions"] = row.plan.repetitions;
    out["iters"] = row.plan.seconds > 0 ? json::value(nullptr) : json::value(row.plan.iterations);
    out["seconds"] = row.plan.seconds > 0 ? json::value(row.plan.seconds) : json::value(nullptr);
    return out;
}

void add_point(json::object& out, const Report& report, const Row& row) {
    const Point& p = row.point;
    const Shape& shape = row.plan.shape;
    const double blocks = static_cast<double>(shape.blocks);
    const double submit_ns = percentile(p.submit_us, 0.5) * 1000;
    out["bytes_per_s"] = json::object{{"median", percentile(p.rates, 0.5)},
                                      {"mean", mean(p.rates)},
                                      {"min", percentile(p.rates, 0)},
                                      {"max", percentile(p.rates, 1)},
                                      {"stddev", deviation(p.rates)},
                                      {"cv_pct", cv_percent(p.rates)},
                                      {"samples", json::array(p.rates.begin(), p.rates.end())}};
    if (report.theoretical > 0) out["pct_of_theoretical"] = 100 * row.rate() / report.theoretical;
    out["ops_per_s"] = row.rate() * blocks / static_cast<double>(shape.bytes());
    out["time_us"] = statistics(p.solo_us);
    out["solo_pct_of_peak"] = 100 * static_cast<double>(shape.bytes()) / percentile(p.solo_us, 0.5) * 1e6 / row.peak;
    out["submit_us"] = statistics(p.submit_us);
    out["ns_per_block"] = submit_ns / blocks;
    out["submit_ns_per_fragment"] = submit_ns / static_cast<double>(shape.fragments());
    out["cpu_pct"] = percentile(p.cpu_pct, 0.5);
    out["verified"] = p.verified;
    out["wrong_bytes"] = p.wrong_bytes;
    out["samples_us"] = json::array(p.solo_us.begin(), p.solo_us.end());
    if (report.digests) out["digests"] = json::object{{"computed", p.digested}, {"wrong", p.wrong_digests}};
}

}  // namespace

std::string p99_text(const std::vector<double>& values, const char* unknown) {
    return values.size() < kFor99 ? unknown : fmt::format("{:.1f}", percentile(values, 0.99));
}

std::string shape_name(const Shape& shape) {
    const Geometry& g = shape.geometry;
    if (!g.name.empty()) return g.name;
    return g.layers == 1 ? format_size(g.fragment) : format_size(g.page()) + "/" + format_size(g.fragment);
}

json::object statistics(const std::vector<double>& values) {
    const auto known = [&](double p, std::size_t needed) {
        return values.size() >= needed ? json::value(percentile(values, p)) : json::value(nullptr);
    };
    return {{"p50", percentile(values, 0.5)}, {"p90", percentile(values, 0.9)}, {"p99", known(0.99, kFor99)},
            {"p999", known(0.999, kFor999)},  {"min", percentile(values, 0)},   {"max", percentile(values, 1)},
            {"mean", mean(values)},           {"stddev", deviation(values)}};
}

json::object to_json(const Report& report, const Row& row) {
    json::object out = describe(report, row);
    out["pct_of_peak"] = row.percent(report);
    out["peak_bytes_per_s"] = is_together(row) ? report.both_peak : row.peak;
    if (is_together(row)) {
        out["together"] = to_json(row.together);
    } else {
        add_point(out, report, row);
    }
    return out;
}

double Row::rate() const {
    return together.copies.bytes_per_second.empty() ? percentile(point.rates, 0.5) : together.copies.sum();
}

double Row::percent(const Report& report) const {
    return 100 * rate() / (together.copies.bytes_per_second.empty() ? peak : report.both_peak);
}

void print_header(const Report& r, std::ostream& out) {
    out << fmt::format("# {}  {} ({})  {}layout {}  verify {}\n", r.head.title(r.path), r.device.name, r.device.text,
                       r.peer.empty() ? "" : "other process " + r.peer + "  ", r.layout, r.verify ? "on" : "OFF");
    r.head.print_warnings(out);
    out << fmt::format("# peak (large copies, measured): {:.2f} GB/s", r.peak / 1e9);
    if (r.both_peak != 0) out << fmt::format("; both directions at once {:.2f} GB/s", r.both_peak / 1e9);
    if (r.theoretical > 0) out << fmt::format("; theoretical, one way {:.1f} GB/s", r.theoretical / 1e9);
    out << "\n";
    if (r.both_peak != 0) {
        out << fmt::format("{:>18} {:>7} {:>8} {:>7} {:>8} {:>8} {:>12} {:>12} {:>10}\n", "fragment", "path", "GB/s", "%peak",
                           "first", "second", "beside GB/s", "kept %", "product -%");
        return;
    }
    out << fmt::format("{:>18} {:>9} {:>7} {:>8} {:>7} {:>5} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>8} {:>6} {:>6}\n", "block",
                       "count", "path", "GB/s", "%peak", "cv%", "solo_p50", "solo_p90", "solo_p99", "solo_max", "solo%",
                       "submit_us", "ns/frag", "cpu%", "check");
}

void print_row(const Report& r, const Row& row, std::ostream& out) {
    const std::string name = shape_name(row.plan.shape);
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
    const std::uint64_t fragments = row.plan.shape.fragments();
    const double solo = percentile(p.solo_us, 0.5);
    const double submit = percentile(p.submit_us, 0.5);
    out << fmt::format(
        "{:>18} {:>9} {:>7} {:>8.2f} {:>7.1f} {:>5.1f} {:>9.1f} {:>9.1f} {:>9} {:>9.1f} {:>7.1f} {:>9.1f} "
        "{:>8.1f} {:>6.1f} {:>6}\n",
        name, fragments, row.path, row.rate() / 1e9, row.percent(r), cv_percent(p.rates), solo, percentile(p.solo_us, 0.9),
        p99_text(p.solo_us, "-"), percentile(p.solo_us, 1),
        100 * static_cast<double>(row.plan.shape.bytes()) / solo * 1e6 / r.peak, submit,
        submit * 1000 / static_cast<double>(fragments), percentile(p.cpu_pct, 0.5),
        !p.verified ? "-" : (p.wrong_bytes + p.wrong_digests != 0 ? "WRONG" : (p.digested ? "ok+d" : "ok")));
}

std::string csv_header() {
    return "path,backend,fragment_bytes,bytes,bytes_per_s,pct_of_peak,solo_p50_us,solo_p99_us,submit_us,wrong_bytes,block_"
           "bytes,"
           "solo_p90_us,cpu_pct\n";
}

std::string csv_row(const Report& r, const Row& row) {
    const Point& p = row.point;
    const Shape& shape = row.plan.shape;
    return fmt::format("{},{},{},{},{:.0f},{:.2f},{:.2f},{},{:.2f},{},{},{:.2f},{:.1f}\n", row.direction, row.path,
                       shape.geometry.fragment, shape.bytes(), row.rate(), row.percent(r), percentile(p.solo_us, 0.5),
                       p99_text(p.solo_us, ""), percentile(p.submit_us, 0.5), p.wrong_bytes, shape.geometry.page(),
                       percentile(p.solo_us, 0.9), percentile(p.cpu_pct, 0.5));
}

std::string to_json(const Report& report) {
    json::array rows;
    for (const Row& row : report.rows) rows.push_back(to_json(report, row));
    json::object out = report.head.to_json();
    if (!report.peer.empty()) out["env"].as_object()["peer"] = report.peer;
    json::object peak{{"measured_bytes_per_s", report.peak}, {"method", "large copies by the copy engine, pipelined"}};
    if (report.theoretical > 0) peak["theoretical_bytes_per_s"] = report.theoretical;
    if (report.both_peak != 0) peak["both_directions_bytes_per_s"] = report.both_peak;
    out["peak"] = std::move(peak);
    out["results"] = std::move(rows);
    return json::serialize(out);
}

}  // namespace pegaflow::cli
