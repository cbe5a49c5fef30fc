// SPDX-License-Identifier: Apache-2.0
// verb.hpp - what the verbs of the CLI share: streams that are passed in, exit codes, one function a verb.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "pegaflow/result.hpp"

namespace CLI {
class App;
}

namespace pegaflow::cli {

enum Exit : int { kOk = 0, kUsage = 1, kVerifyFailed = 2, kBelowRatio = 3, kRegression = 4, kNothingChecked = 77 };

// Where a verb writes, and how it ends.
struct Context {
    std::ostream& out;
    std::ostream& err;
    std::vector<std::string> command;  // as it was typed, for reports
    int exit = kOk;

    // Prints the error and remembers the exit code.
    void fail(const Error& error, int code = kUsage);
};

// Each adds its sub-command; what it does runs when the command line is parsed. `context` outlives the parse.
void add_serve(CLI::App& app, Context& context);
void add_plugins(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_demo(CLI::App& app, Context& context);
void add_bench_engine(CLI::App& bench, Context& context);
void add_bench_nccl(CLI::App& bench, Context& context);
void add_bench_p2p(CLI::App& bench, Context& context);
void add_bench_rpc(CLI::App& bench, Context& context);
void add_bench_ssd(CLI::App& bench, Context& context);
void add_bench_transfer(CLI::App& bench, Context& context);

// The offline check of caches on SSD; `pages`: read every page as well.
void doctor_ssd(const std::vector<std::string>& paths, bool pages, bool json, Context& context);
// Measures each device's ways to copy anew, keeps the result for later starts, and shows it.
void doctor_calibrate(const std::vector<std::string>& search_path, bool json, Context& context);

// Runs the CLI; `arguments` are without the program's name. [any]
int run(std::vector<std::string> arguments, std::ostream& out, std::ostream& err);

}  // namespace pegaflow::cli
