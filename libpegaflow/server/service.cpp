// SPDX-License-Identifier: Apache-2.0
// The Engine service: requests to engine calls, outcomes to replies. Replies that wait for copies come from the engine's
// threads.
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "engine.grpc.pb.h"
#include "pegaflow/abi/region.h"
#include "rpc/load_state.hpp"
#include "rpc/status.hpp"
#include "server/grpc_server.hpp"
#include "server/pickle.hpp"
#include "server/sessions.hpp"

namespace pegaflow::server {
namespace {

namespace wire = ::pegaflow_wire;
using Clock = std::chrono::steady_clock;

constexpr int kMaxMessage = 64 << 20;
constexpr const char* kStatusNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

// Clients of this project from 0.1 on, and of the existing service (0.x as well): the wire is the same.
bool compatible(const std::string& version) { return version.starts_with("0."); }

Clock::time_point deadline_of(const grpc::CallbackServerContext& context) {
    const auto left = context.deadline() - std::chrono::system_clock::now();
    if (left > std::chrono::hours(24)) return Clock::time_point::max();
    return Clock::now() + std::chrono::duration_cast<Clock::duration>(left);
}

std::vector<std::string_view> views(const google::protobuf::RepeatedPtrField<std::string>& texts) {
    return {texts.begin(), texts.end()};
}

Result<LeaseId> lease_of(const std::string& bytes) {
    if (bytes.empty()) return fail(Code::kInvalid, "query lease id must be non-empty");
    LeaseId lease{};
    if (bytes.size() != lease.size())
        return fail(Code::kInvalid, fmt::format("query lease id must be 16 bytes, got {}", bytes.size()));
    std::memcpy(lease.data(), bytes.data(), lease.size());
    return lease;
}

Result<MemoryDescription> memory_of(const wire::RegisterContextRequest& request, int layer) {
    MemoryDescription out;
    if (request.memory_size() > 0) {
        const wire::MemoryDescription& m = request.memory(layer);
        const bool cuda = m.kind() == wire::MEMORY_KIND_CUDA_IPC;
        if (!cuda && m.kind() != wire::MEMORY_KIND_HOST_SHM)
            return fail(Code::kInvalid, fmt::format("memory kind {} is not known", static_cast<int>(m.kind())));
        out.kind = cuda ? PEGA_MEMORY_GPU : PEGA_MEMORY_HOST;
        out.source = cuda ? PEGA_SOURCE_IPC : PEGA_SOURCE_SHM;
        out.device_uuid = m.device_uuid();
        out.handle = m.handle();
        out.offset = m.offset();
        out.length = m.length();
        return out;
    }
    PEGA_ASSIGN(const CudaWrapper wrapper, read_cuda_wrapper(request.wrapper_bytes(layer)));
    out.kind = PEGA_MEMORY_GPU;
    out.source = PEGA_SOURCE_IPC;
    out.device_uuid = wrapper.device_uuid;
    out.handle = wrapper.ipc_handle;
    out.offset = wrapper.offset;
    out.length = wrapper.storage_bytes;
    return out;
}

Result<WorkerRegistration> registration_of(const wire::RegisterContextRequest& request) {
    const int layers = request.layer_names_size();
    const bool plain = request.memory_size() > 0;
    if (request.device_id() < 0)
        return fail(Code::kInvalid, fmt::format("device_id must be >= 0, got {}", request.device_id()));
    if (request.tp_size() == 0) return fail(Code::kInvalid, "tp_size must be > 0");
    if (request.world_size() == 0) return fail(Code::kInvalid, "world_size must be > 0");
    if (request.tp_rank() >= request.tp_size())
        return fail(Code::kInvalid, fmt::format("tp_rank {} must be < tp_size {}", request.tp_rank(), request.tp_size()));
    const int memories = plain ? request.memory_size() : request.wrapper_bytes_size();
    const bool optional_fit = (request.layer_group_ids_size() == 0 || request.layer_group_ids_size() == layers) &&
                              (request.block_stride_bytes_size() == 0 || request.block_stride_bytes_size() == layers);
    if (layers == 0 || memories != layers || request.num_blocks_size() != layers || request.bytes_per_block_size() != layers ||
        request.kv_stride_bytes_size() != layers || request.segments_size() != layers || !optional_fit) {
        return fail(Code::kInvalid,
                    fmt::format("all layer arrays must have the same non-zero length (got layer_names={})", layers));
    }
    WorkerRegistration out{
        request.instance_id(), request.namespace_(), request.tp_rank(),    request.tp_size(), request.pp_rank(),
        request.world_size(),  request.device_id(),  request.page_first(), request.dtype(),   {}};
    for (int i = 0; i < layers; ++i) {
        LayerRegistration layer;
        layer.name = request.layer_names(i);
        PEGA_ASSIGN(layer.memory, memory_of(request, i));
        layer.num_blocks = request.num_blocks(i);
        layer.bytes_per_block = request.bytes_per_block(i);
        layer.kv_stride_bytes = request.kv_stride_bytes(i);
        layer.segments = request.segments(i);
        layer.block_stride_bytes = request.block_stride_bytes_size() > 0 ? request.block_stride_bytes(i) : 0;
        layer.storage_group = request.layer_group_ids_size() > 0 ? request.layer_group_ids(i) : 0;
        out.layers.push_back(std::move(layer));
    }
    return out;
}

// Times one call and reports its end.
class Call {
public:
    Call(const GrpcOptions& options, const char* method) : options_(options), method_(method) {}
    void finish(grpc::ServerUnaryReactor* reactor, const grpc::Status& status) const {
        if (options_.on_call) {
            const std::chrono::duration<double> seconds = Clock::now() - started_;
            options_.on_call(method_, kStatusNames[std::min<std::size_t>(status.error_code(), std::size(kStatusNames) - 1)],
                             seconds.count());
        }
        reactor->Finish(status);
    }
    void finish(grpc::ServerUnaryReactor* reactor, const Result<void>& result) const {
        finish(reactor, result ? grpc::Status::OK : rpc::to_status(result.error()));
    }

private:
    const GrpcOptions& options_;
    const char* method_;
    Clock::time_point started_ = Clock::now();
};

// Runs short tasks one after another on a thread of its own.
class Worker {
public:
    Worker() : thread_([this] { run(); }) {}
    ~Worker() {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    void post(std::function<void()> task) {
        {
            const std::lock_guard lock(mutex_);
            tasks_.push_back(std::move(task));
        }
        changed_.notify_all();
    }

private:
    void run() {
        std::unique_lock lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
            if (tasks_.empty()) return;
            auto task = std::move(tasks_.front());
            tasks_.erase(tasks_.begin());
            lock.unlock();
            task();
            lock.lock();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::function<void()>> tasks_;  // guarded by mutex_
    bool stop_ = false;                         // guarded by mutex_
    std::thread thread_;
};

class EngineService;

class SessionReactor final : public grpc::ServerWriteReactor<wire::SessionEvent> {
public:
    SessionReactor(EngineService& service, std::string instance, std::uint64_t token);
    void OnCancel() override { finish_once(); }
    void OnDone() override;
    void finish_once() {
        if (!finished_.exchange(true)) Finish(grpc::Status::OK);
    }

private:
    EngineService& service_;
    std::string instance_;
    std::uint64_t token_;
    std::atomic<bool> finished_{false};
};

class EngineService final : public wire::Engine::CallbackService {
public:
    EngineService(Engine& engine, const GrpcOptions& options) : engine_(engine), options_(options), sessions_(engine) {}

    grpc::ServerUnaryReactor* RegisterContextBatch(grpc::CallbackServerContext* context,
                                                   const wire::RegisterContextRequest* request,
                                                   wire::RegisterContextResponse* response) override {
        auto* reactor = context->DefaultReactor();
        const Call call(options_, "register_context_batch");
        if (!compatible(request->client_version())) {
            const std::string client = request->client_version().empty() ? "<missing>" : request->client_version();
            call.finish(reactor,
                        grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                                     fmt::format("PegaFlow version mismatch: client={} server={}", client, PEGAFLOW_VERSION)));
            return reactor;
        }
        // Opening memory can take a while: not on a thread that other calls wait for.
        worker_.post([this, request, response, reactor, call] {
            const auto registered = [&]() -> Result<void> {
                PEGA_ASSIGN(const WorkerRegistration worker, registration_of(*request));
                return engine_.register_worker(worker);
            }();
            response->mutable_status()->set_ok(registered.has_value());
            call.finish(reactor, registered);
        });
        return reactor;
    }

    grpc::ServerUnaryReactor* Save(grpc::CallbackServerContext* context, const wire::SaveRequest* request,
                                   wire::SaveResponse* response) override;
    grpc::ServerUnaryReactor* Load(grpc::CallbackServerContext* context, const wire::LoadRequest* request,
                                   wire::LoadResponse* response) override;
    grpc::ServerUnaryReactor* QueryPrefetch(grpc::CallbackServerContext* context, const wire::QueryRequest* request,
                                            wire::QueryResponse* response) override;

    grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const wire::ReleaseRequest* request,
                                      wire::ReleaseResponse*) override {
        auto* reactor = context->DefaultReactor();
        const Call call(options_, "release");
        const auto lease = lease_of(request->lease());
        call.finish(reactor, lease ? engine_.release(*lease) : Result<void>(fail(lease.error())));
        return reactor;
    }

    grpc::ServerUnaryReactor* UnregisterContext(grpc::CallbackServerContext* context, const wire::UnregisterRequest* request,
                                                wire::UnregisterResponse* response) override {
        auto* reactor = context->DefaultReactor();
        const Call call(options_, "unregister_context");
        worker_.post([this, request, response, reactor, call] {
            response->mutable_status()->set_ok(true);
            call.finish(reactor, engine_.unregister_instance(request->instance_id()));
        });
        return reactor;
    }

    grpc::ServerUnaryReactor* Health(grpc::CallbackServerContext* context, const wire::HealthRequest*,
                                     wire::HealthResponse* response) override {
        auto* reactor = context->DefaultReactor();
        response->mutable_status()->set_ok(true);
        response->set_version(PEGAFLOW_VERSION);
        Call(options_, "health").finish(reactor, grpc::Status::OK);
        return reactor;
    }

    grpc::ServerUnaryReactor* Shutdown(grpc::CallbackServerContext* context, const wire::ShutdownRequest*,
                                       wire::ShutdownResponse* response) override {
        auto* reactor = context->DefaultReactor();
        response->mutable_status()->set_ok(true);
        Call(options_, "shutdown").finish(reactor, grpc::Status::OK);
        if (options_.on_shutdown_request) options_.on_shutdown_request();
        return reactor;
    }

    grpc::ServerWriteReactor<wire::SessionEvent>* Session(grpc::CallbackServerContext*,
                                                          const wire::SessionRequest* request) override {
        if (request->instance_id().empty()) {
            class Refused final : public grpc::ServerWriteReactor<wire::SessionEvent> {
            public:
                Refused() { Finish({grpc::StatusCode::INVALID_ARGUMENT, "invalid argument: instance_id must not be empty"}); }
                void OnDone() override { delete this; }
            };
            return new Refused();
        }
        return new SessionReactor(*this, request->instance_id(), sessions_.open(request->instance_id()));
    }

    void add(SessionReactor* session) {
        const std::lock_guard lock(mutex_);
        open_.push_back(session);
        if (draining_) session->finish_once();
    }
    void remove(SessionReactor* session, std::string instance, std::uint64_t token) {
        {
            const std::lock_guard lock(mutex_);
            std::erase(open_, session);
        }
        worker_.post([this, instance = std::move(instance), token] { sessions_.ended(instance, token); });
    }
    void end_sessions() {
        const std::lock_guard lock(mutex_);
        draining_ = true;
        for (SessionReactor* session : open_) session->finish_once();
    }

private:
    Result<void> start_load(grpc::CallbackServerContext& context, const wire::LoadRequest& request);

    Engine& engine_;
    const GrpcOptions& options_;
    Sessions sessions_;
    std::mutex mutex_;
    std::vector<SessionReactor*> open_;  // guarded by mutex_
    bool draining_ = false;              // guarded by mutex_
    Worker worker_;
};

SessionReactor::SessionReactor(EngineService& service, std::string instance, std::uint64_t token)
    : service_(service), instance_(std::move(instance)), token_(token) {
    StartSendInitialMetadata();
    service_.add(this);
}

void SessionReactor::OnDone() {
    service_.remove(this, std::move(instance_), token_);
    delete this;
}

grpc::ServerUnaryReactor* EngineService::Save(grpc::CallbackServerContext* context, const wire::SaveRequest* request,
                                              wire::SaveResponse* response) {
    // The engine borrows these until the copy has ended, which may be after this call.
    struct Borrowed {
        std::vector<std::vector<std::string_view>> hashes;
        std::vector<SaveLayer> layers;
    };
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "save");
    auto borrowed = std::make_shared<Borrowed>();
    borrowed->hashes.reserve(static_cast<std::size_t>(request->saves_size()));
    for (const wire::SaveLayer& save : request->saves()) {
        borrowed->hashes.push_back(views(save.block_hashes()));
        borrowed->layers.push_back({save.layer_name(),
                                    {save.block_ids().data(), static_cast<std::size_t>(save.block_ids_size())},
                                    borrowed->hashes.back()});
    }
    pegaflow::SaveRequest save;
    save.instance_id = request->instance_id();
    save.tp_rank = request->tp_rank();
    save.pp_rank = request->pp_rank();
    save.device_id = request->device_id();
    save.layers = borrowed->layers;
    save.wait_event = request->wait_event();
    save.deadline = deadline_of(*context);
    engine_.save_async(save, [reactor, response, call, borrowed](Result<SaveOutcome> outcome) {
        if (!outcome) return call.finish(reactor, rpc::to_status(outcome.error()));
        response->mutable_status()->set_ok(true);
        response->set_saved_blocks(outcome->saved_blocks);
        response->set_duplicate_blocks(outcome->duplicate_blocks);
        response->set_bytes(outcome->bytes);
        call.finish(reactor, grpc::Status::OK);
    });
    return reactor;
}

Result<void> EngineService::start_load(grpc::CallbackServerContext&, const wire::LoadRequest& request) {
    if (request.device_id() < 0)
        return fail(Code::kInvalid, fmt::format("device_id must be >= 0, got {}", request.device_id()));
    std::vector<LeaseId> leases;
    for (const wire::LeaseLoad& load : request.loads()) {
        PEGA_ASSIGN(const LeaseId lease, lease_of(load.lease()));
        leases.push_back(lease);
    }
    auto attached = rpc::AttachedLoadState::attach(request.load_state_shm());
    if (!attached) return fail(std::move(attached).error());
    auto state = std::make_shared<rpc::AttachedLoadState>(std::move(*attached));
    sessions_.reports_into(request.instance_id(), state->name());
    std::vector<std::vector<std::string_view>> names;
    for (const wire::LoadGroup& group : request.groups()) names.push_back(views(group.layer_names()));
    const std::vector<std::span<const std::string_view>> groups(names.begin(), names.end());
    std::vector<std::vector<std::vector<std::uint32_t>>> ids;
    std::vector<std::vector<std::span<const std::uint32_t>>> targets;
    std::vector<pegaflow::LeaseLoad> loads;
    ids.reserve(leases.size());
    targets.reserve(leases.size());
    for (int i = 0; i < request.loads_size(); ++i) {
        auto& groups_of_lease = ids.emplace_back();
        for (const wire::LoadBlockIds& list : request.loads(i).block_ids_by_group()) {
            auto& group = groups_of_lease.emplace_back();
            for (const wire::LoadBlockTarget& target : list.targets())
                group.push_back(target.has_block_id() ? target.block_id() : kNoBlock);
        }
        targets.emplace_back(groups_of_lease.begin(), groups_of_lease.end());
        loads.push_back({leases[static_cast<std::size_t>(i)], targets.back()});
    }
    pegaflow::LoadRequest load;
    load.instance_id = request.instance_id();
    load.tp_rank = request.tp_rank();
    load.device_id = request.device_id();
    load.layer_groups = groups;
    load.loads = loads;
    load.wait_event = request.wait_event();
    auto started = engine_.load_async(
        load, {nullptr, [state](const Result<void>& result) { state->finish(result ? rpc::kLoadSuccess : rpc::kLoadError); }});
    if (started) return {};
    state->finish(rpc::kLoadError);
    sessions_.not_begun(request.instance_id(), state->name());
    return fail(std::move(started).error());
}

grpc::ServerUnaryReactor* EngineService::Load(grpc::CallbackServerContext* context, const wire::LoadRequest* request,
                                              wire::LoadResponse* response) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "load");
    auto started = start_load(*context, *request);
    response->mutable_status()->set_ok(started.has_value());
    // A lease that is unknown, or another's, is a storage error on this wire.
    const bool lease = !started && started.error().message.starts_with("query lease");
    if (lease && started.error().message.find("block count") == std::string::npos &&
        started.error().message.find("lease id") == std::string::npos) {
        started.error().code = Code::kInternal;
    }
    call.finish(reactor, started);
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::QueryPrefetch(grpc::CallbackServerContext* context, const wire::QueryRequest* request,
                                                       wire::QueryResponse* response) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "query_prefetch");
    const std::vector<std::string_view> hashes = views(request->block_hashes());
    pegaflow::QueryRequest query;
    query.instance_id = request->instance_id();
    query.hashes = hashes;
    query.request_id = request->req_id();
    query.group = request->group_id();
    query.whole_prefix_only = request->wait_for_full_prefix();
    if (request->lease_ms() != 0) query.lease_time = std::chrono::milliseconds(request->lease_ms());
    const auto outcome = engine_.query(query);
    if (!outcome) {
        call.finish(reactor, rpc::to_status(outcome.error()));
        return reactor;
    }
    if (outcome->loading) {
        response->mutable_loading();
    } else {
        wire::QueryReady& ready = *response->mutable_ready();
        ready.set_num_hit_blocks(outcome->hit_blocks);
        if (outcome->lease) ready.set_lease(outcome->lease->data(), outcome->lease->size());
        ready.mutable_hit_positions()->Add(outcome->hit_positions.begin(), outcome->hit_positions.end());
    }
    call.finish(reactor, grpc::Status::OK);
    return reactor;
}

}  // namespace

struct GrpcServer::State {
    State(GrpcOptions grpc_options, Engine& engine) : options(std::move(grpc_options)), service(engine, options) {}
    GrpcOptions options;
    EngineService service;
    std::unique_ptr<grpc::Server> server;
    int port = 0;
    std::once_flag drained;
};

Result<std::unique_ptr<GrpcServer>> GrpcServer::start(GrpcOptions options, Engine& engine) {
    auto state = std::make_unique<State>(std::move(options), engine);
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(kMaxMessage);
    builder.SetMaxSendMessageSize(kMaxMessage);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
    // Clients ping every 5 s, also while they have no call under way.
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1'000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddListeningPort(state->options.address, grpc::InsecureServerCredentials(), &state->port);
    builder.RegisterService(&state->service);
    state->server = builder.BuildAndStart();
    if (!state->server || state->port == 0) {
        return fail(Code::kInvalid,
                    fmt::format("cannot listen for gRPC on {}: is the address one of this machine and the port free?",
                                state->options.address));
    }
    return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(state)));
}

GrpcServer::GrpcServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
GrpcServer::~GrpcServer() { drain(std::chrono::system_clock::now()); }

int GrpcServer::port() const noexcept { return state_->port; }

void GrpcServer::drain(std::chrono::system_clock::time_point deadline) {
    std::call_once(state_->drained, [&] {
        state_->service.end_sessions();
        state_->server->Shutdown(deadline);
        state_->server->Wait();
    });
}

}  // namespace pegaflow::server
