// SPDX-License-Identifier: Apache-2.0
// service.hpp - the Engine service: requests to engine calls, outcomes to replies.
//
// Replies that wait for copies come from the engine's threads; what may take long otherwise runs on threads of the service, one
// task of an instance after another.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "engine.grpc.pb.h"
#include "server/grpc_server.hpp"
#include "server/keyed_tasks.hpp"
#include "server/recycled_messages.hpp"
#include "server/running_loads.hpp"
#include "server/sessions.hpp"

namespace pegaflow::server {

namespace wire = ::pegaflow_wire;

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
    EngineService(Engine& engine, const GrpcOptions& options) : engine_(engine), options_(options), sessions_(engine) {
        SetMessageAllocatorFor_QueryPrefetch(&queries_);
        SetMessageAllocatorFor_Save(&saves_);
        SetMessageAllocatorFor_Load(&loads_);
    }

    grpc::ServerUnaryReactor* RegisterContextBatch(grpc::CallbackServerContext* context,
                                                   const wire::RegisterContextRequest* request,
                                                   wire::RegisterContextResponse* response) override;

    grpc::ServerUnaryReactor* Save(grpc::CallbackServerContext* context, const wire::SaveRequest* request,
                                   wire::SaveResponse* response) override;
    grpc::ServerUnaryReactor* Load(grpc::CallbackServerContext* context, const wire::LoadRequest* request,
                                   wire::LoadResponse* response) override;
    grpc::ServerUnaryReactor* QueryPrefetch(grpc::CallbackServerContext* context, const wire::QueryRequest* request,
                                            wire::QueryResponse* response) override;

    grpc::ServerUnaryReactor* CancelLoad(grpc::CallbackServerContext* context, const wire::CancelLoadRequest* request,
                                         wire::CancelLoadResponse*) override;

    grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const wire::ReleaseRequest* request,
                                      wire::ReleaseResponse*) override;

    grpc::ServerUnaryReactor* UnregisterContext(grpc::CallbackServerContext* context, const wire::UnregisterRequest* request,
                                                wire::UnregisterResponse* response) override;

    grpc::ServerUnaryReactor* Health(grpc::CallbackServerContext* context, const wire::HealthRequest*,
                                     wire::HealthResponse* response) override;

    grpc::ServerUnaryReactor* Shutdown(grpc::CallbackServerContext* context, const wire::ShutdownRequest*,
                                       wire::ShutdownResponse* response) override;

    grpc::ServerWriteReactor<wire::SessionEvent>* Session(grpc::CallbackServerContext*,
                                                          const wire::SessionRequest* request) override;

    void add(SessionReactor* session) {
        const std::lock_guard lock(mutex_);
        open_.push_back(session);
        if (draining_) session->finish_once();
    }
    void remove(SessionReactor* session, const std::string& instance, std::uint64_t token) {
        {
            const std::lock_guard lock(mutex_);
            std::erase(open_, session);
            if (draining_) return;  // the end of the engine ends the instance, and waits longer for its copies
        }
        tasks_.post(instance, [this, instance, token] { sessions_.ended(instance, token); });
    }
    void end_sessions() {
        const std::lock_guard lock(mutex_);
        draining_ = true;
        for (SessionReactor* session : open_) session->finish_once();
    }

private:
    Result<void> start_load(const wire::LoadRequest& request);

    Engine& engine_;
    const GrpcOptions& options_;
    RecycledMessages<wire::QueryRequest, wire::QueryResponse> queries_;
    RecycledMessages<wire::SaveRequest, wire::SaveResponse> saves_;
    RecycledMessages<wire::LoadRequest, wire::LoadResponse> loads_;
    Sessions sessions_;
    RunningLoads running_;
    std::mutex mutex_;
    std::vector<SessionReactor*> open_;  // guarded by mutex_
    bool draining_ = false;              // guarded by mutex_
    KeyedTasks tasks_;                   // by instance
};

}  // namespace pegaflow::server
