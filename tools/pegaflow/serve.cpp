// SPDX-License-Identifier: Apache-2.0
// pegaflow serve: reads the configuration, starts the server, waits for a signal, drains.
#include <fmt/format.h>
#include <pthread.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <thread>

#include "server/server.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

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

void serve(const Arguments& arguments, Context& context) {
    const auto config = make_config(arguments);
    if (!config) return context.fail(config.error());
    if (arguments.print_config) {
        context.out << server::to_toml(*config);
        return;
    }
    const sigset_t signals = block_signals();
    server::install_log(config->log_level);
    auto started = server::Server::start(*config);
    if (!started) return context.fail(started.error());
    server::Server& running = **started;
    // Where everything listens, also when the ports were free ones: scripts read this line.
    context.out << fmt::format("pegaflow {} serving: grpc port {} admin port {}\n", PEGAFLOW_VERSION, running.port(),
                               running.admin_port())
                << std::flush;
    std::thread waiter([&running, signals] {
        int number = 0;
        ::sigwait(&signals, &number);
        running.request_stop();
        // Terminals and supervisors send the same signal to a whole group, which may come here twice: only a later one means
        // "at once".
        const timespec grace{1, 0};
        while (::sigtimedwait(&signals, nullptr, &grace) > 0) {
        }
        ::sigwait(&signals, &number);
        ::_exit(kUsage);
    });
    waiter.detach();
    running.wait();
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
        if (option.boolean) flag->expected(0, 1)->default_str("true")->type_name("BOOL");
    }
    verb.callback([arguments, &context] { serve(*arguments, context); });
}

}  // namespace pegaflow::cli
