// SPDX-License-Identifier: Apache-2.0
// client_registrations.hpp - what a client registered, said again to a server that went away and came back, or that let go of
// it with another client's session.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "engine.pb.h"
#include "pegaflow/result.hpp"

namespace pegaflow::rpc {

class ClientRegistrations {
public:
    using Send = std::function<Result<void>(grpc::ClientContext&, const pegaflow_wire::RegisterContextRequest&)>;

    // `send` makes one call with the context; it runs on the thread of this object.
    ClientRegistrations(std::shared_ptr<grpc::Channel> channel, Send send, bool reconnect);
    ~ClientRegistrations() { close(); }

    // Before the first registration is made. kNoMemory when the system has no thread to say it again. [any]
    Result<void> start();
    void add(pegaflow_wire::RegisterContextRequest request);  // [any]
    void forget(std::string_view instance_id);                // [any]
    // The server does not know the instance: if it was registered here, it is registered again. [any]
    void unknown(std::string_view instance_id);
    // Says nothing any more; a call under way is cut off. Idempotent. [serial]
    void close();

private:
    void run();
    bool wait_lost();
    bool wait_connected();
    void say_again();
    bool say_all();
    bool say(const pegaflow_wire::RegisterContextRequest& request);
    bool stopped_within(std::chrono::milliseconds time);

    std::shared_ptr<grpc::Channel> channel_;  // the client's, shared with its stub
    const Send send_;
    const bool reconnect_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stop_ = false;                                                 // guarded by mutex_
    bool unknown_ = false;                                              // guarded by mutex_; something of ours
    grpc::ClientContext* context_ = nullptr;                            // guarded by mutex_; of the call under way
    std::vector<pegaflow_wire::RegisterContextRequest> registrations_;  // guarded by mutex_
    std::thread thread_;                                                // from the first registration on
};

}  // namespace pegaflow::rpc
