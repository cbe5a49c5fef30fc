// SPDX-License-Identifier: Apache-2.0
// grpc_server.hpp - the engine's gRPC service on one port; no gRPC type shows here.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "pegaflow/engine.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::server {

struct GrpcOptions {
    std::string address = "127.0.0.1:50055";    // port 0 = any free one
    std::function<void()> on_shutdown_request;  // the Shutdown RPC came; from a gRPC thread
    // A call ended: its method ("save"), the status code's name ("OK"), its duration. From gRPC threads; must not block.
    std::function<void(const char* method, const char* status, double seconds)> on_call;
};

class GrpcServer {
public:
    // Listens. `engine` is borrowed until drain returned. kInvalid when the address cannot be bound.
    static Result<std::unique_ptr<GrpcServer>> start(GrpcOptions options, Engine& engine);
    ~GrpcServer();

    int port() const noexcept;
    // Stops intake, ends the session streams, waits for running calls until `deadline`, then ends them. Idempotent.
    void drain(std::chrono::system_clock::time_point deadline);

private:
    struct State;
    explicit GrpcServer(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace pegaflow::server
