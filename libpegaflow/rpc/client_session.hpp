// SPDX-License-Identifier: Apache-2.0
// client_session.hpp - the stream that ties an instance's life to this process, opened again when it broke.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "engine.grpc.pb.h"
#include "pegaflow/result.hpp"

namespace pegaflow::rpc {

class ClientSession {
public:
    // Starts opening; `stub` is borrowed until the end of this object. Without `reconnect` a broken stream stays broken.
    ClientSession(std::shared_ptr<grpc::Channel> channel, pegaflow_wire::Engine::Stub& stub,
                  pegaflow_wire::SessionRequest request, bool reconnect);
    ~ClientSession();  // ends the stream

    // kDeadlineExceeded, or why the server refused. [any]
    Result<void> wait_open(std::chrono::milliseconds timeout);

private:
    void run();
    void hold();

    std::shared_ptr<grpc::Channel> channel_;  // the client's, shared with its stub
    pegaflow_wire::Engine::Stub& stub_;
    const pegaflow_wire::SessionRequest request_;
    const bool reconnect_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;                       // guarded by mutex_
    bool stop_ = false;                       // guarded by mutex_
    Error refusal_;                           // guarded by mutex_; why the last stream ended
    grpc::ClientContext* context_ = nullptr;  // guarded by mutex_
    std::thread thread_;
};

}  // namespace pegaflow::rpc
