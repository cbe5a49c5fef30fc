// SPDX-License-Identifier: Apache-2.0
// pegaflow bench ssd: files and disks through the nvme back end and the public transfer interface, against the device's own
// peak and, on request, against fio with the same load, run in turns with ours. Bytes are checked outside the timed part.
#include "tools/pegaflow/bench_ssd.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_head.hpp"
#include "tools/pegaflow/bench_ssd_tier.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using namespace ssd;

// The runs of one point, ours and the reference's.
struct Point {
    Load load;
    std::vector<Run> ours, reference;
    std::vector<Run>
        equal;  // the reference again, doing the same work as the tier: it flushes as often, it makes and checks digests
    std::vector<std::string> reference_command, equal_command;
    double percent = 0;  // of the reference when there is one, else of the peak
};

template <class T>
std::vector<double> pick(const std::vector<Run>& runs, T Run::* member) {
    std::vector<double> out;
    for (const Run& run : runs) out.push_back(static_cast<double>(run.*member));
    return out;
}

boost::json::object spread(const std::vector<double>& values) {
    const double count = static_cast<double>(values.size());
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double squares = 0;
    for (const double v : values) squares += (v - mean) * (v - mean);
    const double deviation = values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0;
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    return {{"median", median(values)},
            {"mean", mean},
            {"min", *low},
            {"max", *high},
            {"stddev", deviation},
            {"cv_pct", mean > 0 ? 100 * deviation / mean : 0}};
}

Histogram all_latencies(const Point& point) {
    Histogram out;
    for (const Run& run : point.ours) out.merge(run.latency);
    return out;
}

std::uint64_t sum(const Point& point, std::uint64_t Run::* member) {
    std::uint64_t out = 0;
    for (const Run& run : point.ours) out += run.*member;
    return out;
}

std::uint64_t wrong_bytes(const Point& point) { return sum(point, &Run::wrong); }

boost::json::object fio_json(const std::vector<Run>& runs, const std::vector<std::string>& command) {
    return {{"tool", "fio"},
            {"command", boost::json::array(command.begin(), command.end())},
            {"bytes_per_s", spread(pick(runs, &Run::bytes_per_s))},
            {"ops_per_s", spread(pick(runs, &Run::ops_per_s))},
            {"cpu_us_per_op", spread(pick(runs, &Run::cpu_us_per_op))},
            {"time_us", runs.back().time_us}};
}

boost::json::object to_json(const Point& p, const Arguments& a, double peak) {
    const Histogram h = all_latencies(p);
    const auto known = [&](double q, std::uint64_t needed) {
        return h.count() >= needed ? boost::json::value(h.percentile_us(q)) : boost::json::value(nullptr);
    };
    boost::json::object out = {{"path", "ssd"},
                               {"rw", to_string(p.load.mode)},
                               {"backend", a.backend},
                               {"tier", a.tier},
                               {"block_bytes", p.load.block},
                               {"depth", p.load.depth},
                               {"threads", p.load.threads},
                               {"batch", p.load.batch},
                               {"access", p.load.sequential ? "sequential" : "random"},
                               {"seed", a.seed},
                               {"seconds", a.seconds},
                               {"repetitions", p.ours.size()},
                               {"bytes_per_s", spread(pick(p.ours, &Run::bytes_per_s))},
                               {"ops_per_s", spread(pick(p.ours, &Run::ops_per_s))},
                               {"cpu_us_per_op", spread(pick(p.ours, &Run::cpu_us_per_op))},
                               {"pct_of_peak", peak > 0 ? 100 * median(pick(p.ours, &Run::bytes_per_s)) / peak : 0},
                               {"time_us", boost::json::object{{"p50", h.percentile_us(0.5)},
                                                               {"p90", h.percentile_us(0.9)},
                                                               {"p99", known(0.99, 1000)},
                                                               {"p999", known(0.999, 10000)},
                                                               {"min", h.min_us()},
                                                               {"max", h.max_us()},
                                                               {"mean", h.mean_us()},
                                                               {"stddev", h.stddev_us()}}},
                               {"verified", a.verify && sum(p, &Run::checked) != 0},
                               {"checked_bytes", sum(p, &Run::checked)},
                               {"wrong_bytes", wrong_bytes(p)}};
    const double cpu = median(pick(p.ours, &Run::cpu_us_per_op));
    const double digest = median(pick(p.ours, &Run::digest_us_per_op));
    if (a.tier) {
        out["batch"] = out["access"] = "chosen by the tier";
        out["digest_us_per_op"] = digest;
        if (p.load.mode != Mode::kRead) out["bytes_per_flush"] = median(pick(p.ours, &Run::bytes_per_flush));
    }
    if (p.reference.empty()) return out;
    const double theirs = median(pick(p.reference, &Run::cpu_us_per_op));
    out["reference"] = fio_json(p.reference, p.reference_command);
    out["pct_of_reference"] = p.percent;
    out["cpu_pct_of_reference"] = percent_of(p.reference, p.ours, &Run::cpu_us_per_op);
    if (a.tier) out["cpu_without_digest_pct_of_reference"] = 100 * (cpu - digest) / theirs;
    if (p.equal.empty()) return out;
    const std::string name = p.load.mode == Mode::kRead ? "verifying_reference" : "durable_reference";
    out[name] = fio_json(p.equal, p.equal_command);
    out["pct_of_" + name] = percent_of(p.equal, p.ours, &Run::bytes_per_s);
    out["cpu_pct_of_" + name] = percent_of(p.equal, p.ours, &Run::cpu_us_per_op);
    return out;
}

void print_header(const Arguments& a, const Bench& bench, const Head& head, double peak, const std::string& fio,
                  std::ostream& out) {
    const boost::json::object disk = describe(bench.paths()[0]);
    const auto text = [&](const char* key) {
        const auto* value = disk.if_contains(key);
        return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string("?");
    };
    out << fmt::format("# {}  {}{} ({}, disk {}, scheduler {}, write cache {}, poll queues {})  {}  verify {}\n",
                       head.title("ssd"), bench.paths()[0],
                       bench.paths().size() > 1 ? fmt::format(" and {} more", bench.paths().size() - 1) : "",
                       format_size(bench.bytes()), text("disk"), text("scheduler"), text("write_cache"), text("io_poll"),
                       a.backend, a.verify ? "on" : "OFF");
    head.print_warnings(out);
    out << fmt::format(
        "# peak (measured, sequential reads of 1 MiB, 32 in flight): {:.3f} GB/s{}\n", peak / 1e9,
        fio.empty() ? "" : fmt::format("; reference {}, in turns with ours, its buffers in {} pages", fio, a.fio_memory));
    out << fmt::format("{:>6} {:>8} {:>5} {:>3} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9} {:>5} {:>7}", "rw", "block", "depth", "thr",
                       "GB/s", "IOPS", "%peak", "p50_us", "p99_us", "max_us", "cv%", "us/op");
    if (a.tier) out << fmt::format(" {:>7}", "dig us");
    if (!fio.empty()) {
        out << fmt::format(" {:>9} {:>6} {:>9} {:>6}", "fio GB/s", "%fio", "fio us/op", "%cpu");
        if (a.tier) out << fmt::format(" {:>7} {:>9} {:>6} {:>6}", "%cpu-dg", "same work", "%fio", "%cpu");
    }
    out << "  check\n";
}

void print_row(const Point& p, const Arguments& a, double peak, std::ostream& out) {
    const Histogram h = all_latencies(p);
    const double rate = median(pick(p.ours, &Run::bytes_per_s));
    const double cpu = median(pick(p.ours, &Run::cpu_us_per_op));
    const boost::json::object range = spread(pick(p.ours, &Run::bytes_per_s));
    out << fmt::format("{:>6} {:>8} {:>5} {:>3} {:>9.3f} {:>9.0f} {:>6.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>5.1f} {:>7.2f}",
                       to_string(p.load.mode), format_size(p.load.block), p.load.depth, p.load.threads, rate / 1e9,
                       median(pick(p.ours, &Run::ops_per_s)), 100 * rate / peak, h.percentile_us(0.5), h.percentile_us(0.99),
                       h.max_us(), range.at("cv_pct").as_double(), cpu);
    const double digest = median(pick(p.ours, &Run::digest_us_per_op));
    if (a.tier) out << fmt::format(" {:>7.2f}", digest);
    if (!p.reference.empty()) {
        const double theirs = median(pick(p.reference, &Run::cpu_us_per_op));
        out << fmt::format(" {:>9.3f} {:>6.1f} {:>9.2f} {:>6.1f}", median(pick(p.reference, &Run::bytes_per_s)) / 1e9,
                           p.percent, theirs, percent_of(p.reference, p.ours, &Run::cpu_us_per_op));
        if (a.tier) out << fmt::format(" {:>7.1f}", 100 * (cpu - digest) / theirs);
    }
    const double equal = median(pick(p.equal, &Run::bytes_per_s));
    if (a.tier && !p.reference.empty())
        out << (p.equal.empty()
                    ? fmt::format(" {:>9} {:>6} {:>6}", "-", "-", "-")
                    : fmt::format(" {:>9.3f} {:>6.1f} {:>6.1f}", equal / 1e9, percent_of(p.equal, p.ours, &Run::bytes_per_s),
                                  percent_of(p.equal, p.ours, &Run::cpu_us_per_op)));
    out << (!a.verify ? "      -" : wrong_bytes(p) == 0 ? "     ok" : "  WRONG") << "\n" << std::flush;
}

void print_csv(const Point& p, std::ostream& out) {
    const Histogram h = all_latencies(p);
    out << fmt::format("ssd,{},{},{},{},{},{:.0f},{:.0f},{:.2f},{:.2f},{:.2f},{:.3f},{},{:.2f}\n", to_string(p.load.mode),
                       p.load.block, p.load.depth, p.load.threads, p.load.batch, median(pick(p.ours, &Run::bytes_per_s)),
                       median(pick(p.ours, &Run::ops_per_s)), h.percentile_us(0.5), h.percentile_us(0.99), h.max_us(),
                       median(pick(p.ours, &Run::cpu_us_per_op)), wrong_bytes(p), p.percent);
}

// All repetitions of all points; those of one point do not follow each other, so that a drift of the disk meets all of them.
//
// Beside a tier, what either side reads was written just before: what lies behind a virtual disk may be faster or slower then.
// Where only one load of reads is asked for, both sides read what they have again in each round.
Result<void> measure(Bench& bench, TierBench* tier, const Arguments& a, std::vector<Point>& points, std::ostream& err) {
    const bool again = points.size() == 1 && points[0].load.mode == Mode::kRead;
    for (int round = 0; round < a.repetitions; ++round) {
        for (std::size_t i = 0; i < points.size(); ++i) {
            Point& p = points[i];
            if (::isatty(2) != 0)
                err << fmt::format("\r{} {} ({} of {}) ...   ", to_string(p.load.mode), format_size(p.load.block),
                                   static_cast<std::size_t>(round) * points.size() + i + 1,
                                   static_cast<std::size_t>(a.repetitions) * points.size())
                    << std::flush;
            // The one that runs second finds a warmer disk: they change places.
            for (int turn = 0; turn < 2; ++turn) {
                if ((turn + round) % 2 == 0) {
                    PEGA_ASSIGN(Run run, tier != nullptr ? tier->run(p.load, again) : bench.run(p.load));
                    p.ours.push_back(std::move(run));
                } else if (!a.compare.empty()) {
                    if (tier != nullptr && !again) bench.note_foreign_writes();
                    PEGA_TRY(bench.fill());
                    PEGA_ASSIGN(Run run, run_fio(p.load, bench, a, {}, &p.reference_command));
                    if (p.load.mode != Mode::kRead) bench.note_foreign_writes();
                    p.reference.push_back(std::move(run));
                }
            }
            const double flush_bytes = p.ours.back().bytes_per_flush;
            const bool reads = p.load.mode == Mode::kRead;
            if (a.compare.empty() || tier == nullptr || (!reads && flush_bytes == 0)) continue;
            if (!again) bench.note_foreign_writes();
            if (reads && !(again && round > 0)) PEGA_TRY(prepare_verification(p.load, bench, a));
            PEGA_ASSIGN(Run run, run_fio(p.load, bench, a, {flush_bytes, true}, &p.equal_command));
            p.equal.push_back(std::move(run));
        }
    }
    if (::isatty(2) != 0) err << "\r" << std::flush;
    return {};
}

bool has_huge_memory(const Bench& bench, const TierBench* tier) {
    return tier != nullptr ? tier->huge_memory() : bench.huge_memory();
}

boost::json::object report(const Arguments& a, const Bench& bench, const TierBench* tier, const Head& head,
                           const std::vector<Point>& points, double peak, const std::string& fio) {
    boost::json::array disks;
    for (const std::string& path : bench.paths()) disks.push_back(describe(path));
    boost::json::array rows;
    for (const Point& point : points) rows.push_back(to_json(point, a, peak));
    boost::json::object out = head.to_json();
    boost::json::object& env = out["env"].as_object();
    env["reference"] = fio;
    env["memory"] = has_huge_memory(bench, tier) ? "huge" : "plain";
    env["reference_memory"] = fio.empty() ? "" : a.fio_memory;
    env["region_bytes"] = bench.bytes();
    env["tier_capacity_bytes"] = tier != nullptr ? tier->capacity() : 0;
    env["ssd"] = std::move(disks);
    out["peak"] = boost::json::object{{"measured_bytes_per_s", peak}, {"method", "sequential reads of 1 MiB, 32 in flight"}};
    out["results"] = std::move(rows);
    return out;
}

void judge(const Arguments& a, std::vector<Point>& points, double peak, Context& context) {
    for (Point& p : points) {
        if (!p.reference.empty()) {
            p.percent = percent_of(p.reference, p.ours, &Run::bytes_per_s);
        } else if (peak > 0) {
            p.percent = 100 * median(pick(p.ours, &Run::bytes_per_s)) / peak;
        }
        if (wrong_bytes(p) != 0) context.exit = kVerifyFailed;
        if (context.exit == kOk && a.min_ratio > 0 && p.percent < a.min_ratio) context.exit = kBelowRatio;
    }
}

Result<void> bench_ssd(Arguments a, Context& context) {
    const Head head(context);
    if (a.tier) PEGA_TRY(TierBench::check(a));
    PEGA_ASSIGN(const auto sizes, parse_sizes(a.sizes));
    PEGA_ASSIGN(const auto modes, parse_modes(a.modes));
    std::string fio;
    if (!a.compare.empty()) {
        PEGA_ASSIGN(fio, fio_version());
    }
    PEGA_ASSIGN(const auto bench, Bench::open(a));
    PEGA_ASSIGN(const Run peak_run, bench->run({Mode::kRead, 1 << 20, 32, 1, 1, true}));
    const double peak = peak_run.bytes_per_s;
    std::vector<Point> points;
    for (const Mode mode : modes) {
        for (const std::uint64_t size : sizes) {
            points.emplace_back();
            points.back().load = {mode, size, a.depth, a.threads, std::min(a.batch, a.depth), a.sequential};
        }
    }
    std::unique_ptr<TierBench> tier;
    if (a.tier) {
        PEGA_ASSIGN(tier, TierBench::open(a));
    }
    if (!fio.empty()) {
        const std::uint64_t largest = *std::max_element(sizes.begin(), sizes.end());
        PEGA_ASSIGN(a.fio_memory, choose_fio_memory(a.fio_memory, has_huge_memory(*bench, tier.get()),
                                                    (largest * a.depth + (2 << 20)) * a.threads));
    }
    PEGA_TRY(measure(*bench, tier.get(), a, points, context.err));
    judge(a, points, peak, context);
    const bool table = a.json != "-" && !a.csv;
    if (table) print_header(a, *bench, head, peak, fio, context.out);
    if (a.csv)
        context.out << "path,rw,block_bytes,depth,threads,batch,bytes_per_s,ops_per_s,p50_us,p99_us,max_us,cpu_us_per_op,wrong_"
                       "bytes,pct\n";
    for (const Point& point : points) {
        if (table) print_row(point, a, peak, context.out);
        if (a.csv) print_csv(point, context.out);
    }
    if (a.json.empty()) return {};
    return write_output(a.json, boost::json::serialize(report(a, *bench, tier.get(), head, points, peak, fio)) + "\n",
                        context.out);
}

}  // namespace

void add_bench_ssd(CLI::App& bench_verb, Context& context) {
    auto a = std::make_shared<Arguments>();
    CLI::App& verb = *bench_verb.add_subcommand("ssd", "Files and disks through the nvme back end, also against fio");
    verb.add_option("-d,--device", a->paths,
                    "Directories in which files are made and deleted (default /var/tmp), or files and disks whose bytes are "
                    "lost; several are striped, with --tier they are devices of one cache");
    verb.add_option("-s,--block-size", a->sizes, "Block sizes, comma separated")->capture_default_str();
    verb.add_option("--rw", a->modes, "read, write, mixed, comma separated")->capture_default_str();
    verb.add_option("--read-percent", a->read_percent, "Of the mixed load")->check(CLI::Range(1, 99))->capture_default_str();
    verb.add_option("--file-size", a->file_size, "Bytes that are used")->capture_default_str();
    verb.add_option("--depth", a->depth, "Blocks in flight a thread")->check(CLI::Range(1, 1024))->capture_default_str();
    verb.add_option("-t,--threads", a->threads, "Device handles, each with a ring and a thread")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    verb.add_option("--batch", a->batch, "Blocks a submission")->check(CLI::Range(1, 1024))->capture_default_str();
    verb.add_flag("--sequential", a->sequential, "Instead of random places");
    verb.add_option("--backend", a->backend)->check(CLI::IsMember({"uring", "uring-poll", "passthru"}))->capture_default_str();
    verb.add_option("-D,--duration", a->seconds, "Seconds a run")->check(CLI::Range(0.05, 3600.0))->capture_default_str();
    verb.add_option("--warmup", a->warmup_seconds, "Seconds before a run is measured")
        ->check(CLI::Range(0.0, 600.0))
        ->capture_default_str();
    verb.add_option("--repetitions", a->repetitions, "Runs of each point")->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--compare", a->compare, "Run a reference with the same load, in turns")->check(CLI::IsMember({"fio"}));
    verb.add_option("--fio-memory", a->fio_memory,
                    "fio's buffers: huge (pages that are set aside) or plain; without it what ours are, where there are enough")
        ->check(CLI::IsMember({"huge", "plain"}));
    verb.add_option("--min-ratio", a->min_ratio,
                    "Exit 3 when a point is below this percentage of the reference, or of the peak without one");
    verb.add_option("--seed", a->seed)->capture_default_str();
    verb.add_flag("!--no-verify", a->verify, "Do not check the bytes");
    verb.add_flag("--tier", a->tier,
                  "Blocks through the whole SSD tier instead, with digests made and checked; in a directory of its own");
    verb.add_flag("--overwrite", a->overwrite, "The bytes of the files and disks that --device names are not needed");
    add_output_option(verb, "--json", a->json, "JSON");
    verb.add_flag("--csv", a->csv);
    verb.add_option("--option", a->options, "KEY=VALUE for the nvme back end");
    verb.add_option("--search-path", a->search_path, "Further directories with back ends");
    verb.callback([a, &context] {
        if (const auto done = bench_ssd(*a, context); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
