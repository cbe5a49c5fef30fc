// SPDX-License-Identifier: Apache-2.0
// EngineRpcClient: the method names, argument names and answers of the existing package, so that connectors written for it run.

#include "bind.hpp"
#include "convert.hpp"
#include "layer.hpp"
#include "pegaflow/client.hpp"
#include "query.hpp"
#include "time.hpp"

namespace pegaflow::python {
namespace {

using Outcome = std::pair<bool, std::string>;

constexpr const char* kStatusNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

struct RpcClient {
    ~RpcClient() {
        unlocked([this] { client.reset(); });
    }
    std::string endpoint;
    std::shared_ptr<Client> client;  // owners: this, and calls under way on other threads; null once closed
};

// One call without the lock. Errors of the wire name its status as well.
template <class Call>
auto call(RpcClient& c, Call&& run) {
    if (!c.client) raise({Code::kCanceled, "the client is closed"});
    std::shared_ptr<Client> client = c.client;
    auto result = unlocked([&] {
        auto answer = run(*client);
        client.reset();  // may be the last owner, which waits for threads
        return answer;
    });
    const auto status = result ? 0 : result.error().native_code;
    if (status > 0 && static_cast<std::size_t>(status) < std::size(kStatusNames))
        result.error().message += text(" [{}]", kStatusNames[status]);
    return result;
}

template <class Call>
Outcome succeeded(RpcClient& c, Call&& run) {
    take(call(c, std::forward<Call>(run)));
    return {true, ""};
}

std::unique_ptr<RpcClient> connect(const std::optional<std::string>& endpoint, double connect_timeout, double call_timeout,
                                   bool reconnect) {
    ClientOptions options;
    if (endpoint) options.endpoint = *endpoint;
    options.connect_timeout = std::chrono::duration_cast<std::chrono::milliseconds>(to_duration(connect_timeout));
    options.call_timeout = std::chrono::duration_cast<std::chrono::milliseconds>(to_duration(call_timeout));
    options.reconnect = reconnect;
    auto out = std::make_unique<RpcClient>();
    out->endpoint = options.endpoint;
    out->client = take_unlocked([&] { return Client::connect(options); });
    return out;
}

RegisterOptions options_of(const std::string& transfer_backend) {
    if (transfer_backend == "direct") return {TransferMode::kDirect, {}};
    if (transfer_backend == "kernel") return {TransferMode::kKernel, {}};
    raise_invalid(text("transfer_backend must be \"direct\" or \"kernel\", got \"{}\"", transfer_backend));
}

Outcome register_context_batch(RpcClient& c, const std::string& instance_id, const std::string& name_space,
                               std::uint32_t tp_rank, std::uint32_t pp_rank, std::uint32_t tp_size, std::uint32_t world_size,
                               std::int32_t device_id, const std::vector<std::string>& layer_names,
                               const std::vector<py::bytes>& wrapper_bytes_list,
                               const std::vector<std::uint64_t>& num_blocks_list,
                               const std::vector<std::uint64_t>& bytes_per_block_list,
                               const std::vector<std::uint64_t>& kv_stride_bytes_list,
                               const std::vector<std::uint32_t>& segments_list, const std::string& transfer_backend,
                               bool page_first, const std::optional<std::vector<std::uint32_t>>& layer_group_ids) {
    const std::size_t count = layer_names.size();
    if (count == 0 || wrapper_bytes_list.size() != count || num_blocks_list.size() != count ||
        bytes_per_block_list.size() != count || kv_stride_bytes_list.size() != count || segments_list.size() != count ||
        (layer_group_ids && !layer_group_ids->empty() && layer_group_ids->size() != count)) {
        raise_invalid(text("all layer arrays must have the same non-zero length (got layer_names={})", count));
    }
    WorkerRegistration worker{instance_id, name_space, tp_rank, tp_size, pp_rank, world_size, device_id, page_first, "", {}};
    RegisterOptions options = options_of(transfer_backend);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t group = layer_group_ids && !layer_group_ids->empty() ? (*layer_group_ids)[i] : 0;
        worker.layers.push_back({layer_names[i],
                                 {},
                                 num_blocks_list[i],
                                 bytes_per_block_list[i],
                                 kv_stride_bytes_list[i],
                                 segments_list[i],
                                 0,
                                 group});
        options.wrapper_bytes.push_back(wrapper_bytes_list[i]);
    }
    return succeeded(c, [&](Client& client) { return client.register_worker(worker, options); });
}

Outcome register_worker(RpcClient& c, const std::string& instance_id, const std::string& name_space, const py::object& layers,
                        std::uint32_t tp_rank, std::uint32_t tp_size, std::uint32_t pp_rank, std::uint32_t world_size,
                        std::int32_t device_id, bool page_first, const std::string& dtype,
                        const std::string& transfer_backend) {
    const Worker worker = make_worker(to_layers(layers), instance_id, name_space, tp_rank, tp_size, pp_rank, world_size,
                                      device_id, page_first, dtype);
    const RegisterOptions options = options_of(transfer_backend);
    return succeeded(c, [&](Client& client) { return client.register_worker(worker.registration, options); });
}

Outcome save(RpcClient& c, const std::string& instance_id, std::uint32_t tp_rank, std::uint32_t pp_rank, std::int32_t device_id,
             const py::object& items, Seconds timeout, const std::optional<py::bytes>& wait_event) {
    const Saves saves(items);
    const std::string event = wait_event.value_or(py::bytes());
    const SaveRequest request{instance_id, tp_rank, pp_rank, device_id, saves.layers, event, nullptr, to_deadline(timeout)};
    return succeeded(c, [&](Client& client) { return client.save(request); });
}

Outcome load(RpcClient& c, const std::string& instance_id, std::uint32_t tp_rank, std::int32_t device_id,
             const std::string& load_state_shm, const py::object& layer_groups, const py::object& items, Seconds timeout,
             const std::optional<py::bytes>& wait_event) {
    const Loads loads(layer_groups, items);
    const std::string event = wait_event.value_or(py::bytes());
    const LoadRequest request{instance_id, tp_rank, device_id, loads.groups, loads.loads, event, nullptr, to_deadline(timeout)};
    return succeeded(c, [&](Client& client) { return client.load(request, load_state_shm); });
}

Outcome cancel_load(RpcClient& c, const std::string& instance_id, const std::string& load_state_shm) {
    return succeeded(c, [&](Client& client) { return client.cancel_load(instance_id, load_state_shm); });
}

// A server that is away is a miss, so that a scheduler goes on without it.
py::object query_prefetch(RpcClient& c, const std::string& instance_id, const py::object& block_hashes,
                          const std::string& req_id, bool wait_for_full_prefix, std::uint32_t group_id, Seconds lease_time) {
    const Hashes hashes = to_hashes(block_hashes, "block_hashes");
    QueryRequest request{instance_id, hashes.views, req_id, group_id, wait_for_full_prefix, {}};
    if (lease_time) request.lease_time = to_duration(lease_time);
    Result<QueryOutcome> outcome = call(c, [&](Client& client) { return client.query(request); });
    if (!outcome && (outcome.error().code == Code::kPeerLost || outcome.error().code == Code::kDeadlineExceeded))
        return py::cast(QueryReady());
    return to_python(take(std::move(outcome)));
}

void release(RpcClient& c, const py::object& lease) {
    const LeaseId id = to_lease(lease, "lease");
    take(call(c, [&](Client& client) { return client.release(id); }));
}

void start_session_watcher(RpcClient& c, const std::string& instance_id, const std::string& name_space, std::uint32_t tp_size,
                           std::uint32_t world_size) {
    take(call(c, [&](Client& client) { return client.start_session(instance_id, name_space, tp_size, world_size); }));
}

void close(RpcClient& c) {
    std::shared_ptr<Client> last = std::move(c.client);
    unlocked([&] { last.reset(); });
}

void bind_calls(py::class_<RpcClient>& client) {
    client
        .def("save", &save, py::arg("instance_id"), py::arg("tp_rank"), py::arg("pp_rank"), py::arg("device_id"),
             py::arg("saves"), py::kw_only(), py::arg("timeout") = py::none(), py::arg("wait_event") = py::none())
        .def("load", &load, py::arg("instance_id"), py::arg("tp_rank"), py::arg("device_id"), py::arg("load_state_shm"),
             py::arg("layer_groups"), py::arg("loads"), py::kw_only(), py::arg("timeout") = py::none(),
             py::arg("wait_event") = py::none())
        .def("cancel_load", &cancel_load, py::arg("instance_id"), py::arg("load_state_shm"))
        .def("query_prefetch", &query_prefetch, py::arg("instance_id"), py::arg("block_hashes"), py::arg("req_id"),
             py::arg("wait_for_full_prefix") = false, py::arg("group_id") = 0, py::kw_only(),
             py::arg("lease_time") = py::none())
        .def("release", &release, py::arg("lease"));
}

}  // namespace

void bind_rpc_client(py::module_& module) {
    py::class_<RpcClient> client(module, "EngineRpcClient");
    client
        .def(py::init(&connect), py::arg("endpoint") = py::none(), py::kw_only(), py::arg("connect_timeout") = 5.0,
             py::arg("call_timeout") = 30.0, py::arg("reconnect") = true)
        .def("endpoint", [](const RpcClient& c) { return c.endpoint; })
        .def("health",
             [](RpcClient& c) {
                 const std::string version = take(call(c, [](Client& to) { return to.health(); }));
                 return Outcome(true, version);
             })
        .def("shutdown", [](RpcClient& c) { return succeeded(c, [](Client& to) { return to.shutdown_server(); }); })
        .def("register_context_batch", &register_context_batch, py::arg("instance_id"), py::arg("namespace"),
             py::arg("tp_rank"), py::arg("pp_rank"), py::arg("tp_size"), py::arg("world_size"), py::arg("device_id"),
             py::arg("layer_names"), py::arg("wrapper_bytes_list"), py::arg("num_blocks_list"), py::arg("bytes_per_block_list"),
             py::arg("kv_stride_bytes_list"), py::arg("segments_list"), py::arg("transfer_backend"), py::arg("page_first"),
             py::arg("layer_group_ids") = py::none())
        .def("register_worker", &register_worker, py::arg("instance_id"), py::arg("namespace"), py::arg("layers"),
             py::kw_only(), py::arg("tp_rank") = 0, py::arg("tp_size") = 1, py::arg("pp_rank") = 0, py::arg("world_size") = 1,
             py::arg("device_id") = 0, py::arg("page_first") = false, py::arg("dtype") = "",
             py::arg("transfer_backend") = "direct")
        .def(
            "unregister_context",
            [](RpcClient& c, const std::string& instance_id) {
                return succeeded(c, [&](Client& to) { return to.unregister_instance(instance_id); });
            },
            py::arg("instance_id"))
        .def("start_session_watcher", &start_session_watcher, py::arg("instance_id"), py::arg("namespace"), py::arg("tp_size"),
             py::arg("world_size"))
        .def("close", &close)
        .def("__enter__", [](py::object self) { return self; })
        .def("__exit__", [](RpcClient& c, const py::args&) { close(c); });
    bind_calls(client);
}

}  // namespace pegaflow::python
