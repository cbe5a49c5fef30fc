// SPDX-License-Identifier: Apache-2.0
// pegaflow bench rpc: what a query of many hashes costs beside an empty call on the same server, alternating in one run.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>
#include <memory>

#include "pegaflow/abi/region.h"
#include "pegaflow/client.hpp"
#include "server/server.hpp"
#include "tools/pegaflow/bench_head.hpp"
#include "tools/pegaflow/transfer/report.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint64_t kBlockBytes = 4096;

struct Arguments {
    std::size_t hashes = 100;
    std::size_t iterations = 5000;
    std::string json;  // where to: a file, "-" = standard output, "" = nowhere
    double max_ratio = 0;
};

void print_table(const Arguments& arguments, const Head& head, const std::vector<double>& empty,
                 const std::vector<double>& query, std::ostream& out) {
    out << "# " << head.title("rpc") << "\n";
    head.print_warnings(out);
    out << fmt::format(
        "empty call        p50 {:8.1f} us  p99 {:8.1f} us\nquery of {:<6}   p50 {:8.1f} us  p99 {:8.1f} us\nratio of "
        "medians  {:.3f}\n",
        percentile(empty, 0.5), percentile(empty, 0.99), arguments.hashes, percentile(query, 0.5), percentile(query, 0.99),
        percentile(query, 0.5) / percentile(empty, 0.5));
}

Result<void> report(const Arguments& arguments, const Head& head, const std::vector<double>& empty,
                    const std::vector<double>& query, Context& context) {
    const double ratio = percentile(query, 0.5) / percentile(empty, 0.5);
    if (arguments.json != "-") print_table(arguments, head, empty, query, context.out);
    boost::json::object out = head.to_json();
    out["path"] = "rpc";
    out["hashes"] = arguments.hashes;
    out["iterations"] = arguments.iterations;
    out["empty_us"] = statistics(empty);
    out["query_us"] = statistics(query);
    out["ratio"] = ratio;
    PEGA_TRY(write_output(arguments.json, boost::json::serialize(out) + "\n", context.out));
    if (arguments.max_ratio > 0 && ratio > arguments.max_ratio) context.exit = kBelowRatio;
    return {};
}

Result<void> bench(const Arguments& arguments, Context& context) {
    const Head head(context);
    server::Config config;
    config.listen = config.admin_listen = "127.0.0.1:0";
    config.engine.pool_bytes = 64 << 20;
    PEGA_ASSIGN(auto running, server::Server::start(config));
    PEGA_ASSIGN(auto client, Client::connect({.endpoint = fmt::format("127.0.0.1:{}", running->port())}));
    // One layer of shared memory, so that all queried blocks are there.
    PEGA_ASSIGN(auto fabric, Fabric::open({.backends = {"host"}}));
    WorkerRegistration worker;
    worker.instance_id = worker.name_space = "bench";
    LayerRegistration layer;
    layer.name = "layer";
    const std::string shm = fmt::format("pegaflow_bench_{}", ::getpid());
    const int fd = ::shm_open(("/" + shm).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    const bool sized = fd >= 0 && ::ftruncate(fd, static_cast<off_t>(arguments.hashes * kBlockBytes)) == 0;
    if (fd >= 0) ::close(fd);
    const std::unique_ptr<const std::string, void (*)(const std::string*)> unlink(
        &shm, [](const std::string* name) { ::shm_unlink(("/" + *name).c_str()); });
    if (!sized) return fail(Code::kNoMemory, "cannot create shared memory for the pretended worker");
    layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_SHM, "", shm, nullptr, 0, arguments.hashes * kBlockBytes};
    layer.num_blocks = arguments.hashes;
    layer.bytes_per_block = kBlockBytes;
    worker.layers.push_back(layer);
    PEGA_TRY(client->register_worker(worker));
    std::vector<std::string> hashes;
    std::vector<std::uint32_t> ids;
    for (std::size_t i = 0; i < arguments.hashes; ++i) {
        hashes.push_back(fmt::format("{:032x}", i));
        ids.push_back(static_cast<std::uint32_t>(i));
    }
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    const SaveLayer layers[] = {{"layer", ids, views}};
    SaveRequest save;
    save.instance_id = "bench";
    save.layers = layers;
    PEGA_TRY(client->save(save));
    std::vector<double> empty;
    std::vector<double> query;
    for (std::size_t i = 0; i < arguments.iterations + 200; ++i) {
        const auto a = std::chrono::steady_clock::now();
        PEGA_TRY(client->health());
        const auto b = std::chrono::steady_clock::now();
        PEGA_ASSIGN(const QueryOutcome found, client->query({.instance_id = "bench", .hashes = views, .request_id = "bench"}));
        const auto c = std::chrono::steady_clock::now();
        if (found.hit_blocks != arguments.hashes)
            return fail(Code::kInternal, fmt::format("{} of {} blocks found", found.hit_blocks, arguments.hashes));
        PEGA_TRY(client->release(*found.lease));
        if (i < 200) continue;  // warm-up
        empty.push_back(std::chrono::duration<double, std::micro>(b - a).count());
        query.push_back(std::chrono::duration<double, std::micro>(c - b).count());
    }
    return report(arguments, head, empty, query, context);
}

}  // namespace

void add_bench_rpc(CLI::App& bench_verb, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *bench_verb.add_subcommand("rpc", "A query of many hashes beside an empty call on the same server");
    verb.add_option("--hashes", arguments->hashes)->check(CLI::Range(1, 100000))->capture_default_str();
    verb.add_option("-n,--iters", arguments->iterations)->check(CLI::Range(10, 10000000))->capture_default_str();
    verb.add_option("--max-ratio", arguments->max_ratio, "Exit 3 when the ratio is above");
    add_output_option(verb, "--json", arguments->json, "JSON");
    verb.callback([arguments, &context] {
        if (const auto done = bench(*arguments, context); !done) context.fail(done.error());
    });
}

}  // namespace pegaflow::cli
