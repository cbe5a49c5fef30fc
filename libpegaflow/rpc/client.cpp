// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/client.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>

#include "engine.grpc.pb.h"
#include "pegaflow/abi/region.h"
#include "rpc/load_state.hpp"
#include "rpc/status.hpp"

namespace pegaflow {
namespace {

namespace wire = ::pegaflow_wire;
using SystemClock = std::chrono::system_clock;

constexpr int kMaxMessage = 64 << 20;
constexpr auto kRetryInterval = std::chrono::milliseconds(200);

std::shared_ptr<grpc::Channel> make_channel(const std::string& endpoint) {
    const std::string target = endpoint.starts_with("http://") ? endpoint.substr(7) : endpoint;
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxMessage);
    arguments.SetMaxSendMessageSize(kMaxMessage);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    // Two clients of one process must not share a connection: the death of one is not the death of the other.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

void describe(const WorkerRegistration& worker, wire::RegisterContextRequest& out) {
    out.set_instance_id(worker.instance_id);
    out.set_namespace_(worker.name_space);
    out.set_tp_rank(worker.tp_rank);
    out.set_tp_size(worker.tp_size);
    out.set_world_size(worker.world_size);
    out.set_device_id(worker.device_id);
    out.set_pp_rank(worker.pp_rank);
    out.set_client_version(PEGAFLOW_VERSION);
    out.set_page_first(worker.page_first);
    out.set_dtype(worker.dtype);
    for (const LayerRegistration& layer : worker.layers) {
        out.add_layer_names(layer.name);
        out.add_num_blocks(layer.num_blocks);
        out.add_bytes_per_block(layer.bytes_per_block);
        out.add_kv_stride_bytes(layer.kv_stride_bytes);
        out.add_segments(layer.segments);
        out.add_layer_group_ids(layer.storage_group);
        out.add_block_stride_bytes(layer.block_stride_bytes);
        wire::MemoryDescription& memory = *out.add_memory();
        memory.set_kind(layer.memory.source == PEGA_SOURCE_IPC ? wire::MEMORY_KIND_CUDA_IPC : wire::MEMORY_KIND_HOST_SHM);
        memory.set_device_uuid(layer.memory.device_uuid);
        memory.set_handle(layer.memory.handle);
        memory.set_offset(layer.memory.offset);
        memory.set_length(layer.memory.length);
    }
}

}  // namespace

struct LoadState::Mapping {
    std::string name;
    void* memory = nullptr;
    rpc::LoadStateRecord* record = nullptr;
    ~Mapping() {
        if (memory == nullptr) return;
        ::munmap(memory, rpc::kLoadStateBytes);
        ::shm_unlink(("/" + name).c_str());
    }
};

LoadState::LoadState(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
LoadState::LoadState(LoadState&&) noexcept = default;
LoadState& LoadState::operator=(LoadState&&) noexcept = default;
LoadState::~LoadState() = default;

Result<LoadState> LoadState::create() {
    auto mapping = std::make_unique<Mapping>();
    std::uint64_t random[2] = {};
    if (::getrandom(random, sizeof random, 0) != sizeof random)
        return fail(Code::kNoMemory, "no random bytes for a name", errno);
    mapping->name = fmt::format("pega_load_{:016x}{:016x}", random[0], random[1]);
    const int fd = ::shm_open(("/" + mapping->name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return fail(Code::kNoMemory, fmt::format("cannot create the shared memory object {}", mapping->name), errno);
    void* memory = ::ftruncate(fd, rpc::kLoadStateBytes) == 0
                       ? ::mmap(nullptr, rpc::kLoadStateBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                       : MAP_FAILED;
    ::close(fd);
    if (memory == MAP_FAILED) {
        ::shm_unlink(("/" + mapping->name).c_str());
        return fail(Code::kNoMemory, fmt::format("cannot map the shared memory object {}", mapping->name), errno);
    }
    mapping->memory = memory;
    const std::uint64_t offset = sizeof(std::uint64_t);
    std::memcpy(memory, &offset, sizeof offset);
    mapping->record = new (static_cast<char*>(memory) + offset) rpc::LoadStateRecord;
    mapping->record->state.store(rpc::kLoadPending, std::memory_order_release);
    mapping->record->magic.store(rpc::kLoadStateMagic, std::memory_order_release);
    mapping->record->version.store(rpc::kLoadStateVersion, std::memory_order_release);
    return LoadState(std::move(mapping));
}

const std::string& LoadState::shm_name() const noexcept { return mapping_->name; }
std::int64_t LoadState::state() const noexcept { return mapping_->record->state.load(std::memory_order_acquire); }

Result<void> LoadState::wait(std::chrono::nanoseconds timeout) const {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (int spins = 0; !ready(); ++spins) {
        if (std::chrono::steady_clock::now() >= deadline) return fail(Code::kDeadlineExceeded, "the load has not ended yet");
        if (spins > 100) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    if (state() < 0) return fail(Code::kInternal, "the load failed; the server's log says why");
    return {};
}

struct Client::State {
    explicit State(ClientOptions client_options) : options(std::move(client_options)), channel(make_channel(options.endpoint)) {
        stub = wire::Engine::NewStub(channel);
    }

    ClientOptions options;
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<wire::Engine::Stub> stub;

    std::mutex mutex;
    std::condition_variable changed;
    std::vector<WorkerRegistration> registrations;                 // to repeat after a server restart; guarded by mutex
    wire::SessionRequest session;                                  // guarded by mutex
    bool has_session = false, session_open = false, stop = false;  // guarded by mutex
    grpc::ClientContext* session_context = nullptr;                // guarded by mutex
    std::thread watcher;

    template <class Request, class Response>
    Result<Response> call(const char* name,
                          grpc::Status (wire::Engine::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                          const Request& request,
                          std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max()) {
        grpc::ClientContext context;
        const auto limit = SystemClock::now() + options.call_timeout;
        if (deadline == std::chrono::steady_clock::time_point::max()) {
            context.set_deadline(limit);
        } else {
            context.set_deadline(SystemClock::now() + std::chrono::duration_cast<std::chrono::microseconds>(
                                                          deadline - std::chrono::steady_clock::now()));
        }
        Response response;
        const grpc::Status status = (stub.get()->*method)(&context, request, &response);
        if (!status.ok()) return fail(rpc::from_status(status, name));
        return response;
    }

    Result<void> send_registration(const WorkerRegistration& worker) {
        wire::RegisterContextRequest request;
        describe(worker, request);
        PEGA_TRY(call("RegisterContextBatch", &wire::Engine::Stub::RegisterContextBatch, request));
        return {};
    }
    void watch();
    void read_session();
};

// Blocks while the session stands; returns when it broke.
void Client::State::read_session() {
    grpc::ClientContext context;
    wire::SessionRequest request;
    {
        const std::lock_guard lock(mutex);
        if (stop) return;
        session_context = &context;
        request = session;
    }
    auto reader = stub->Session(&context, request);
    reader->WaitForInitialMetadata();
    {
        const std::lock_guard lock(mutex);
        session_open = true;
        changed.notify_all();
    }
    wire::SessionEvent event;
    while (reader->Read(&event)) {
    }
    [[maybe_unused]] const grpc::Status ended = reader->Finish();
    const std::lock_guard lock(mutex);
    session_context = nullptr;
    session_open = false;
}

void Client::State::watch() {
    for (bool first = true;; first = false) {
        if (!first) {
            // The server went away and may come back empty: wait for it, then say again who we are.
            std::vector<WorkerRegistration> again;
            {
                std::unique_lock lock(mutex);
                if (changed.wait_for(lock, kRetryInterval, [&] { return stop; }) || !options.reconnect) return;
                again = registrations;
            }
            if (!channel->WaitForConnected(SystemClock::now() + kRetryInterval)) continue;
            for (const WorkerRegistration& worker : again) (void)send_registration(worker);
        }
        read_session();
        const std::lock_guard lock(mutex);
        if (stop) return;
    }
}

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
    auto state = std::make_unique<State>(std::move(options));
    if (!state->channel->WaitForConnected(SystemClock::now() + state->options.connect_timeout)) {
        return fail(Code::kPeerLost, fmt::format("nobody answers at {} within {} ms; is `pegaflow serve` running?",
                                                 state->options.endpoint, state->options.connect_timeout.count()));
    }
    return std::unique_ptr<Client>(new Client(std::move(state)));
}

Client::~Client() {
    {
        const std::lock_guard lock(state_->mutex);
        state_->stop = true;
        if (state_->session_context != nullptr) state_->session_context->TryCancel();
        state_->changed.notify_all();
    }
    if (state_->watcher.joinable()) state_->watcher.join();
}

const std::string& Client::endpoint() const noexcept { return state_->options.endpoint; }

Result<std::string> Client::health() {
    PEGA_ASSIGN(const auto response, state_->call("Health", &wire::Engine::Stub::Health, wire::HealthRequest()));
    return response.version();
}

Result<void> Client::start_session(std::string instance_id, std::string name_space, std::uint32_t tp_size,
                                   std::uint32_t world_size) {
    State& s = *state_;
    std::unique_lock lock(s.mutex);
    if (s.has_session) return fail(Code::kExists, "this client has a session already");
    s.session.set_instance_id(std::move(instance_id));
    s.session.set_namespace_(std::move(name_space));
    s.session.set_tp_size(tp_size);
    s.session.set_world_size(world_size);
    s.has_session = true;
    s.watcher = std::thread([&s] { s.watch(); });
    if (s.changed.wait_for(lock, s.options.connect_timeout, [&] { return s.session_open; })) return {};
    return fail(Code::kDeadlineExceeded, "the server did not open the session in time");
}

Result<void> Client::register_worker(const WorkerRegistration& worker) {
    PEGA_TRY(state_->send_registration(worker));
    const std::lock_guard lock(state_->mutex);
    state_->registrations.push_back(worker);
    return {};
}

Result<void> Client::unregister_instance(std::string_view instance_id) {
    wire::UnregisterRequest request;
    request.set_instance_id(std::string(instance_id));
    {
        const std::lock_guard lock(state_->mutex);
        std::erase_if(state_->registrations, [&](const WorkerRegistration& w) { return w.instance_id == instance_id; });
    }
    PEGA_TRY(state_->call("UnregisterContext", &wire::Engine::Stub::UnregisterContext, request));
    return {};
}

Result<SaveOutcome> Client::save(const SaveRequest& request) {
    wire::SaveRequest message;
    message.set_instance_id(std::string(request.instance_id));
    message.set_tp_rank(request.tp_rank);
    message.set_pp_rank(request.pp_rank);
    message.set_device_id(request.device_id);
    message.set_wait_event(std::string(request.wait_event));
    for (const SaveLayer& layer : request.layers) {
        wire::SaveLayer& out = *message.add_saves();
        out.set_layer_name(std::string(layer.layer));
        out.mutable_block_ids()->Add(layer.block_ids.begin(), layer.block_ids.end());
        for (const std::string_view hash : layer.hashes) out.add_block_hashes(hash.data(), hash.size());
    }
    PEGA_ASSIGN(const auto response, state_->call("Save", &wire::Engine::Stub::Save, message, request.deadline));
    return SaveOutcome{response.saved_blocks(), response.duplicate_blocks(), response.bytes()};
}

Result<QueryOutcome> Client::query(const QueryRequest& request) {
    wire::QueryRequest message;
    message.set_instance_id(std::string(request.instance_id));
    message.set_req_id(std::string(request.request_id));
    message.set_wait_for_full_prefix(request.whole_prefix_only);
    message.set_group_id(request.group);
    if (request.lease_time) message.set_lease_ms(static_cast<std::uint64_t>(request.lease_time->count() / 1'000'000));
    for (const std::string_view hash : request.hashes) message.add_block_hashes(hash.data(), hash.size());
    PEGA_ASSIGN(const auto response, state_->call("QueryPrefetch", &wire::Engine::Stub::QueryPrefetch, message));
    QueryOutcome out;
    out.loading = response.has_loading();
    const wire::QueryReady& ready = response.ready();
    out.hit_blocks = ready.num_hit_blocks();
    out.hit_positions.assign(ready.hit_positions().begin(), ready.hit_positions().end());
    if (ready.lease().empty()) return out;
    LeaseId lease{};
    if (ready.lease().size() != lease.size())
        return fail(Code::kCorrupt, fmt::format("QueryPrefetch: a lease of {} bytes, expected 16", ready.lease().size()));
    std::memcpy(lease.data(), ready.lease().data(), lease.size());
    out.lease = lease;
    return out;
}

Result<void> Client::release(const LeaseId& lease) {
    wire::ReleaseRequest request;
    request.set_lease(lease.data(), lease.size());
    PEGA_TRY(state_->call("Release", &wire::Engine::Stub::Release, request));
    return {};
}

Result<void> Client::load(const LoadRequest& request, std::string_view load_state_shm) {
    wire::LoadRequest message;
    message.set_instance_id(std::string(request.instance_id));
    message.set_tp_rank(request.tp_rank);
    message.set_device_id(request.device_id);
    message.set_load_state_shm(std::string(load_state_shm));
    message.set_wait_event(std::string(request.wait_event));
    for (const auto& names : request.layer_groups) {
        wire::LoadGroup& group = *message.add_groups();
        for (const std::string_view name : names) group.add_layer_names(name.data(), name.size());
    }
    for (const LeaseLoad& load : request.loads) {
        wire::LeaseLoad& out = *message.add_loads();
        out.set_lease(load.lease.data(), load.lease.size());
        for (const auto& ids : load.block_ids_by_group) {
            wire::LoadBlockIds& targets = *out.add_block_ids_by_group();
            for (const std::uint32_t id : ids) {
                wire::LoadBlockTarget& target = *targets.add_targets();
                if (id != kNoBlock) target.set_block_id(id);
            }
        }
    }
    PEGA_TRY(state_->call("Load", &wire::Engine::Stub::Load, message, request.deadline));
    return {};
}

Result<void> Client::shutdown_server() {
    PEGA_TRY(state_->call("Shutdown", &wire::Engine::Stub::Shutdown, wire::ShutdownRequest()));
    return {};
}

}  // namespace pegaflow
