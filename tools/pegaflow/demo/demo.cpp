// SPDX-License-Identifier: Apache-2.0
// pegaflow demo: a client process that saves the KV cache of a pretended model through a server, wipes its own, loads it back,
// and checks every byte.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>
#include <memory>
#include <sstream>
#include <thread>

#include "pegaflow/bytes.hpp"
#include "pegaflow/client.hpp"
#include "tools/pegaflow/demo/kv_worker.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kLoadTimeout = std::chrono::seconds(60);

struct Arguments {
    std::string endpoint = "http://127.0.0.1:50055";
    std::uint32_t blocks = 128;
    std::uint64_t seed = 1;
    std::string device;  // "cuda:0,cuda:1": KV memory of the workers, in turn; "" = shared memory
    std::string model = "llama-3.1-8b";
    std::string layout = "layer-first";
    std::uint32_t tp = 1;
    bool json = false;
};

// What was moved, and how fast.
struct Outcome {
    std::uint64_t saved_blocks = 0, duplicate_blocks = 0, saved_bytes = 0, loaded_bytes = 0, hits = 0, wrong_words = 0;
    double save_seconds = 0, load_seconds = 0;
};

DemoModel model_of(const Arguments& arguments) {
    DemoModel model;
    model.name = arguments.model;
    model.page_first = arguments.layout == "page-first";
    model.tp = arguments.tp;
    if (arguments.model == "mla") {  // the latent cache of DeepSeek V3: every worker holds all of it
        model.layers = 61;
        model.segments = 1;
        model.segment_bytes = 64 * 576 * 2;
        model.replicas = arguments.tp;
        model.tp = 1;
    } else if (arguments.model == "hybrid") {  // attention layers, and recurrent ones that keep one state a block
        model.layers = 8;
        model.state_layers = 24;
        model.state_bytes = 256U << 10;
    } else {
        model.segment_bytes /= arguments.tp;
    }
    return model;
}

class Demo {
public:
    Demo(const Arguments& arguments, Context& context)
        : arguments_(arguments),
          context_(context),
          model_(model_of(arguments)),
          instance_(fmt::format("demo-{}", ::getpid())) {}

    Result<void> run() {
        PEGA_TRY(set_up());
        for (const auto& worker : workers_) PEGA_TRY(worker->fill(arguments_.seed));
        PEGA_TRY(save());
        for (const auto& worker : workers_) PEGA_TRY(worker->poison());
        for (std::uint32_t group = 0; group <= (model_.state_layers != 0 ? 1U : 0U); ++group) PEGA_TRY(load(group));
        for (const auto& worker : workers_) {
            PEGA_ASSIGN(const std::uint64_t wrong, worker->wrong_words(arguments_.seed));
            outcome_.wrong_words += wrong;
        }
        report();
        if (outcome_.wrong_words != 0) {
            context_.exit = kVerifyFailed;
            return fail(Code::kCorrupt, fmt::format("{} words are wrong", outcome_.wrong_words));
        }
        return client_->unregister_instance(instance_);
    }

private:
    Result<void> set_up() {
        PEGA_ASSIGN(client_, Client::connect({.endpoint = arguments_.endpoint}));
        std::vector<std::string> devices;
        std::stringstream list(arguments_.device);
        for (std::string name; std::getline(list, name, ',');) devices.push_back(name);
        PEGA_TRY(client_->start_session(instance_, "demo-" + model_.name, model_.tp, model_.workers()));
        for (std::uint32_t i = 0; i < model_.workers(); ++i) {
            const std::string device = devices.empty() ? "" : devices[i % devices.size()];
            PEGA_ASSIGN(auto worker, KvWorker::create(model_, i, arguments_.blocks, device));
            PEGA_ASSIGN(const WorkerRegistration registration, worker->registration(instance_));
            PEGA_TRY(client_->register_worker(registration));
            workers_.push_back(std::move(worker));
        }
        for (std::uint32_t i = 0; i < arguments_.blocks; ++i) {
            ids_.push_back(i);
            hashes_.push_back(fmt::format("{:016x}{:016x}", arguments_.seed, i));
        }
        return {};
    }

    // Shards save all blocks; replicas share the work.
    Result<void> save() {
        const auto start = Clock::now();
        for (const auto& worker : workers_) {
            std::vector<std::uint32_t> ids;
            std::vector<std::string_view> hashes;
            for (std::uint32_t i = 0; i < arguments_.blocks; ++i) {
                if (model_.replicas > 1 && i % model_.replicas != static_cast<std::uint32_t>(worker->device_id())) continue;
                ids.push_back(i);
                hashes.push_back(hashes_[i]);
            }
            for (std::uint32_t group = 0; group <= (model_.state_layers != 0 ? 1U : 0U); ++group) {
                std::vector<SaveLayer> layers;
                for (const std::string_view name : worker->layer_names(group)) layers.push_back({name, ids, hashes});
                SaveRequest request;
                request.instance_id = instance_;
                request.tp_rank = worker->tp_rank();
                request.device_id = worker->device_id();
                request.layers = layers;
                PEGA_ASSIGN(const SaveOutcome saved, client_->save(request));
                outcome_.saved_blocks += saved.saved_blocks;
                outcome_.duplicate_blocks += saved.duplicate_blocks;
                outcome_.saved_bytes += saved.bytes;
            }
        }
        outcome_.save_seconds = std::chrono::duration<double>(Clock::now() - start).count();
        return {};
    }

    Result<void> load(std::uint32_t group) {
        const std::vector<std::string_view> views(hashes_.begin(), hashes_.end());
        QueryRequest query;
        query.instance_id = instance_;
        query.hashes = views;
        query.request_id = "demo";
        query.group = group;
        PEGA_ASSIGN(const QueryOutcome found, client_->query(query));
        const std::uint64_t hits = group == 0 ? found.hit_blocks : found.hit_positions.size();
        outcome_.hits += hits;
        if (hits != hashes_.size() || !found.lease)
            return fail(Code::kInternal, fmt::format("{} of {} saved blocks were found", hits, hashes_.size()));
        const auto start = Clock::now();
        std::vector<LoadState> states;
        for (const auto& worker : workers_) {
            PEGA_ASSIGN(LoadState state, LoadState::create());
            const auto names = worker->layer_names(group);
            const std::span<const std::string_view> groups[] = {names};
            const std::span<const std::uint32_t> targets[] = {ids_};
            const LeaseLoad loads[] = {{*found.lease, targets}};
            LoadRequest request;
            request.instance_id = instance_;
            request.tp_rank = worker->tp_rank();
            request.device_id = worker->device_id();
            request.layer_groups = groups;
            request.loads = loads;
            PEGA_TRY(client_->load(request, state.shm_name()));
            states.push_back(std::move(state));
        }
        for (const LoadState& state : states) PEGA_TRY(state.wait(kLoadTimeout));
        outcome_.load_seconds += std::chrono::duration<double>(Clock::now() - start).count();
        const std::uint64_t block =
            group == 0 ? model_.layers * model_.segments * model_.segment_bytes : model_.state_layers * model_.state_bytes;
        outcome_.loaded_bytes += hits * block * workers_.size();
        return {};
    }

    void report() {
        const Outcome& o = outcome_;
        const double save_rate = static_cast<double>(o.saved_bytes) / o.save_seconds;
        const double load_rate = static_cast<double>(o.loaded_bytes) / o.load_seconds;
        if (arguments_.json) {
            context_.out << boost::json::serialize(boost::json::object{{"schema", "pegaflow.demo"},
                                                                       {"schema_version", 1},
                                                                       {"version", PEGAFLOW_VERSION},
                                                                       {"model", model_.name},
                                                                       {"layout", arguments_.layout},
                                                                       {"tp", model_.tp},
                                                                       {"replicas", model_.replicas},
                                                                       {"devices", arguments_.device},
                                                                       {"blocks", arguments_.blocks},
                                                                       {"saved_bytes", o.saved_bytes},
                                                                       {"save_bytes_per_s", save_rate},
                                                                       {"loaded_bytes", o.loaded_bytes},
                                                                       {"load_bytes_per_s", load_rate},
                                                                       {"wrong_words", o.wrong_words}})
                         << "\n";
            return;
        }
        std::uint64_t bytes = 0;
        for (const auto& worker : workers_) bytes += worker->bytes();
        context_.out << fmt::format("saved   {} blocks, {} at {:.2f} GB/s ({} were there already)\n", o.saved_blocks,
                                    format_size(o.saved_bytes), save_rate / 1e9, o.duplicate_blocks)
                     << fmt::format("query   {} blocks found, hit rate 100 %\n", o.hits)
                     << fmt::format("loaded  {} at {:.2f} GB/s\n", format_size(o.loaded_bytes), load_rate / 1e9);
        if (o.wrong_words == 0) context_.out << fmt::format("checked {}: every byte is right\n", format_size(bytes));
    }

    const Arguments& arguments_;
    Context& context_;
    DemoModel model_;
    std::string instance_;
    std::unique_ptr<Client> client_;
    std::vector<std::unique_ptr<KvWorker>> workers_;
    std::vector<std::uint32_t> ids_;
    std::vector<std::string> hashes_;
    Outcome outcome_;
};

}  // namespace

void add_demo(CLI::App& app, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *app.add_subcommand(
        "demo", "Save and load a model's KV cache through a server from this process, and check every byte");
    verb.add_option("--endpoint", arguments->endpoint, "The server")->capture_default_str();
    verb.add_option("--blocks", arguments->blocks, "Blocks (2 MiB each for llama-3.1-8b)")
        ->check(CLI::Range(1, 65536))
        ->capture_default_str();
    verb.add_option("--device", arguments->device,
                    "Keep the KV memory on these GPUs, such as cuda:0,cuda:1, one a worker in turn; default: shared memory");
    verb.add_option("--model", arguments->model, "The shape of the cache")
        ->check(CLI::IsMember({"llama-3.1-8b", "mla", "hybrid"}))
        ->capture_default_str();
    verb.add_option("--layout", arguments->layout, "Of the KV memory")
        ->check(CLI::IsMember({"layer-first", "page-first"}))
        ->capture_default_str();
    verb.add_option("--tp", arguments->tp, "Workers: shards of the heads, or replicas of the latent cache (mla)")
        ->check(CLI::IsMember({1, 2, 4, 8}))
        ->capture_default_str();
    verb.add_option("--seed", arguments->seed, "Of the cache's contents")->capture_default_str();
    verb.add_flag("--json", arguments->json);
    verb.callback([arguments, &context] {
        const auto done = Demo(*arguments, context).run();
        if (!done) context.fail(done.error(), context.exit == kVerifyFailed ? kVerifyFailed : kUsage);
    });
}

}  // namespace pegaflow::cli
