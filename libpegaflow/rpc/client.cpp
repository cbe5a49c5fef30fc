// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/client.hpp"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <mutex>

#include "engine.grpc.pb.h"
#include "rpc/client_registrations.hpp"
#include "rpc/client_session.hpp"
#include "rpc/client_wire.hpp"
#include "rpc/status.hpp"

namespace pegaflow {
namespace {

namespace wire = ::pegaflow_wire;
using SteadyClock = std::chrono::steady_clock;
using SystemClock = std::chrono::system_clock;

constexpr int kMaxMessage = 64 << 20;

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

}  // namespace

struct Client::State {
    explicit State(ClientOptions client_options)
        : options(std::move(client_options)),
          channel(make_channel(options.endpoint)),
          stub(wire::Engine::NewStub(channel)),
          registrations(
              channel, [this](auto& context, const auto& request) { return send_registration(context, request); },
              options.reconnect) {}

    template <class Request, class Response>
    Result<Response> call(const char* name,
                          grpc::Status (wire::Engine::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                          const Request& request, SteadyClock::time_point deadline = SteadyClock::time_point::max()) {
        grpc::ClientContext context;
        return call(context, name, method, request, deadline);
    }

    template <class Request, class Response>
    Result<Response> call(grpc::ClientContext& context, const char* name,
                          grpc::Status (wire::Engine::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                          const Request& request, SteadyClock::time_point deadline = SteadyClock::time_point::max()) {
        const auto left = deadline == SteadyClock::time_point::max()
                              ? options.call_timeout
                              : std::chrono::duration_cast<std::chrono::microseconds>(deadline - SteadyClock::now());
        context.set_deadline(SystemClock::now() + left);
        Response response;
        const grpc::Status status = (stub.get()->*method)(&context, request, &response);
        if (!status.ok()) return fail(rpc::from_status(status, name));
        return response;
    }

    Result<void> send_registration(grpc::ClientContext& context, const wire::RegisterContextRequest& request) {
        PEGA_TRY(call(context, "RegisterContextBatch", &wire::Engine::Stub::RegisterContextBatch, request));
        return {};
    }

    // Another client's session may have ended the instance, while our connection stood.
    template <class T>
    Result<T> noted(std::string_view instance_id, Result<T> result) {
        if (!result && result.error().code == Code::kNotReady && result.error().message.ends_with("not found"))
            registrations.unknown(instance_id);
        return result;
    }

    ClientOptions options;
    std::shared_ptr<grpc::Channel> channel;  // shared with the stub, the registrations and the session
    std::unique_ptr<wire::Engine::Stub> stub;
    rpc::ClientRegistrations registrations;
    std::mutex mutex;                             // held while a session is opened
    std::unique_ptr<rpc::ClientSession> session;  // guarded by mutex
};

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}
Client::~Client() {
    // Else what is said again might come to the server after the session's end, and stay there.
    state_->registrations.close();
}

Result<std::unique_ptr<Client>> Client::connect(ClientOptions options) {
    auto state = std::make_unique<State>(std::move(options));
    if (!state->channel->WaitForConnected(SystemClock::now() + state->options.connect_timeout)) {
        return fail(Code::kPeerLost, fmt::format("nobody answers at {} within {} ms; is `pegaflow serve` running?",
                                                 state->options.endpoint, state->options.connect_timeout.count()));
    }
    return std::unique_ptr<Client>(new Client(std::move(state)));
}

const std::string& Client::endpoint() const noexcept { return state_->options.endpoint; }

Result<std::string> Client::health() {
    PEGA_ASSIGN(const auto response, state_->call("Health", &wire::Engine::Stub::Health, wire::HealthRequest()));
    return response.version();
}

Result<void> Client::start_session(std::string instance_id, std::string name_space, std::uint32_t tp_size,
                                   std::uint32_t world_size) {
    State& s = *state_;
    if (instance_id.empty()) return fail(Code::kInvalid, "Session: instance_id must not be empty");
    wire::SessionRequest request;
    request.set_instance_id(std::move(instance_id));
    request.set_namespace_(std::move(name_space));
    request.set_tp_size(tp_size);
    request.set_world_size(world_size);
    const std::lock_guard lock(s.mutex);
    auto session = std::make_unique<rpc::ClientSession>(s.channel, *s.stub, std::move(request), s.options.reconnect);
    PEGA_TRY(session->wait_open(s.options.connect_timeout));
    // The new stream first, then the end of the old: the server lets an instance go only with its newest stream.
    s.session.swap(session);
    return {};
}

Result<void> Client::register_worker(const WorkerRegistration& worker, const RegisterOptions& options) {
    PEGA_ASSIGN(auto request, rpc::to_wire(worker, options));
    grpc::ClientContext context;
    PEGA_TRY(state_->registrations.start());
    PEGA_TRY(state_->send_registration(context, request));
    state_->registrations.add(std::move(request));
    return {};
}

Result<void> Client::unregister_instance(std::string_view instance_id) {
    wire::UnregisterRequest request;
    request.set_instance_id(std::string(instance_id));
    state_->registrations.forget(instance_id);
    PEGA_TRY(state_->call("UnregisterContext", &wire::Engine::Stub::UnregisterContext, request));
    return {};
}

Result<SaveOutcome> Client::save(const SaveRequest& request) {
    PEGA_ASSIGN(const auto response, state_->noted(request.instance_id, state_->call("Save", &wire::Engine::Stub::Save,
                                                                                     rpc::to_wire(request), request.deadline)));
    return SaveOutcome{response.saved_blocks(), response.duplicate_blocks(), response.bytes()};
}

Result<QueryOutcome> Client::query(const QueryRequest& request) {
    thread_local wire::QueryRequest message;  // its hashes keep their memory from query to query
    rpc::to_wire(request, message);
    PEGA_ASSIGN(const auto response,
                state_->noted(request.instance_id, state_->call("QueryPrefetch", &wire::Engine::Stub::QueryPrefetch, message)));
    return rpc::from_wire(response);
}

Result<void> Client::release(const LeaseId& lease) {
    wire::ReleaseRequest request;
    request.set_lease(lease.data(), lease.size());
    PEGA_TRY(state_->call("Release", &wire::Engine::Stub::Release, request));
    return {};
}

Result<void> Client::load(const LoadRequest& request, std::string_view load_state_shm) {
    PEGA_TRY(state_->noted(request.instance_id, state_->call("Load", &wire::Engine::Stub::Load,
                                                             rpc::to_wire(request, load_state_shm), request.deadline)));
    return {};
}

Result<void> Client::cancel_load(std::string_view instance_id, std::string_view load_state_shm) {
    wire::CancelLoadRequest request;
    request.set_instance_id(std::string(instance_id));
    request.set_load_state_shm(std::string(load_state_shm));
    PEGA_TRY(state_->call("CancelLoad", &wire::Engine::Stub::CancelLoad, request));
    return {};
}

Result<void> Client::shutdown_server() {
    PEGA_TRY(state_->call("Shutdown", &wire::Engine::Stub::Shutdown, wire::ShutdownRequest()));
    return {};
}

}  // namespace pegaflow
