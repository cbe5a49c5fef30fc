// SPDX-License-Identifier: Apache-2.0
// server.hpp - the serving process: joins fabric, engine, gRPC service and HTTP admin, and takes them apart in order.
#pragma once

#include <memory>

#include "pegaflow/result.hpp"
#include "server/config.hpp"

namespace pegaflow::server {

class Server {
public:
    // Everything is up and listening when this returns. Errors say which part and why.
    static Result<std::unique_ptr<Server>> start(const Config& config);
    ~Server();

    int port() const noexcept;  // of the gRPC service
    int admin_port() const noexcept;
    // Blocks until stop was asked for, by a signal handler, the Shutdown RPC, or request_stop.
    void wait();
    void request_stop() noexcept;
    // Stops intake, lets running calls end until the drain timeout, then ends them, and frees everything. Idempotent.
    void stop();

private:
    struct State;
    explicit Server(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// Sends log lines of this level and above to stderr with time and thread. [any]
void install_log(const std::string& level);

}  // namespace pegaflow::server
