// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/verb.hpp"

#include <CLI/CLI.hpp>

#include "server/config.hpp"

namespace pegaflow::cli {

void Context::fail(const Error& error, int code) {
    err << "pegaflow: " << error.message << "\n";
    exit = code;
}

int run(std::vector<std::string> arguments, std::ostream& out, std::ostream& err) {
    Context context{out, err, arguments};
    CLI::App app("PegaFlow: moves and keeps the KV cache of LLM serving");
    app.name("pegaflow");
    app.require_subcommand(1);
    app.set_version_flag("--version", PEGAFLOW_VERSION);
    add_serve(app, context);
    add_plugins(app, context);
    add_doctor(app, context);
    add_demo(app, context);
    CLI::App& bench = *app.add_subcommand("bench", "Measure, against a limit measured in the same run");
    bench.require_subcommand(1);
    add_bench_transfer(bench, context);
    add_bench_p2p(bench, context);
    add_bench_engine(bench, context);
    add_bench_nccl(bench, context);
    add_bench_rpc(bench, context);
    add_bench_ssd(bench, context);
    app.add_subcommand("version", "Print the version")->callback([&] { out << "pegaflow " << PEGAFLOW_VERSION << "\n"; });
    app.add_subcommand("config-reference", "Print the configuration reference (Markdown)")->callback([&] {
        out << server::config_reference();
    });
    std::reverse(arguments.begin(), arguments.end());
    try {
        app.parse(arguments);
    } catch (const CLI::ParseError& error) {
        const int code = app.exit(error, out, err);
        return code == 0 ? kOk : kUsage;
    }
    return context.exit;
}

}  // namespace pegaflow::cli
