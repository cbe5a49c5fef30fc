// SPDX-License-Identifier: Apache-2.0
#include "rpc/client_registrations.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/thread.hpp"

namespace pegaflow::rpc {
namespace {

namespace wire = ::pegaflow_wire;
using SystemClock = std::chrono::system_clock;

constexpr auto kStep = std::chrono::milliseconds(100);     // how long the end of this object may be held up
constexpr auto kSettle = std::chrono::milliseconds(1000);  // in which a server drops what a broken connection held
constexpr int kPasses = 5;

}  // namespace

ClientRegistrations::ClientRegistrations(std::shared_ptr<grpc::Channel> channel, Send send, bool reconnect)
    : channel_(std::move(channel)), send_(std::move(send)), reconnect_(reconnect) {}

void ClientRegistrations::close() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        if (context_ != nullptr) context_->TryCancel();
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Result<void> ClientRegistrations::start() {
    const std::lock_guard lock(mutex_);
    if (!reconnect_ || thread_.joinable()) return {};
    PEGA_ASSIGN(thread_, base::start_thread([this] { run(); }));
    return {};
}

void ClientRegistrations::add(wire::RegisterContextRequest request) {
    const std::lock_guard lock(mutex_);
    registrations_.push_back(std::move(request));
}

void ClientRegistrations::forget(std::string_view instance_id) {
    const std::lock_guard lock(mutex_);
    std::erase_if(registrations_, [&](const auto& request) { return request.instance_id() == instance_id; });
}

void ClientRegistrations::unknown(std::string_view instance_id) {
    const std::lock_guard lock(mutex_);
    for (const auto& request : registrations_) unknown_ = unknown_ || request.instance_id() == instance_id;
}

bool ClientRegistrations::stopped_within(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return stop_; });
}

// False when this object ends.
bool ClientRegistrations::wait_lost() {
    while (channel_->GetState(true) == GRPC_CHANNEL_READY) {
        if (channel_->WaitForStateChange(GRPC_CHANNEL_READY, SystemClock::now() + kStep)) return true;
        const std::lock_guard lock(mutex_);
        if (stop_) return false;
        if (std::exchange(unknown_, false)) return true;
    }
    return true;
}

// False when this object ends.
bool ClientRegistrations::wait_connected() {
    while (!channel_->WaitForConnected(SystemClock::now() + kStep)) {
        if (stopped_within(std::chrono::milliseconds(0))) return false;
    }
    return true;
}

// True when the server knew none of them and took all.
bool ClientRegistrations::say_all() {
    std::vector<wire::RegisterContextRequest> all;
    {
        const std::lock_guard lock(mutex_);
        all = registrations_;
    }
    bool taken = true;
    for (const auto& request : all) taken = say(request) && taken;
    return taken;
}

// True also for one that nobody wants any more.
bool ClientRegistrations::say(const wire::RegisterContextRequest& request) {
    grpc::ClientContext context;
    {
        const std::lock_guard lock(mutex_);
        const bool wanted = std::any_of(registrations_.begin(), registrations_.end(), [&](const auto& kept) {
            return kept.instance_id() == request.instance_id() && kept.device_id() == request.device_id();
        });
        if (stop_ || !wanted) return true;
        context_ = &context;
    }
    const bool taken = send_(context, request).has_value();
    const std::lock_guard lock(mutex_);
    context_ = nullptr;
    return taken;
}

// A server that did not restart still has them and refuses, or is about to drop them with the session that broke: asked again
// until that is settled.
void ClientRegistrations::say_again() {
    for (int pass = 0; pass < kPasses; ++pass) {
        if (say_all() || stopped_within(kSettle)) return;
    }
}

void ClientRegistrations::run() {
    while (wait_lost() && wait_connected()) say_again();
}

}  // namespace pegaflow::rpc
