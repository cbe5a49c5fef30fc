// SPDX-License-Identifier: Apache-2.0
// pegaflow serve: reads the configuration, starts the server, waits for a signal, drains.
#include <fmt/format.h>
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <mutex>
#include <thread>

#include "base/log.hpp"
#include "base/thread.hpp"
#include "server/server.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::chrono::seconds kStopGrace(15);  // beyond the drain timeout

struct Arguments {
    std::string config_file;
    bool print_config = false;
    std::map<std::string, std::string> values;  // by option key
};

Result<server::Config> make_config(const Arguments& arguments) {
    server::Config config;
    if (!arguments.config_file.empty()) PEGA_TRY(server::read_config(arguments.config_file, config));
    for (const auto& [key, value] : arguments.values) PEGA_TRY(server::set_option(config, key, value));
    return config;
}

// Blocked in all threads, so that only the waiting one takes them.
sigset_t block_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    return set;
}

// What signals end. While it starts nobody has been served, and what it does to files may be cut off at any moment.
struct Running {
    std::mutex mutex;
    server::Server* server = nullptr;  // guarded by mutex; null while it starts, and when it has gone
    bool started = false;              // guarded by mutex
};

void take_signals(const std::shared_ptr<Running>& running, const sigset_t& signals) {
    int number = 0;
    ::sigwait(&signals, &number);
    {
        const std::lock_guard lock(running->mutex);
        if (!running->started) ::_exit(kOk);
        if (running->server != nullptr) running->server->request_stop();
    }
    // Terminals and supervisors send the same signal to a whole group, which may come here twice: only a later one means
    // "at once".
    const timespec grace{1, 0};
    while (::sigtimedwait(&signals, nullptr, &grace) > 0) {
    }
    ::sigwait(&signals, &number);
    ::_exit(kUsage);
}

// Ends the process when stopping takes much longer than it may: memory is not freed under a copy that hardware holds on to, and
// a supervisor would kill the process next.
class StopLimit {
public:
    explicit StopLimit(std::chrono::nanoseconds limit) {
        auto thread = base::start_thread([this, limit] { watch(limit); });
        if (thread) {
            thread_ = std::move(*thread);
        } else {
            base::log_warning("server", "nothing bounds the time that stopping takes: {}", thread.error().message);
        }
    }
    ~StopLimit() {
        {
            const std::lock_guard lock(mutex_);
            over_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }

private:
    void watch(std::chrono::nanoseconds limit) {
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, limit, [this] { return over_; })) return;
        base::log_error("server", "some copy does not end, and cannot be ended: leaving without waiting for it");
        ::_exit(kUsage);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    bool over_ = false;  // guarded by mutex_
    std::thread thread_;
};

void serve(const Arguments& arguments, Context& context) {
    const auto config = make_config(arguments);
    if (!config) return context.fail(config.error());
    if (arguments.print_config) {
        context.out << server::to_toml(*config);
        return;
    }
    const sigset_t signals = block_signals();
    std::signal(SIGPIPE, SIG_IGN);  // whoever reads the log may go
    server::install_log(config->log_level);
    const auto state = std::make_shared<Running>();  // shared with the thread that takes signals, which nobody ends
    auto signal_thread = base::start_thread([state, signals] { take_signals(state, signals); });
    if (!signal_thread) return context.fail(signal_thread.error());
    signal_thread->detach();
    auto started = server::Server::start(*config);
    if (!started) return context.fail(started.error());
    server::Server& running = **started;
    {
        const std::lock_guard lock(state->mutex);
        state->server = &running;
        state->started = true;
    }
    // Where everything listens, also when the ports were free ones: scripts read this line.
    context.out << fmt::format("pegaflow {} serving: grpc port {} admin port {}\n", PEGAFLOW_VERSION, running.port(),
                               running.admin_port())
                << std::flush;
    running.wait();
    {
        const std::lock_guard lock(state->mutex);
        state->server = nullptr;
    }
    const StopLimit limit(config->drain_timeout + kStopGrace);
    running.stop();
    context.out << "pegaflow: stopped\n" << std::flush;
}

}  // namespace

void add_serve(CLI::App& app, Context& context) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *app.add_subcommand("serve", "Serve the engine over gRPC, with HTTP administration");
    verb.add_option("--config,-c", arguments->config_file, "TOML file with the configuration");
    verb.add_flag("--print-config", arguments->print_config, "Print the configuration in force and end");
    for (const server::Option& option : server::options()) {
        const auto set = [arguments, key = option.key](const std::string& value) { arguments->values[key] = value; };
        CLI::Option* flag =
            verb.add_option_function<std::string>(option.flag(), set, fmt::format("{} ({})", option.help, option.type));
        if (option.kind == server::Option::Kind::kBoolean) flag->expected(0, 1)->default_str("true")->type_name("BOOL");
    }
    verb.callback([arguments, &context] { serve(*arguments, context); });
}

}  // namespace pegaflow::cli
