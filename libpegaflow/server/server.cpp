// SPDX-License-Identifier: Apache-2.0
#include "server/server.hpp"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "base/log.hpp"
#include "pegaflow/bytes.hpp"
#include "rpc/load_state.hpp"
#include "server/admin.hpp"
#include "server/grpc_server.hpp"
#include "server/metrics.hpp"

namespace pegaflow::server {

struct Server::State {
    Config config;
    Metrics metrics;
    std::unique_ptr<Fabric> fabric;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<GrpcServer> grpc;
    std::unique_ptr<Admin> admin;
    std::atomic<bool> ready{false};
    std::mutex mutex;
    std::condition_variable changed;
    bool stop_requested = false;  // guarded by mutex
    bool stopped = false;
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(const Config& config) {
    std::unique_ptr<Server> server(new Server(std::make_unique<State>()));
    State& s = *server->state_;
    s.config = config;
    FabricOptions fabric = config.fabric;
    const std::string& ssd = config.engine.tier.backend;
    const bool listed = std::find(fabric.backends.begin(), fabric.backends.end(), ssd) != fabric.backends.end();
    // A list of back ends that leaves the tier's out means the others; one that cannot be used here is the tier's problem
    // alone.
    const bool chosen = fabric.backends.empty() || listed || config.engine.tier.paths.empty();
    if (!chosen) fabric.backends.push_back(ssd);
    auto opened = Fabric::open(fabric);
    if (!opened && !chosen) opened = Fabric::open(config.fabric);
    PEGA_ASSIGN(s.fabric, std::move(opened));
    for (const ModuleReport& module : s.fabric->modules()) {
        if (!module.problem.empty()) base::log_warning("server", "module {} is not used: {}", module.name, module.problem);
    }
    if (s.fabric->devices().empty()) {
        return fail(Code::kNotFound, "no back end can be used here; `pegaflow plugins` says what was found and why not");
    }
    PEGA_TRY(check_names(config, *s.fabric));
    base::log_info("server", "making a pool of {}", format_size(config.engine.pool_bytes));
    PEGA_ASSIGN(s.engine, Engine::create(config.engine, *s.fabric, s.metrics.observer()));
    GrpcOptions grpc;
    grpc.address = config.listen;
    grpc.on_shutdown_request = [raw = server.get()] { raw->request_stop(); };
    grpc.on_call = [&s](const char* method, const char* status, double seconds) {
        s.metrics.rpc(method, status, seconds);
        base::log_trace("server", "{} ended as {} after {:.3f} ms", method, status, seconds * 1e3);
    };
    PEGA_ASSIGN(s.grpc, GrpcServer::start(std::move(grpc), *s.engine));
    AdminHooks hooks;
    hooks.ready = [&s] { return s.ready.load(); };
    if (config.metrics) hooks.metrics = [&s] { return s.metrics.expose(*s.engine); };
    PEGA_ASSIGN(s.admin, Admin::start(config.admin_listen, *s.engine, std::move(hooks)));
    rpc::remove_abandoned_load_states();
    s.ready = true;
    return server;
}

int Server::port() const noexcept { return state_->grpc->port(); }
int Server::admin_port() const noexcept { return state_->admin->port(); }

void Server::wait() {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [this] { return state_->stop_requested; });
}

void Server::request_stop() noexcept {
    const std::lock_guard lock(state_->mutex);
    state_->stop_requested = true;
    state_->changed.notify_all();
}

void Server::stop() {
    State& s = *state_;
    if (std::exchange(s.stopped, true)) return;
    s.ready = false;
    const auto limit = s.config.drain_timeout;
    if (s.grpc) s.grpc->drain(std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::microseconds>(limit));
    if (s.engine) s.engine->close(std::chrono::steady_clock::now() + limit);
    s.admin.reset();
    s.grpc.reset();
    s.engine.reset();
    s.fabric.reset();
    base::log_info("server", "stopped");
}

void install_log(const std::string& level) {
    auto logger = spdlog::stderr_color_mt("pegaflow");
    logger->set_level(spdlog::level::trace);
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ [%t] %v");
    const std::map<std::string, base::LogLevel> levels = {{"trace", base::LogLevel::kTrace},
                                                          {"debug", base::LogLevel::kDebug},
                                                          {"info", base::LogLevel::kInfo},
                                                          {"warning", base::LogLevel::kWarning},
                                                          {"error", base::LogLevel::kError}};
    base::set_log_level(levels.at(level));
    base::set_log_sink([logger](base::LogLevel at, std::string_view module, std::string_view message) {
        constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::trace, spdlog::level::debug, spdlog::level::info,
                                                         spdlog::level::warn, spdlog::level::err};
        logger->log(kLevels[static_cast<int>(at) - static_cast<int>(base::LogLevel::kTrace)], "{}: {}", module, message);
    });
}

}  // namespace pegaflow::server
