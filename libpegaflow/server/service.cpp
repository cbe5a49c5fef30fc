// SPDX-License-Identifier: Apache-2.0
#include "server/service.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "pegaflow/abi/region.h"
#include "rpc/load_state.hpp"
#include "rpc/status.hpp"
#include "server/service_wire.hpp"

namespace pegaflow::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kStatusNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

// Clients of this project from 0.1 on, and of the existing service (0.x as well): the wire is the same.
bool compatible(const std::string& version) { return version.starts_with("0."); }

constexpr std::chrono::hours kForEver(24);
constexpr int kMarginShare = 8;
constexpr std::chrono::milliseconds kMostMargin(500);

// A client whose call has timed out may write to what it saved: a save ends a little before that.
Clock::time_point save_deadline(const grpc::CallbackServerContext& context) {
    const auto left = std::chrono::duration_cast<Clock::duration>(context.deadline() - std::chrono::system_clock::now());
    if (left > kForEver) return Clock::time_point::max();
    return Clock::now() + left - std::min<Clock::duration>(left / kMarginShare, kMostMargin);
}

Clock::time_point load_deadline(std::uint64_t timeout_ms) {
    if (timeout_ms == 0 || timeout_ms > static_cast<std::uint64_t>(std::chrono::milliseconds(kForEver).count()))
        return Clock::time_point::max();
    return Clock::now() + std::chrono::milliseconds(timeout_ms);
}

// The engine cuts what is longer than it allows.
std::chrono::nanoseconds lease_time(std::uint64_t lease_ms) {
    constexpr std::uint64_t most_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::nanoseconds::max()).count();
    return std::chrono::milliseconds(std::min(lease_ms, most_ms));
}

std::string name_of(const std::string& instance, const std::string& load_state) { return instance + '/' + load_state; }

Error too_many(const std::string& instance) {
    return {Code::kQueueFull, fmt::format("too many registrations of instance {} wait; try again later", instance)};
}

// The call of a save. A client that goes away may be followed by another one that writes to the source: no block comes of what
// is still being copied.
class SaveReactor final : public grpc::ServerUnaryReactor {
public:
    SaveReactor(Engine& engine, std::shared_ptr<Cancelable> save) : engine_(engine), save_(std::move(save)) {}
    void OnCancel() override {
        if (const SaveId id = save_->cancel()) (void)engine_.cancel_save(id);
    }
    void OnDone() override { delete this; }

private:
    Engine& engine_;
    const std::shared_ptr<Cancelable> save_;  // shared with whoever began the save
};

// Times one call and reports its end.
class Call {
public:
    Call(const GrpcOptions& options, const char* method) : options_(options), method_(method) {}
    void finish(grpc::ServerUnaryReactor* reactor, const grpc::Status& status) const {
        if (options_.on_call) {
            const std::chrono::duration<double> seconds = Clock::now() - started_;
            options_.on_call(method_, kStatusNames[std::min<std::size_t>(status.error_code(), std::size(kStatusNames) - 1)],
                             seconds.count());
        }
        reactor->Finish(status);
    }
    void finish(grpc::ServerUnaryReactor* reactor, const Result<void>& result) const {
        finish(reactor, result ? grpc::Status::OK : rpc::to_status(result.error()));
    }

private:
    const GrpcOptions& options_;
    const char* method_;
    Clock::time_point started_ = Clock::now();
};

}  // namespace

grpc::ServerUnaryReactor* EngineService::RegisterContextBatch(grpc::CallbackServerContext* context,
                                                              const wire::RegisterContextRequest* request,
                                                              wire::RegisterContextResponse* response) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "register_context_batch");
    if (!compatible(request->client_version())) {
        const std::string client = request->client_version().empty() ? "<missing>" : request->client_version();
        call.finish(reactor,
                    grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                                 fmt::format("PegaFlow version mismatch: client={} server={}", client, PEGAFLOW_VERSION)));
        return reactor;
    }
    // Opening memory can take a while: not on a thread that other calls wait for.
    const bool taken = tasks_.try_post(request->instance_id(), [this, context, request, response, reactor, call] {
        const auto registered = [&]() -> Result<void> {
            // Its session may have ended, and with that the instance: nobody would unregister what comes now.
            if (context->IsCancelled()) return fail(Code::kCanceled, "the client is gone");
            PEGA_ASSIGN(const WorkerRegistration worker, registration_of(*request));
            return engine_.register_worker(worker);
        }();
        response->mutable_status()->set_ok(registered.has_value());
        call.finish(reactor, registered);
    });
    if (!taken) call.finish(reactor, fail(too_many(request->instance_id())));
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::Release(grpc::CallbackServerContext* context, const wire::ReleaseRequest* request,
                                                 wire::ReleaseResponse*) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "release");
    const auto lease = lease_of(request->lease());
    call.finish(reactor, lease ? engine_.release(*lease) : Result<void>(fail(lease.error())));
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::UnregisterContext(grpc::CallbackServerContext* context,
                                                           const wire::UnregisterRequest* request,
                                                           wire::UnregisterResponse* response) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "unregister_context");
    const bool taken = tasks_.try_post(request->instance_id(), [this, request, response, reactor, call] {
        response->mutable_status()->set_ok(true);
        call.finish(reactor, engine_.unregister_instance(request->instance_id()));
    });
    if (!taken) call.finish(reactor, fail(too_many(request->instance_id())));
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::Health(grpc::CallbackServerContext* context, const wire::HealthRequest*,
                                                wire::HealthResponse* response) {
    auto* reactor = context->DefaultReactor();
    response->mutable_status()->set_ok(true);
    response->set_version(PEGAFLOW_VERSION);
    Call(options_, "health").finish(reactor, grpc::Status::OK);
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::Shutdown(grpc::CallbackServerContext* context, const wire::ShutdownRequest*,
                                                  wire::ShutdownResponse* response) {
    auto* reactor = context->DefaultReactor();
    response->mutable_status()->set_ok(true);
    Call(options_, "shutdown").finish(reactor, grpc::Status::OK);
    if (options_.on_shutdown_request) options_.on_shutdown_request();
    return reactor;
}

grpc::ServerWriteReactor<wire::SessionEvent>* EngineService::Session(grpc::CallbackServerContext*,
                                                                     const wire::SessionRequest* request) {
    if (request->instance_id().empty()) {
        class Refused final : public grpc::ServerWriteReactor<wire::SessionEvent> {
        public:
            Refused() { Finish({grpc::StatusCode::INVALID_ARGUMENT, "invalid argument: instance_id must not be empty"}); }
            void OnDone() override { delete this; }
        };
        return new Refused();
    }
    return new SessionReactor(*this, request->instance_id(), sessions_.open(request->instance_id()));
}

SessionReactor::SessionReactor(EngineService& service, std::string instance, std::uint64_t token)
    : service_(service), instance_(std::move(instance)), token_(token) {
    StartSendInitialMetadata();
    service_.add(this);
}

void SessionReactor::OnDone() {
    service_.remove(this, instance_, token_);
    delete this;
}

grpc::ServerUnaryReactor* EngineService::Save(grpc::CallbackServerContext* context, const wire::SaveRequest* request,
                                              wire::SaveResponse* response) {
    // The engine borrows these until the copy has ended, which may be after this call.
    struct Borrowed {
        std::vector<std::vector<std::string_view>> hashes;
        std::vector<SaveLayer> layers;
    };
    auto running = std::make_shared<Cancelable>();
    auto* reactor = new SaveReactor(engine_, running);
    const Call call(options_, "save");
    auto borrowed = std::make_shared<Borrowed>();
    borrowed->hashes.reserve(static_cast<std::size_t>(request->saves_size()));
    for (const wire::SaveLayer& save : request->saves()) {
        borrowed->hashes.push_back(views(save.block_hashes()));
        borrowed->layers.push_back({save.layer_name(),
                                    {save.block_ids().data(), static_cast<std::size_t>(save.block_ids_size())},
                                    borrowed->hashes.back()});
    }
    pegaflow::SaveRequest save;
    save.instance_id = request->instance_id();
    save.tp_rank = request->tp_rank();
    save.pp_rank = request->pp_rank();
    save.device_id = request->device_id();
    save.layers = borrowed->layers;
    save.wait_event = request->wait_event();
    save.deadline = save_deadline(*context);
    const SaveId id = engine_.save_async(save, [reactor, response, call, borrowed](Result<SaveOutcome> outcome) {
        if (!outcome) return call.finish(reactor, rpc::to_status(outcome.error()));
        response->mutable_status()->set_ok(true);
        response->set_saved_blocks(outcome->saved_blocks);
        response->set_duplicate_blocks(outcome->duplicate_blocks);
        response->set_bytes(outcome->bytes);
        call.finish(reactor, grpc::Status::OK);
    });
    if (running->begun(id) && id != kNoSave) (void)engine_.cancel_save(id);
    return reactor;
}

Result<void> EngineService::start_load(const wire::LoadRequest& request) {
    if (request.device_id() < 0)
        return fail(Code::kInvalid, fmt::format("device_id must be >= 0, got {}", request.device_id()));
    std::vector<LeaseId> leases;
    for (const wire::LeaseLoad& load : request.loads()) {
        PEGA_ASSIGN(const LeaseId lease, lease_of(load.lease()));
        leases.push_back(lease);
    }
    auto attached = rpc::AttachedLoadState::attach(request.load_state_shm());
    if (!attached) return fail(std::move(attached).error());
    auto state = std::make_shared<rpc::AttachedLoadState>(std::move(*attached));
    sessions_.reports_into(request.instance_id(), state->name());
    std::vector<std::vector<std::string_view>> names;
    for (const wire::LoadGroup& group : request.groups()) names.push_back(views(group.layer_names()));
    const std::vector<std::span<const std::string_view>> groups(names.begin(), names.end());
    std::vector<std::vector<std::vector<std::uint32_t>>> ids;
    std::vector<std::vector<std::span<const std::uint32_t>>> targets;
    std::vector<pegaflow::LeaseLoad> loads;
    ids.reserve(leases.size());
    targets.reserve(leases.size());
    for (int i = 0; i < request.loads_size(); ++i) {
        auto& groups_of_lease = ids.emplace_back();
        for (const wire::LoadBlockIds& list : request.loads(i).block_ids_by_group()) {
            auto& group = groups_of_lease.emplace_back();
            for (const wire::LoadBlockTarget& target : list.targets())
                group.push_back(target.has_block_id() ? target.block_id() : kNoBlock);
        }
        targets.emplace_back(groups_of_lease.begin(), groups_of_lease.end());
        loads.push_back({leases[static_cast<std::size_t>(i)], targets.back()});
    }
    pegaflow::LoadRequest load;
    load.instance_id = request.instance_id();
    load.tp_rank = request.tp_rank();
    load.device_id = request.device_id();
    load.layer_groups = groups;
    load.loads = loads;
    load.wait_event = request.wait_event();
    load.deadline = load_deadline(request.timeout_ms());
    const std::string name = name_of(request.instance_id(), request.load_state_shm());
    const RunningLoads::Load running = running_.begin(name);
    const auto tell = [this, state, name, running](const Result<void>& result) {
        running_.end(name, running);
        if (state->finish(result ? rpc::kLoadSuccess : rpc::kLoadError)) return;
        base::log_warning("server", "the load state {} takes no outcome: it was shortened, or there is no memory for it",
                          state->name().name);
    };
    auto started = engine_.load_async(load, {nullptr, tell});
    if (started) {
        if (running->begun(*started)) (void)engine_.cancel_load(*started);
        return {};
    }
    tell(fail(started.error()));
    sessions_.not_begun(request.instance_id(), state->name());
    return fail(std::move(started).error());
}

grpc::ServerUnaryReactor* EngineService::Load(grpc::CallbackServerContext* context, const wire::LoadRequest* request,
                                              wire::LoadResponse* response) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "load");
    auto started = start_load(*request);
    response->mutable_status()->set_ok(started.has_value());
    // A lease that is unknown, or another's, is a storage error on this wire.
    const bool lease = !started && started.error().message.starts_with("query lease");
    if (lease && started.error().message.find("block count") == std::string::npos &&
        started.error().message.find("lease id") == std::string::npos) {
        started.error().code = Code::kInternal;
    }
    call.finish(reactor, started);
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::CancelLoad(grpc::CallbackServerContext* context,
                                                    const wire::CancelLoadRequest* request, wire::CancelLoadResponse*) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "cancel_load");
    const auto loads = running_.find(name_of(request->instance_id(), request->load_state_shm()));
    for (const RunningLoads::Load& load : loads) {
        if (const LoadId id = load->cancel()) (void)engine_.cancel_load(id);
    }
    Result<void> found;
    if (loads.empty())
        found = fail(Code::kNotFound,
                     fmt::format("no load of {} reports into {}", request->instance_id(), request->load_state_shm()));
    call.finish(reactor, found);
    return reactor;
}

grpc::ServerUnaryReactor* EngineService::QueryPrefetch(grpc::CallbackServerContext* context, const wire::QueryRequest* request,
                                                       wire::QueryResponse* response) {
    auto* reactor = context->DefaultReactor();
    const Call call(options_, "query_prefetch");
    const std::vector<std::string_view> hashes = views(request->block_hashes());
    pegaflow::QueryRequest query;
    query.instance_id = request->instance_id();
    query.hashes = hashes;
    query.request_id = request->req_id();
    query.group = request->group_id();
    query.whole_prefix_only = request->wait_for_full_prefix();
    if (request->lease_ms() != 0) query.lease_time = lease_time(request->lease_ms());
    const auto outcome = engine_.query(query);
    if (!outcome) {
        call.finish(reactor, rpc::to_status(outcome.error()));
        return reactor;
    }
    if (outcome->loading) {
        response->mutable_loading();
    } else {
        wire::QueryReady& ready = *response->mutable_ready();
        ready.set_num_hit_blocks(outcome->hit_blocks);
        if (outcome->lease) ready.set_lease(outcome->lease->data(), outcome->lease->size());
        ready.mutable_hit_positions()->Add(outcome->hit_positions.begin(), outcome->hit_positions.end());
    }
    call.finish(reactor, grpc::Status::OK);
    return reactor;
}

}  // namespace pegaflow::server
