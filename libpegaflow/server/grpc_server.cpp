// SPDX-License-Identifier: Apache-2.0
#include "server/grpc_server.hpp"

#include <fmt/format.h>

#include "server/service.hpp"

namespace pegaflow::server {
namespace {

constexpr int kMaxMessage = 64 << 20;

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
