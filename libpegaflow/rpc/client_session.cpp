// SPDX-License-Identifier: Apache-2.0
#include "rpc/client_session.hpp"

#include "base/thread.hpp"
#include "rpc/status.hpp"

namespace pegaflow::rpc {
namespace {

namespace wire = ::pegaflow_wire;

constexpr auto kRetryInterval = std::chrono::milliseconds(200);

}  // namespace

ClientSession::ClientSession(std::shared_ptr<grpc::Channel> channel, wire::Engine::Stub& stub, wire::SessionRequest request,
                             bool reconnect)
    : channel_(std::move(channel)), stub_(stub), request_(std::move(request)), reconnect_(reconnect) {
    auto thread = base::start_thread([this] { run(); });
    if (thread) {
        thread_ = std::move(*thread);
    } else {
        refusal_ = thread.error();
    }
}

ClientSession::~ClientSession() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        if (context_ != nullptr) context_->TryCancel();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Result<void> ClientSession::wait_open(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (thread_.joinable() && changed_.wait_for(lock, timeout, [this] { return open_; })) return {};
    if (!refusal_.message.empty()) return fail(refusal_);
    return fail(Code::kDeadlineExceeded, "Session: the server did not open it in time");
}

// Stays while the stream stands.
void ClientSession::hold() {
    grpc::ClientContext context;
    {
        const std::lock_guard lock(mutex_);
        if (stop_) return;
        context_ = &context;
    }
    auto reader = stub_.Session(&context, request_);
    reader->WaitForInitialMetadata();
    {
        const std::lock_guard lock(mutex_);
        // The metadata of a stream that could not be opened is "there" as well.
        open_ = channel_->GetState(false) == GRPC_CHANNEL_READY;
    }
    changed_.notify_all();
    wire::SessionEvent event;
    while (reader->Read(&event)) {
    }
    const grpc::Status ended = reader->Finish();
    const std::lock_guard lock(mutex_);
    if (!ended.ok()) refusal_ = from_status(ended, "Session");
    context_ = nullptr;
    open_ = false;
}

void ClientSession::run() {
    for (;;) {
        hold();
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, kRetryInterval, [this] { return stop_; }) || !reconnect_) return;
        lock.unlock();
        channel_->WaitForConnected(std::chrono::system_clock::now() + kRetryInterval);
    }
}

}  // namespace pegaflow::rpc
