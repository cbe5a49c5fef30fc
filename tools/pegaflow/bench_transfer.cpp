// SPDX-License-Identifier: Apache-2.0
// pegaflow bench d2h, h2d: scattered blocks between a device's memory and host memory, against the peak of one large copy that
// is measured in the same process. Every point is verified outside the timed part: seeded source, poisoned destination.
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>

#include "pegaflow/bytes.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct Arguments {
    bool to_device = false;
    std::string device;
    std::string sizes = "2K,4K,8K,16K,32K,64K,256K,1M";
    std::string total = "64M";
    std::string layout = "random";  // of the device side; the host side is consecutive unless "both-random"
    int iterations = 10;
    int warmup = 2;
    std::uint64_t seed = 1;
    bool verify = true, json = false, csv = false;
    double min_ratio = 0;
    std::vector<std::string> search_path;
};

struct Point {
    std::uint64_t block = 0, blocks = 0, wrong = 0;
    std::vector<double> micros, submit_micros;
    double rate = 0, percent = 0;
};

double at(std::vector<double> values, double p) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1) + 0.5)];
}

// Memory on both sides, with host staging to fill and check what processors cannot address.
class Sides {
public:
    static Result<Sides> make(Device& device, std::uint64_t bytes) {
        Sides s;
        PEGA_ASSIGN(s.local, device.allocate(device.info().kind, bytes));
        PEGA_ASSIGN(s.remote, device.allocate(PEGA_MEMORY_HOST, bytes));
        PEGA_ASSIGN(s.staging, device.allocate(PEGA_MEMORY_HOST, bytes));
        PEGA_ASSIGN(s.channel, device.open_channel());
        return s;
    }
    Result<void> copy(bool to_local, Region& host) {
        Transfer transfer;
        transfer.flat(local, host).range(0, 0, local.length());
        if (to_local) transfer.read();
        PEGA_ASSIGN(const Completion done, channel.submit_wait(transfer));
        PEGA_TRY(done.wait());
        return {};
    }
    Region local, remote, staging;
    Channel channel;
};

std::uint64_t word(std::uint64_t seed, std::uint64_t i) { return (i + seed) * 0x9e3779b97f4a7c15ULL; }

void fill(Region& region, std::uint64_t seed) {
    auto* words = static_cast<std::uint64_t*>(region.address());
    for (std::uint64_t i = 0; i < region.length() / 8; ++i) words[i] = word(seed, i);
}

Result<double> one_transfer(Sides& sides, Transfer& transfer, double* submit) {
    const auto start = Clock::now();
    PEGA_ASSIGN(const Completion done, sides.channel.submit_wait(transfer));
    const auto submitted = Clock::now();
    PEGA_TRY(done.wait());
    if (submit != nullptr) *submit = std::chrono::duration<double, std::micro>(submitted - start).count();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

Result<double> peak(Sides& sides, const Arguments& arguments) {
    std::vector<double> micros;
    Transfer transfer;
    // Real pages on both sides: memory that was never written is one page of zeros to the processor's caches.
    fill(sides.staging, arguments.seed);
    fill(sides.remote, arguments.seed + 1);
    PEGA_TRY(sides.copy(true, sides.staging));
    for (int i = 0; i < arguments.warmup + 5; ++i) {
        transfer.clear().flat(sides.local, sides.remote).range(0, 0, sides.local.length());
        if (arguments.to_device) transfer.read();
        PEGA_ASSIGN(const double t, one_transfer(sides, transfer, nullptr));
        if (i >= arguments.warmup) micros.push_back(t);
    }
    return static_cast<double>(sides.local.length()) / at(micros, 0.5) * 1e6;
}

Result<Point> measure(Sides& sides, const Arguments& arguments, std::uint64_t block) {
    Point point;
    point.block = block;
    point.blocks = sides.local.length() / block;
    std::vector<std::uint64_t> device(point.blocks);
    std::vector<std::uint64_t> host(point.blocks);
    std::iota(device.begin(), device.end(), 0);
    std::iota(host.begin(), host.end(), 0);
    std::mt19937_64 random(arguments.seed);
    Transfer transfer;
    for (int i = 0; i < arguments.warmup + arguments.iterations; ++i) {
        if (arguments.layout != "contiguous") std::shuffle(device.begin(), device.end(), random);
        if (arguments.layout == "both-random") std::shuffle(host.begin(), host.end(), random);
        const bool check = arguments.verify && (i == arguments.warmup || i + 1 == arguments.warmup + arguments.iterations);
        Region& source = arguments.to_device ? sides.remote : sides.staging;
        if (check) {
            fill(source, arguments.seed + static_cast<std::uint64_t>(i));
            if (!arguments.to_device) PEGA_TRY(sides.copy(true, sides.staging));
            Region& poisoned = arguments.to_device ? sides.staging : sides.remote;
            std::memset(poisoned.address(), 0xEE, poisoned.length());
            if (arguments.to_device) PEGA_TRY(sides.copy(true, sides.staging));
        }
        transfer.clear()
            .indices(device, host)
            .span({sides.local.handle(), sides.remote.handle(), 0, block, 0, 0, block, 0, block, 1, 0});
        if (arguments.to_device) transfer.read();
        double submit = 0;
        PEGA_ASSIGN(const double t, one_transfer(sides, transfer, &submit));
        if (i >= arguments.warmup) {
            point.micros.push_back(t);
            point.submit_micros.push_back(submit);
        }
        if (!check) continue;
        if (arguments.to_device) PEGA_TRY(sides.copy(false, sides.staging));
        // By now the source of the pattern is a host region, and so is what arrived.
        const auto* from = static_cast<const char*>(source.address());
        const auto* to = static_cast<const char*>((arguments.to_device ? sides.staging : sides.remote).address());
        for (std::uint64_t b = 0; b < point.blocks; ++b) {
            const std::uint64_t source_at = (arguments.to_device ? host : device)[b] * block;
            const std::uint64_t target_at = (arguments.to_device ? device : host)[b] * block;
            if (std::memcmp(from + source_at, to + target_at, block) != 0) point.wrong += block;
        }
    }
    point.rate = static_cast<double>(point.blocks * block) / at(point.micros, 0.5) * 1e6;
    return point;
}

boost::json::object to_json(const Point& p, const Arguments& arguments, double peak_rate) {
    boost::json::array samples(p.micros.begin(), p.micros.end());
    return {{"path", arguments.to_device ? "h2d" : "d2h"},
            {"block_bytes", p.block},
            {"blocks", p.blocks},
            {"bytes", p.block * p.blocks},
            {"layout", arguments.layout},
            {"seed", arguments.seed},
            {"iters", arguments.iterations},
            {"bytes_per_s", boost::json::object{{"median", p.rate}}},
            {"pct_of_peak", 100 * p.rate / peak_rate},
            {"time_us",
             boost::json::object{
                 {"p50", at(p.micros, 0.5)}, {"p90", at(p.micros, 0.9)}, {"min", at(p.micros, 0)}, {"max", at(p.micros, 1)}}},
            {"submit_us", boost::json::object{{"p50", at(p.submit_micros, 0.5)}}},
            {"ns_per_block", at(p.submit_micros, 0.5) * 1000 / static_cast<double>(p.blocks)},
            {"verified", arguments.verify},
            {"wrong_bytes", p.wrong},
            {"samples_us", std::move(samples)}};
}

Result<std::vector<std::uint64_t>> parse_sizes(const std::string& text, std::uint64_t total) {
    std::vector<std::uint64_t> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) {
        PEGA_ASSIGN(const std::uint64_t size, parse_size(part));
        if (size == 0 || size % 8 != 0 || size > total)
            return fail(Code::kInvalid, fmt::format("block size {} must be a multiple of 8 and at most --total", part));
        out.push_back(size);
    }
    return out;
}

Result<void> bench(const Arguments& arguments, Context& context) {
    PEGA_ASSIGN(const std::uint64_t total, parse_size(arguments.total));
    PEGA_ASSIGN(const auto sizes, parse_sizes(arguments.sizes, total));
    PEGA_ASSIGN(const auto fabric, Fabric::open({.search_path = arguments.search_path}));
    if (fabric->devices().empty()) return fail(Code::kNotFound, "no device can be used here; `pegaflow plugins` says why");
    std::string name = arguments.device;
    for (const DeviceInfo& info : fabric->devices()) {
        if (name.empty() || (arguments.device.empty() && info.kind == PEGA_MEMORY_GPU)) name = info.name;
    }
    PEGA_ASSIGN(Device* const device, fabric->device(name));
    PEGA_ASSIGN(Sides sides, Sides::make(*device, total));
    PEGA_ASSIGN(const double peak_rate, peak(sides, arguments));
    utsname system{};
    ::uname(&system);
    std::ostream& out = context.out;
    const char* path = arguments.to_device ? "h2d" : "d2h";
    if (!arguments.json && !arguments.csv) {
        out << fmt::format("# pegaflow bench {}  v{}  {} ({})  layout {}  {} a sample  verify {}\n", path, PEGAFLOW_VERSION,
                           device->info().name, device->info().text, arguments.layout, format_size(total),
                           arguments.verify ? "on" : "OFF");
        out << fmt::format("# peak (measured, one copy of {}): {:.2f} GB/s\n", format_size(total), peak_rate / 1e9);
        out << fmt::format("{:>9} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9} {:>10} {:>9} {:>6}\n", "block", "blocks", "GB/s", "%peak",
                           "p50_us", "p90_us", "max_us", "submit_us", "ns/block", "check");
    } else if (arguments.csv) {
        out << "path,block_bytes,blocks,bytes_per_s,pct_of_peak,p50_us,p90_us,max_us,submit_us,wrong_bytes\n";
    }
    boost::json::array rows;
    for (const std::uint64_t size : sizes) {
        if (::isatty(2) != 0) context.err << fmt::format("\r{} ...", format_size(size)) << std::flush;
        PEGA_ASSIGN(const Point p, measure(sides, arguments, size));
        if (::isatty(2) != 0) context.err << "\r" << std::flush;
        const double percent = 100 * p.rate / peak_rate;
        if (arguments.json) {
            rows.push_back(to_json(p, arguments, peak_rate));
        } else if (arguments.csv) {
            out << fmt::format("{},{},{},{:.0f},{:.2f},{:.2f},{:.2f},{:.2f},{:.2f},{}\n", path, p.block, p.blocks, p.rate,
                               percent, at(p.micros, 0.5), at(p.micros, 0.9), at(p.micros, 1), at(p.submit_micros, 0.5),
                               p.wrong);
        } else {
            out << fmt::format("{:>9} {:>8} {:>8.2f} {:>7.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>10.1f} {:>9.1f} {:>6}\n",
                               format_size(p.block), p.blocks, p.rate / 1e9, percent, at(p.micros, 0.5), at(p.micros, 0.9),
                               at(p.micros, 1), at(p.submit_micros, 0.5),
                               at(p.submit_micros, 0.5) * 1000 / static_cast<double>(p.blocks),
                               !arguments.verify ? "-"
                               : p.wrong == 0    ? "ok"
                                                 : "WRONG");
        }
        if (p.wrong != 0) context.exit = kVerifyFailed;
        if (context.exit == kOk && arguments.min_ratio > 0 && percent < arguments.min_ratio) context.exit = kBelowRatio;
    }
    if (arguments.json) {
        boost::json::array command(context.command.begin(), context.command.end());
        out << boost::json::serialize(boost::json::object{
                   {"schema", "pegaflow.bench"},
                   {"schema_version", 1},
                   {"tool", boost::json::object{{"version", PEGAFLOW_VERSION}}},
                   {"command", std::move(command)},
                   {"env", boost::json::object{{"kernel", system.release},
                                               {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)},
                                               {"device", device->info().text},
                                               {"uuid", device->info().uuid},
                                               {"numa_node", device->info().numa_node}}},
                   {"peak",
                    boost::json::object{{"measured_bytes_per_s", peak_rate}, {"method", "one copy of the whole region"}}},
                   {"results", std::move(rows)}})
            << "\n";
    }
    return {};
}

}  // namespace

void add_bench_transfer(CLI::App& bench_verb, Context& context) {
    for (const bool to_device : {false, true}) {
        auto arguments = std::make_shared<Arguments>();
        arguments->to_device = to_device;
        CLI::App& verb = *bench_verb.add_subcommand(
            to_device ? "h2d" : "d2h", to_device ? "Host memory to a device, in blocks" : "A device to host memory, in blocks");
        verb.add_option("-d,--device", arguments->device, "Device name; default: the last GPU, else the host");
        verb.add_option("-s,--block-size", arguments->sizes, "Block sizes, comma separated")->capture_default_str();
        verb.add_option("--total", arguments->total, "Bytes a sample")->capture_default_str();
        verb.add_option("--layout", arguments->layout, "Of the blocks")
            ->check(CLI::IsMember({"contiguous", "random", "both-random"}))
            ->capture_default_str();
        verb.add_option("-n,--iters", arguments->iterations)->check(CLI::Range(1, 1000000))->capture_default_str();
        verb.add_option("-w,--warmup", arguments->warmup)->check(CLI::Range(0, 1000))->capture_default_str();
        verb.add_option("--seed", arguments->seed)->capture_default_str();
        verb.add_flag("!--no-verify", arguments->verify, "Do not check the bytes");
        verb.add_flag("--json", arguments->json);
        verb.add_flag("--csv", arguments->csv);
        verb.add_option("--min-ratio", arguments->min_ratio, "Exit 3 when a point is below this percentage of the peak");
        verb.add_option("--search-path", arguments->search_path, "Further directories with back ends");
        verb.callback([arguments, &context] {
            if (const auto done = bench(*arguments, context); !done) context.fail(done.error());
        });
    }
}

}  // namespace pegaflow::cli
