// SPDX-License-Identifier: Apache-2.0
#include "server/admin.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json.hpp>
#include <charconv>
#include <thread>

#include "base/log.hpp"
#include "base/thread.hpp"

namespace pegaflow::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace json = boost::json;
using tcp = asio::ip::tcp;

constexpr auto kTimeout = std::chrono::seconds(30);
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
constexpr std::size_t kMaxBody = 64 * 1024;

using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;

struct Reply {
    http::status status = http::status::ok;
    std::string body;
    const char* type = "application/json";
};

Reply json_reply(const json::value& value, http::status status = http::status::ok) {
    return {status, json::serialize(value) + "\n"};
}

Reply error_reply(http::status status, std::string_view text) {
    return json_reply(json::object{{"error", std::string(text)}}, status);
}

// Null without a tier. A tier that does not work makes the server degraded, not unhealthy: it serves without.
json::value ssd_health(const Engine& engine, bool* ok) {
    json::array devices;
    for (const TierDeviceInfo& d : engine.tier_devices()) {
        *ok = *ok && d.state == "ok";
        devices.push_back(json::object{{"path", d.path},
                                       {"state", d.state},
                                       {"problem", d.problem},
                                       {"capacity_bytes", d.capacity_bytes},
                                       {"used_bytes", d.used_bytes},
                                       {"live_bytes", d.live_bytes},
                                       {"blocks", d.blocks},
                                       {"segments", d.segments},
                                       {"free_segments", d.free_segments},
                                       {"lifetime_written_bytes", d.lifetime_written_bytes},
                                       {"recovered_blocks", d.recovered_blocks},
                                       {"recovery_seconds", d.recovery_seconds}});
    }
    if (devices.empty()) return nullptr;
    return json::object{{"ok", *ok}, {"devices", std::move(devices)}};
}

json::array device_health(const EngineHealth& health) {
    json::array out;
    for (const DeviceHealth& d : health.devices) {
        out.push_back(json::object{{"device", d.name},
                                   {"ok", d.problem.empty()},
                                   {"problem", d.problem},
                                   {"in_flight", d.in_flight},
                                   {"failures_in_row", d.failures_in_row}});
    }
    return out;
}

// Unhealthy, which a restart may cure: no pool, a thread that does not run, a channel that broke. Degraded: a device whose
// transfers fail, a tier that does not work; the rest is served.
Reply health(const Engine& engine) {
    const EngineStats s = engine.stats();
    bool ssd_ok = true;
    json::value ssd = ssd_health(engine, &ssd_ok);
    const EngineHealth h = engine.health();
    const bool stuck = std::any_of(h.devices.begin(), h.devices.end(), [](const DeviceHealth& d) { return d.stuck; });
    const bool failing = std::any_of(h.devices.begin(), h.devices.end(), [](const auto& d) { return !d.problem.empty(); });
    const bool pool = h.limits.empty();
    const bool healthy = s.pool_capacity_bytes != 0 && !stuck && h.problems.empty();
    json::array problems(h.problems.begin(), h.problems.end());
    problems.insert(problems.end(), h.limits.begin(), h.limits.end());
    json::object body{{"status", !healthy                     ? "unhealthy"
                                 : ssd_ok && pool && !failing ? "ok"
                                                              : "degraded"},
                      {"problems", std::move(problems)},
                      {"devices", device_health(h)},
                      {"ssd", std::move(ssd)},
                      {"pool", json::object{{"ok", pool},
                                            {"capacity_bytes", s.pool_capacity_bytes},
                                            {"ready_bytes", s.pool_ready_bytes},
                                            {"used_bytes", s.pool_used_bytes}}},
                      {"transfers", json::object{{"saves_in_flight", s.saves_in_flight},
                                                 {"loads_in_flight", s.loads_in_flight},
                                                 {"save_failures", s.save_failures},
                                                 {"load_failures", s.load_failures}}},
                      {"instances", s.instances}};
    json::array devices;
    for (const InstanceInfo& instance : engine.instances()) {
        for (const WorkerInfo& worker : instance.workers)
            devices.push_back(
                json::object{{"instance", instance.instance_id}, {"device_id", worker.device_id}, {"device", worker.device}});
    }
    body["workers"] = std::move(devices);
    return json_reply(body, healthy ? http::status::ok : http::status::service_unavailable);
}

Reply list_instances(const Engine& engine) {
    json::array ids;
    json::array details;
    for (const InstanceInfo& i : engine.instances()) {
        ids.emplace_back(i.instance_id);
        details.push_back(json::object{{"id", i.instance_id},
                                       {"namespace", i.name_space},
                                       {"tp_size", i.tp_size},
                                       {"world_size", i.world_size},
                                       {"workers", i.workers.size()},
                                       {"sealed", i.sealed},
                                       {"page_first", i.page_first},
                                       {"layout", i.layout_fingerprint}});
    }
    return json_reply(json::object{{"instances", std::move(ids)}, {"details", std::move(details)}});
}

Reply cleanup_instances(Engine& engine, std::string_view id) {
    json::array removed;
    std::uint64_t workers = 0;
    for (const InstanceInfo& instance : engine.instances()) {
        if (!id.empty() && instance.instance_id != id) continue;
        if (!engine.unregister_instance(instance.instance_id)) continue;
        removed.emplace_back(instance.instance_id);
        workers += instance.workers.size();
    }
    if (!id.empty() && removed.empty()) return error_reply(http::status::not_found, fmt::format("instance {} not found", id));
    return json_reply(json::object{{"removed_instances", std::move(removed)}, {"removed_tensors", workers}});
}

Reply cleanup_memory(Engine& engine) {
    const MemoryCleanup c = engine.cleanup_memory();
    return json_reply(json::object{{"evicted_blocks", c.evicted_blocks},
                                   {"evicted_bytes", c.evicted_bytes},
                                   {"reclaimed_bytes", c.reclaimed_bytes},
                                   {"still_referenced_blocks", c.still_referenced_blocks}});
}

// %XX as the byte it means; empty when it is no such text.
std::optional<std::string> percent_decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        unsigned value = 0;
        const char* const end = text.data() + std::min(i + 3, text.size());
        const auto [stop, error] = std::from_chars(text.data() + i + 1, end, value, 16);
        if (error != std::errc() || stop != text.data() + i + 3) return std::nullopt;
        out += static_cast<char>(value);
        i += 2;
    }
    return out;
}

Reply route(const Request& request, Engine& engine, const AdminHooks& hooks) {
    const std::string_view target(request.target().data(), request.target().size());
    const std::size_t question = std::min(target.find('?'), target.size());
    const std::string_view path = target.substr(0, question);
    const std::string_view query = question < target.size() ? target.substr(question + 1) : "";
    const bool get = request.method() == http::verb::get;
    const bool post = request.method() == http::verb::post;
    if (path == "/health" && get) return health(engine);
    if (path == "/ready" && get) {
        const bool ready = !hooks.ready || hooks.ready();
        return json_reply(json::object{{"ready", ready}}, ready ? http::status::ok : http::status::service_unavailable);
    }
    if (path == "/metrics" && get) {
        if (!hooks.metrics) return {http::status::not_found, "metrics not enabled\n", "text/plain"};
        return {http::status::ok, hooks.metrics(), "text/plain; version=0.0.4"};
    }
    if (path == "/instances" && get) return list_instances(engine);
    if (path == "/instances/cleanup" && post) {
        const auto id = query.starts_with("id=") ? percent_decoded(query.substr(3)) : std::nullopt;
        if (!query.empty() && (!id || id->empty()))
            return error_reply(http::status::bad_request, "expected ?id=INSTANCE, percent-encoded, or nothing");
        return cleanup_instances(engine, id.value_or(""));
    }
    if (path == "/cache/memory/cleanup" && post) return cleanup_memory(engine);
    for (const char* known : {"/health", "/ready", "/metrics", "/instances", "/instances/cleanup", "/cache/memory/cleanup"}) {
        if (path == known) return error_reply(http::status::method_not_allowed, "wrong method for this path");
    }
    return error_reply(
        http::status::not_found,
        "no such path; there are GET /health /ready /metrics /instances, POST /instances/cleanup /cache/memory/cleanup");
}

// What may wait for copies runs on threads of its own, a few at a time: looking at a server never waits for it.
class Workers {
public:
    ~Workers() { join(); }
    // kNoMemory when the system gives no thread; one will do.
    Result<void> start() {
        while (threads_.size() < kThreads) {
            auto thread = base::start_thread([this] { io_.run(); });
            if (!thread && threads_.empty()) return fail(thread.error());
            if (!thread) break;
            threads_.push_back(std::move(*thread));
        }
        return {};
    }
    // False when too many wait. [any]
    bool post(std::function<void()> task) {
        if (waiting_.fetch_add(1) >= kMostWaiting) {
            --waiting_;
            return false;
        }
        asio::post(io_, [this, task = std::move(task)] {
            task();
            --waiting_;
        });
        return true;
    }
    // Runs what was posted before.
    void join() {
        more_.reset();
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
    }

private:
    static constexpr std::size_t kThreads = 2, kMostWaiting = 16;
    std::atomic<std::size_t> waiting_{0};
    asio::io_context io_;
    asio::executor_work_guard<asio::io_context::executor_type> more_ = asio::make_work_guard(io_);
    std::vector<std::thread> threads_;
};

// One connection; keeps itself alive through its handlers.
class Connection : public std::enable_shared_from_this<Connection> {
public:
    Connection(tcp::socket socket, Engine& engine, const AdminHooks& hooks, Workers& workers)
        : stream_(std::move(socket)), engine_(engine), hooks_(hooks), workers_(workers) {}

    void read() {
        parser_.emplace();
        parser_->body_limit(kMaxBody);
        stream_.expires_after(kTimeout);
        http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](beast::error_code error, std::size_t) {
            if (!error) self->answer();
        });
    }

private:
    void answer() {
        if (parser_->get().method() != http::verb::post) return write(route(parser_->get(), engine_, hooks_));
        stream_.expires_never();  // it takes as long as copies take
        const bool taken = workers_.post([self = shared_from_this()] {
            Reply reply = route(self->parser_->get(), self->engine_, self->hooks_);
            asio::post(self->stream_.get_executor(),
                       [self, reply = std::move(reply)]() mutable { self->write(std::move(reply)); });
        });
        if (!taken) write(error_reply(http::status::service_unavailable, "too many clean-ups wait; try again later"));
    }
    void write(Reply reply) {
        const Request& request = parser_->get();
        stream_.expires_after(kTimeout);
        response_ = Response(reply.status, request.version());
        response_.set(http::field::content_type, reply.type);
        response_.keep_alive(request.keep_alive());
        response_.body() = std::move(reply.body);
        response_.prepare_payload();
        http::async_write(stream_, response_, [self = shared_from_this()](beast::error_code error, std::size_t) {
            if (!error && self->response_.keep_alive()) self->read();
        });
    }

    beast::tcp_stream stream_;
    beast::flat_buffer buffer_{kMaxBody};
    std::optional<http::request_parser<http::string_body>> parser_;
    Response response_;
    Engine& engine_;
    const AdminHooks& hooks_;
    Workers& workers_;
};

}  // namespace

struct Admin::State {
    State(Engine& e, AdminHooks h) : engine(e), hooks(std::move(h)) {}
    void accept() {
        acceptor.async_accept([this](beast::error_code error, tcp::socket socket) {
            if (error == asio::error::operation_aborted) return;
            if (!error) std::make_shared<Connection>(std::move(socket), engine, hooks, workers)->read();
            if (!error) return accept();
            // No descriptors, perhaps: the connection waits, and would be tried again at once.
            pause.expires_after(kAcceptPause);
            pause.async_wait([this](beast::error_code stopped) {
                if (!stopped) accept();
            });
        });
    }

    Engine& engine;
    AdminHooks hooks;
    asio::io_context io{1};
    tcp::acceptor acceptor{io};
    asio::steady_timer pause{io};
    std::thread thread;
    Workers workers;
};

Result<std::unique_ptr<Admin>> Admin::start(const std::string& address, Engine& engine, AdminHooks hooks) {
    const std::size_t colon = address.rfind(':');
    std::string host = address.substr(0, colon);
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    std::uint16_t port = 0;
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
    auto state = std::make_unique<State>(engine, std::move(hooks));
    beast::error_code error;
    const auto ip = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, error);
    const auto refuse = [&] {
        return fail(Code::kInvalid, fmt::format("cannot listen for HTTP on {}: {}", address, error.message()));
    };
    if (error) return refuse();
    const tcp::endpoint endpoint(ip, port);
    state->acceptor.open(endpoint.protocol(), error);
    if (!error) state->acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) state->acceptor.bind(endpoint, error);
    if (!error) state->acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) return refuse();
    PEGA_TRY(state->workers.start());
    state->accept();
    PEGA_ASSIGN(state->thread, base::start_thread([raw = state.get()] { raw->io.run(); }));
    return std::unique_ptr<Admin>(new Admin(std::move(state)));
}

Admin::Admin(std::unique_ptr<State> state) : state_(std::move(state)) {}

Admin::~Admin() {
    state_->io.stop();
    state_->thread.join();
    state_->workers.join();
}

int Admin::port() const noexcept {
    beast::error_code error;
    return state_->acceptor.local_endpoint(error).port();
}

}  // namespace pegaflow::server
