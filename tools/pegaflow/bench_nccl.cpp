// SPDX-License-Identifier: Apache-2.0
// pegaflow bench nccl: scattered pages between the GPUs of two processes by the nccl back end, against plain ncclSend and
// ncclRecv of the same sizes in the same run. Every point is verified on a poisoned target outside the timed part.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <memory>

#include "pegaflow/bytes.hpp"
#include "tools/pegaflow/bench_nccl_peer.hpp"
#include "tools/pegaflow/transfer/arguments.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

struct NcclArguments {
    std::string devices = "nccl:0,nccl:1";
    std::string mode = "both";
    std::string sizes = "4K,16K,64K,256K,1M,4M,16M";
    std::string total = "64M";
    std::string serve;  // hidden
    std::vector<std::string> options, search_path;
    std::string json, csv;  // where to: a file, "-" = standard output, "" = nowhere
    std::uint32_t outstanding = 4, iterations = 20, warmup = 5, repetitions = 5;
    std::uint64_t seed = 1;
    bool verify = true, all = false, quiet = false;
    double min_ratio = 0;
};

struct NcclRow {
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

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class Bench {
public:
    Bench(const NcclArguments& arguments, Context& context) : a_(arguments), context_(context), head_(context) {}

    Result<void> run() {
        PEGA_ASSIGN(const auto devices, split(a_.devices));
        PEGA_ASSIGN(total_, parse_size(a_.total));
        PEGA_ASSIGN(const auto sizes, parse_sizes(a_.all ? kAllSizes : a_.sizes));
        PEGA_ASSIGN(const FabricOptions options, fabric_options());
        if (a_.json == "-" && a_.csv == "-")
            return fail(Code::kInvalid, "--json and --csv cannot both go to standard output: give one a file");
        if (devices.size() != 2) return fail(Code::kInvalid, "--device takes two devices, as in nccl:0,nccl:1");
        const std::uint64_t bytes = total_ * a_.outstanding;
        PEGA_ASSIGN(end_, NcclEnd::open(options, devices[a_.serve.empty() ? 0 : 1], bytes));
        if (!a_.serve.empty()) return serve_nccl_peer(*end_, a_.serve);
        PEGA_ASSIGN(peer_, NcclPeer::start(context_.command, bytes));
        PEGA_ASSIGN(remote_, end_->device().import_region(peer_->descriptor()));
        PEGA_ASSIGN(channel_, end_->device().open_channel(peer_->address()));
        PEGA_TRY(join());
        head_.device(end_->device().info());
        print_header(devices);
        for (const bool reads : {false, true}) {
            if (a_.mode != "both" && reads != (a_.mode == "read")) continue;
            PEGA_ASSIGN(const auto peak, plain(!reads, total_));
            for (const std::uint64_t page : sizes) {
                if (page > total_)
                    return fail(Code::kInvalid, fmt::format("pages of {} are larger than --total", format_size(page)));
                PEGA_ASSIGN(NcclRow row, measure_row(reads, page));
                row.peak = percentile(peak, 0.5);
                add(std::move(row));
            }
        }
        PEGA_TRY(write_output(a_.csv, csv_, context_.out));
        if (!a_.json.empty()) PEGA_TRY(write_output(a_.json, to_json(devices) + "\n", context_.out));
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
    Result<void> solo(std::vector<Transfer>& transfers, NcclRow& row) {
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
    Result<void> pipelined(std::vector<Transfer>& transfers, NcclRow& row) {
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
    Result<void> check(const std::vector<Scatter>& maps, NcclRow& row) {
        PeerRequest request;
        request.task = PeerTask::kImage;
        PEGA_TRY(peer_->ask(request));
        PEGA_ASSIGN(const std::byte* const image, end_->image());
        for (const Scatter& map : maps) row.wrong_bytes += map.wrong_bytes(image, peer_->image());
        row.verified = true;
        return {};
    }
    Result<NcclRow> measure_row(bool reads, std::uint64_t page) {
        NcclRow row;
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
        if (!a_.csv.empty())
            csv_ =
                "mode,page_bytes,bytes,bytes_per_s,plain_bytes_per_s,pct_of_plain,pct_of_one_message,solo_p50_us,"
                "solo_p99_us,submit_us,wrong_bytes\n";
        if (!is_table()) return;
        context_.out << fmt::format("# {}  {} ({}) and {}  NCCL {}  {} a transfer  verify {}\n", head_.title("nccl"),
                                    devices[0], end_->device().info().text, devices[1], version_, a_.total,
                                    a_.verify ? "on" : "OFF");
        head_.print_warnings(context_.out);
        context_.out << fmt::format("{:>6} {:>9} {:>8} {:>11} {:>7} {:>5} {:>12} {:>10} {:>10} {:>9} {:>6}\n", "mode", "page",
                                    "GB/s", "plain GB/s", "%plain", "cv%", "%one message", "solo_p50", "solo_p99", "submit_us",
                                    "check");
    }
    void add(NcclRow row) {
        if (row.wrong_bytes != 0) context_.exit = kVerifyFailed;
        if (context_.exit == kOk && a_.min_ratio > 0 && row.percent() < a_.min_ratio) context_.exit = kBelowRatio;
        const char* mode = row.reads ? "read" : "write";
        const double solo = percentile(row.solo_us, 0.5);
        const double submit = percentile(row.submit_us, 0.5);
        const double plain = percentile(row.plain, 0.5);
        if (!a_.csv.empty()) {
            csv_ += fmt::format("{},{},{},{:.0f},{:.0f},{:.2f},{:.2f},{:.2f},{},{:.2f},{}\n", mode, row.page, row.bytes,
                                row.rate(), plain, row.percent(), 100 * row.rate() / row.peak, solo, p99_text(row.solo_us, ""),
                                submit, row.wrong_bytes);
        }
        if (is_table()) {
            context_.out << fmt::format(
                "{:>6} {:>9} {:>8.2f} {:>11.2f} {:>7.1f} {:>5.1f} {:>12.1f} {:>10.1f} {:>10} {:>9.1f} {:>6}\n", mode,
                format_size(row.page), row.rate() / 1e9, plain / 1e9, row.percent(), cv_percent(row.rates),
                100 * row.rate() / row.peak, solo, p99_text(row.solo_us, "-"), submit,
                !row.verified ? "-" : (row.wrong_bytes == 0 ? "ok" : "WRONG"));
        }
        context_.out.flush();
        rows_.push_back(std::move(row));
    }
    std::string to_json(const std::vector<std::string>& devices) const {
        json::array rows;
        for (const NcclRow& row : rows_) {
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
                {"time_us", statistics(row.solo_us)},
                {"submit_us", statistics(row.submit_us)},
                {"samples_us", json::array(row.solo_us.begin(), row.solo_us.end())},
                {"submit_ns_per_fragment",
                 percentile(row.submit_us, 0.5) * 1000 * static_cast<double>(row.page) / static_cast<double>(row.bytes)},
                {"verified", row.verified},
                {"wrong_bytes", row.wrong_bytes}});
        }
        json::object out = head_.to_json();
        json::object& env = out["env"].as_object();
        env["devices"] = json::array(devices.begin(), devices.end());
        env["nccl_version"] = version_;
        env["outstanding"] = a_.outstanding;
        out["peak"] =
            json::object{{"measured_bytes_per_s", rows_.empty() ? 0 : rows_.front().peak},
                         {"method", "one message; pct_of_peak is of plain ncclSend and ncclRecv of the row's size, in groups"}};
        out["results"] = std::move(rows);
        return json::serialize(out);
    }
    bool is_table() const { return !a_.quiet && a_.json != "-" && a_.csv != "-"; }

    const NcclArguments& a_;
    Context& context_;
    Head head_;
    std::string csv_;
    std::uint64_t total_ = 0;
    int version_ = 0;
    std::unique_ptr<NcclEnd> end_;
    std::unique_ptr<NcclPeer> peer_;
    Region remote_;
    Channel channel_;
    std::vector<NcclRow> rows_;
};

}  // namespace

void add_bench_nccl(CLI::App& bench_verb, Context& context) {
    auto arguments = std::make_shared<NcclArguments>();
    NcclArguments& a = *arguments;
    CLI::App& verb = *bench_verb.add_subcommand("nccl", "Memory of two GPUs of two processes, by NCCL");
    verb.add_option("-d,--device", a.devices, "This process's device and the other's")->capture_default_str();
    verb.add_option("--mode", a.mode, "write, read or both")
        ->check(CLI::IsMember({"write", "read", "both"}))
        ->capture_default_str();
    CLI::Option* const sizes =
        verb.add_option("-s,--block-size", a.sizes, "Page sizes, comma separated, A..B doubles; scattered on both sides")
            ->capture_default_str();
    verb.add_flag("-a,--all", a.all, fmt::format("All sizes, {}", kAllSizes))->excludes(sizes);
    verb.add_option("--total", a.total, "Bytes a transfer")->capture_default_str();
    verb.add_option("--option", a.options, "KEY=VALUE for the back end (may be repeated)");
    verb.add_option("-n,--iters", a.iterations)->check(CLI::Range(1, 1000000))->capture_default_str();
    verb.add_option("-w,--warmup", a.warmup)->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--repetitions", a.repetitions)->check(CLI::Range(1, 1000))->capture_default_str();
    verb.add_option("--outstanding", a.outstanding)->check(CLI::Range(1, 64))->capture_default_str();
    verb.add_option("--seed", a.seed)->capture_default_str();
    verb.add_flag("!--no-verify", a.verify, "Do not check the bytes");
    add_output_option(verb, "--json", a.json, "JSON");
    add_output_option(verb, "--csv", a.csv, "CSV");
    verb.add_flag("--quiet", a.quiet, "No table; files and the exit code tell");
    verb.add_option("--min-ratio", a.min_ratio, "Exit 3 when a point is below this percentage of plain NCCL");
    verb.add_option("--search-path", a.search_path, "Further directories with back ends");
    verb.add_option("--serve-peer", a.serve)->group("");
    verb.callback([arguments, &context] {
        if (const auto done = Bench(*arguments, context).run(); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
