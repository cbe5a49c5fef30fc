// SPDX-License-Identifier: Apache-2.0
// pegaflow bench nccl: scattered pages between the GPUs of two processes by the nccl back end, against plain ncclSend and
// ncclRecv of the same sizes in the same run. Every point is verified on a poisoned target outside the timed part.
#include <fmt/format.h>
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <sstream>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_nccl_peer.hpp"
#include "tools/pegaflow/transfer/geometry.hpp"
#include "tools/pegaflow/transfer/sample.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

struct Arguments {
    std::string devices = "nccl:0,nccl:1";
    std::string mode = "both";
    std::string sizes = "4K,16K,64K,256K,1M,4M,16M";
    std::string total = "64M";
    std::string serve;  // hidden
    std::vector<std::string> options, search_path;
    std::uint32_t outstanding = 4, iterations = 20, warmup = 3, repetitions = 5;
    std::uint64_t seed = 1;
    bool verify = true, json = false, csv = false;
    double min_ratio = 0;
};

struct Row {
    bool reads = false;
    std::uint64_t page = 0, bytes = 0;
    std::vector<double> rates, plain, solo_us, submit_us;
    double peak = 0;  // plain NCCL, the whole in one message
    std::uint64_t wrong_bytes = 0;
    bool verified = false;
    double rate() const { return percentile(rates, 0.5); }
    double solo_rate() const { return static_cast<double>(bytes) / percentile(solo_us, 0.5) * 1e6; }
    double percent() const { return 100 * rate() / percentile(plain, 0.5); }
};

Result<std::vector<std::string>> list_of(const std::string& text) {
    std::vector<std::string> out;
    std::stringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) out.push_back(part);
    if (out.empty()) return fail(Code::kInvalid, fmt::format("\"{}\" is no list", text));
    return out;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Bench {
public:
    Bench(const Arguments& arguments, Context& context) : a_(arguments), context_(context) {}

    Result<void> run() {
        PEGA_ASSIGN(const auto devices, list_of(a_.devices));
        PEGA_ASSIGN(total_, parse_size(a_.total));
        PEGA_ASSIGN(const auto sizes, list_of(a_.sizes));
        PEGA_ASSIGN(const FabricOptions options, fabric_options());
        if (devices.size() != 2) return fail(Code::kInvalid, "--device takes two devices, as in nccl:0,nccl:1");
        const std::uint64_t bytes = total_ * a_.outstanding;
        PEGA_ASSIGN(end_, NcclEnd::open(options, devices[a_.serve.empty() ? 0 : 1], bytes));
        if (!a_.serve.empty()) return serve_nccl_peer(*end_, a_.serve);
        PEGA_ASSIGN(peer_, NcclPeer::start(context_.command, bytes));
        PEGA_ASSIGN(remote_, end_->device().import_region(peer_->descriptor()));
        PEGA_ASSIGN(channel_, end_->device().open_channel(peer_->address()));
        PEGA_TRY(join());
        print_header(devices);
        for (const bool reads : {false, true}) {
            if (a_.mode != "both" && reads != (a_.mode == "read")) continue;
            PEGA_ASSIGN(const auto peak, plain(!reads, total_));
            for (const std::string& text : sizes) {
                PEGA_ASSIGN(const std::uint64_t page, parse_size(text));
                if (page == 0 || page % 8 != 0 || page > total_)
                    return fail(Code::kInvalid, fmt::format("page size {} must be a multiple of 8 and at most --total", text));
                PEGA_ASSIGN(Row row, measure_row(reads, page));
                row.peak = percentile(peak, 0.5);
                add(std::move(row));
            }
        }
        if (a_.json) context_.out << to_json(devices) << "\n";
        remote_ = {};
        channel_ = {};
        return {};
    }

private:
    Result<FabricOptions> fabric_options() const {
        FabricOptions out;
        out.search_path = a_.search_path;
        out.backends = {"nccl"};
        for (const std::string& option : a_.options) {
            const std::size_t equals = option.find('=');
            if (equals == std::string::npos) return fail(Code::kInvalid, fmt::format("--option {} is not KEY=VALUE", option));
            out.options["nccl"][option.substr(0, equals)] = option.substr(equals + 1);
        }
        return out;
    }
    Result<void> join() {
        std::string why;
        const nccl_backend::Nccl* nccl = nccl_backend::Nccl::get(&why);
        if (nccl == nullptr) return fail(Code::kUnsupported, why);
        version_ = nccl->version;
        PeerRequest request;
        request.task = PeerTask::kJoin;
        if (nccl->ncclGetUniqueId(&request.unique) != 0) return fail(Code::kInternal, "plain NCCL gives no identifier");
        PEGA_TRY(peer_->begin(request));
        PEGA_TRY(end_->join(request.unique, 0));
        return peer_->wait();
    }
    // Rates of plain NCCL in messages of `bytes`; very small ones only as many as a group holds a few times.
    Result<std::vector<double>> plain(bool sends, std::uint64_t bytes) {
        PlainPlan plan{sends, bytes, std::min<std::uint64_t>(total_ / bytes, 1024), a_.warmup};
        std::vector<double> rates;
        for (std::uint32_t i = 0; i <= a_.repetitions; ++i) {
            PeerRequest request;
            request.task = PeerTask::kPlain;
            request.plan = plan;
            request.plan.sends = !sends;
            const auto start = Clock::now();
            PEGA_TRY(peer_->begin(request));
            PEGA_TRY(end_->plain(plan));
            PEGA_TRY(peer_->wait());
            const auto moved = static_cast<double>(plan.bytes * plan.messages * plan.iterations);
            if (i != 0) rates.push_back(moved / seconds_since(start));
            plan.iterations = std::max(a_.iterations, a_.outstanding * 4);  // the first was the warm-up
        }
        return rates;
    }
    Result<void> solo(std::vector<Transfer>& transfers, Row& row) {
        for (std::uint32_t i = 0; i < a_.warmup + a_.iterations; ++i) {
            const auto start = Clock::now();
            PEGA_ASSIGN(const Completion done, channel_.submit_wait(transfers[i % transfers.size()]));
            const double submitted = seconds_since(start);
            PEGA_TRY(done.wait());
            if (i < a_.warmup) continue;
            row.submit_us.push_back(submitted * 1e6);
            row.solo_us.push_back(seconds_since(start) * 1e6);
        }
        return {};
    }
    Result<void> pipelined(std::vector<Transfer>& transfers, Row& row) {
        std::vector<Completion> in_flight(transfers.size());
        const std::uint32_t count = std::max(a_.iterations, a_.outstanding * 4);
        const auto start = Clock::now();
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::size_t slot = i % transfers.size();
            if (i >= transfers.size()) PEGA_TRY(in_flight[slot].wait());
            PEGA_ASSIGN(in_flight[slot], channel_.submit_wait(transfers[slot]));
        }
        for (const Completion& completion : in_flight) PEGA_TRY(completion.wait());
        row.rates.push_back(static_cast<double>(count) * static_cast<double>(row.bytes) / seconds_since(start));
        return {};
    }
    Result<void> fill(bool reads, std::uint64_t seed) {
        PeerRequest request;
        request.pattern = reads ? 1 : 0;
        request.seed = seed;
        PEGA_TRY(peer_->ask(request));
        return end_->fill(!reads, seed);
    }
    Result<void> check(const std::vector<Scatter>& maps, Row& row) {
        PeerRequest request;
        request.task = PeerTask::kImage;
        PEGA_TRY(peer_->ask(request));
        PEGA_ASSIGN(const std::byte* const image, end_->image());
        for (const Scatter& map : maps) row.wrong_bytes += map.wrong_bytes(image, peer_->image());
        row.verified = true;
        return {};
    }
    Result<Row> measure_row(bool reads, std::uint64_t page) {
        Row row;
        row.reads = reads;
        row.page = page;
        Shape shape;
        shape.geometry = {"", 1, 1, page};
        shape.blocks = total_ / page;
        shape.device_order = Order::kRandom;
        row.bytes = shape.bytes();
        PEGA_ASSIGN(row.plain, plain(!reads, page));
        std::mt19937_64 random(a_.seed);
        std::vector<Transfer> transfers(a_.outstanding);
        for (std::uint32_t repetition = 0; repetition < a_.repetitions; ++repetition) {
            std::vector<Scatter> maps;
            for (std::uint32_t i = 0; i < a_.outstanding; ++i) {
                maps.push_back(Scatter::make(shape, end_->region(), i * total_, remote_, i * total_, random));
                std::shuffle(maps.back().remote.begin(), maps.back().remote.end(), random);
                maps.back().fill(transfers[i], reads);
            }
            const bool checks = a_.verify && (repetition == 0 || repetition + 1 == a_.repetitions);
            if (checks) PEGA_TRY(fill(reads, a_.seed + repetition));
            PEGA_TRY(solo(transfers, row));
            PEGA_TRY(pipelined(transfers, row));
            if (checks) PEGA_TRY(check(maps, row));
        }
        return row;
    }

    void print_header(const std::vector<std::string>& devices) {
        if (a_.csv)
            context_.out << "mode,page_bytes,bytes,bytes_per_s,plain_bytes_per_s,pct_of_plain,pct_of_one_message,solo_p50_us,"
                            "solo_p99_us,submit_us,wrong_bytes\n";
        if (a_.csv || a_.json) return;
        context_.out << fmt::format("# pegaflow bench nccl  v{}  {} ({}) and {}  NCCL {}  {} a transfer  verify {}\n",
                                    PEGAFLOW_VERSION, devices[0], end_->device().info().text, devices[1], version_, a_.total,
                                    a_.verify ? "on" : "OFF");
        context_.out << fmt::format("{:>6} {:>9} {:>8} {:>11} {:>7} {:>5} {:>12} {:>10} {:>10} {:>9} {:>6}\n", "mode", "page",
                                    "GB/s", "plain GB/s", "%plain", "cv%", "%one message", "solo_p50", "solo_p99", "submit_us",
                                    "check");
    }
    void add(Row row) {
        if (row.wrong_bytes != 0) context_.exit = kVerifyFailed;
        if (context_.exit == kOk && a_.min_ratio > 0 && row.percent() < a_.min_ratio) context_.exit = kBelowRatio;
        const char* mode = row.reads ? "read" : "write";
        const double solo = percentile(row.solo_us, 0.5);
        const double solo99 = percentile(row.solo_us, 0.99);
        const double submit = percentile(row.submit_us, 0.5);
        const double plain = percentile(row.plain, 0.5);
        if (a_.csv) {
            context_.out << fmt::format("{},{},{},{:.0f},{:.0f},{:.2f},{:.2f},{:.2f},{:.2f},{:.2f},{}\n", mode, row.page,
                                        row.bytes, row.rate(), plain, row.percent(), 100 * row.rate() / row.peak, solo, solo99,
                                        submit, row.wrong_bytes);
        } else if (!a_.json) {
            context_.out << fmt::format(
                "{:>6} {:>9} {:>8.2f} {:>11.2f} {:>7.1f} {:>5.1f} {:>12.1f} {:>10.1f} {:>10.1f} {:>9.1f} {:>6}\n", mode,
                format_size(row.page), row.rate() / 1e9, plain / 1e9, row.percent(), cv_percent(row.rates),
                100 * row.rate() / row.peak, solo, solo99, submit,
                !row.verified ? "-" : (row.wrong_bytes == 0 ? "ok" : "WRONG"));
        }
        context_.out.flush();
        rows_.push_back(std::move(row));
    }
    std::string to_json(const std::vector<std::string>& devices) const {
        utsname system{};
        ::uname(&system);
        json::array rows;
        for (const Row& row : rows_) {
            rows.push_back(json::object{
                {"path", row.reads ? "nccl-read" : "nccl-write"},
                {"backend", "nccl"},
                {"fragment_bytes", row.page},
                {"bytes", row.bytes},
                {"layout", "both-random"},
                {"pct_of_peak", row.percent()},
                {"solo_pct_of_peak", 100 * row.solo_rate() / percentile(row.plain, 0.5)},
                {"pct_of_one_message", 100 * row.rate() / row.peak},
                {"bytes_per_s", json::object{{"median", row.rate()},
                                             {"cv_pct", cv_percent(row.rates)},
                                             {"samples", json::array(row.rates.begin(), row.rates.end())}}},
                {"plain_bytes_per_s", json::object{{"median", percentile(row.plain, 0.5)},
                                                   {"cv_pct", cv_percent(row.plain)},
                                                   {"samples", json::array(row.plain.begin(), row.plain.end())}}},
                {"one_message_bytes_per_s", row.peak},
                {"solo_time_us", json::object{{"p50", percentile(row.solo_us, 0.5)}, {"p99", percentile(row.solo_us, 0.99)}}},
                {"submit_us", json::object{{"p50", percentile(row.submit_us, 0.5)}, {"p99", percentile(row.submit_us, 0.99)}}},
                {"submit_ns_per_fragment",
                 percentile(row.submit_us, 0.5) * 1000 * static_cast<double>(row.page) / static_cast<double>(row.bytes)},
                {"verified", row.verified},
                {"wrong_bytes", row.wrong_bytes}});
        }
        return json::serialize(json::object{
            {"schema", "pegaflow.bench"},
            {"schema_version", 1},
            {"tool", json::object{{"version", PEGAFLOW_VERSION}}},
            {"command", json::array(context_.command.begin(), context_.command.end())},
            {"env", json::object{{"kernel", system.release},
                                 {"devices", json::array(devices.begin(), devices.end())},
                                 {"device", end_->device().info().text},
                                 {"nccl_version", version_},
                                 {"outstanding", a_.outstanding}}},
            {"peak", json::object{{"measured_bytes_per_s", rows_.empty() ? 0 : rows_.front().peak},
                                  {"method",
                                   "one message; pct_of_peak is of plain ncclSend and ncclRecv of the row's size, in groups"}}},
            {"results", std::move(rows)}});
    }

    const Arguments& a_;
    Context& context_;
    std::uint64_t total_ = 0;
    int version_ = 0;
    std::unique_ptr<NcclEnd> end_;
    std::unique_ptr<NcclPeer> peer_;
    Region remote_;
    Channel channel_;
    std::vector<Row> rows_;
};

}  // namespace

void add_bench_nccl(CLI::App& bench_verb, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    Arguments& a = *arguments;
    CLI::App& verb = *bench_verb.add_subcommand("nccl", "Memory of two GPUs of two processes, by NCCL");
    verb.add_option("-d,--device", a.devices, "This process's device and the other's")->capture_default_str();
    verb.add_option("--mode", a.mode, "write, read or both")
        ->check(CLI::IsMember({"write", "read", "both"}))
        ->capture_default_str();
    verb.add_option("-s,--block-size", a.sizes, "Page sizes, comma separated; scattered on both sides")->capture_default_str();
    verb.add_option("--total", a.total, "Bytes a transfer")->capture_default_str();
    verb.add_option("--option", a.options, "KEY=VALUE for the back end (may be repeated)");
    verb.add_option("-n,--iters", a.iterations)->check(CLI::Range(1, 1000000))->capture_default_str();
    verb.add_option("-w,--warmup", a.warmup)->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--repetitions", a.repetitions)->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--outstanding", a.outstanding)->check(CLI::Range(1, 64))->capture_default_str();
    verb.add_option("--seed", a.seed)->capture_default_str();
    verb.add_flag("!--no-verify", a.verify, "Do not check the bytes");
    verb.add_flag("--json", a.json);
    verb.add_flag("--csv", a.csv);
    verb.add_option("--min-ratio", a.min_ratio, "Exit 3 when a point is below this percentage of plain NCCL");
    verb.add_option("--search-path", a.search_path, "Further directories with back ends");
    verb.add_option("--serve-peer", a.serve)->group("");
    verb.callback([arguments, &context] {
        if (const auto done = Bench(*arguments, context).run(); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
