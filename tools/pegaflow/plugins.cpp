// SPDX-License-Identifier: Apache-2.0
// pegaflow plugins: what loads, with what it can do, and why the rest does not; --check runs the conformance suite.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>

#include "pegaflow/abi/policy.h"
#include "pegaflow/bytes.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/conformance/conformance.hpp"
#include "tools/pegaflow/verb.hpp"

namespace pegaflow::cli {
namespace {

constexpr const char* kKinds[] = {"host", "gpu", "file", "remote"};
constexpr const char* kFlags[] = {"read", "write", "cancel", "notify", "stream", "marks", "peers", "own-threads"};

std::string capabilities_text(const pega_capabilities& c) {
    std::string flags;
    for (std::size_t i = 0; i < std::size(kFlags); ++i) {
        if ((c.flags >> i & 1) != 0) flags += fmt::format("{}{}", flags.empty() ? "" : " ", kFlags[i]);
    }
    std::string moves;
    for (std::size_t from = 0; from < PEGA_MEMORY_KINDS; ++from) {
        for (std::size_t to = 0; to < PEGA_MEMORY_KINDS; ++to) {
            if ((c.matrix[from] >> to & 1) != 0)
                moves += fmt::format("{}{}-{}", moves.empty() ? "" : " ", kKinds[from], kKinds[to]);
        }
    }
    return fmt::format("{}; moves {}; alignment {}; about {}/s", flags, moves, c.alignment,
                       format_size(c.cost[0].bytes_per_second));
}

void list_policies(Fabric& fabric, const std::string& name, Context& context) {
    const auto entry = fabric.module(name);
    if (!entry) return;
    if ((*entry)->get(PEGA_EVICTION_TABLE) != nullptr)
        context.out << "  eviction policy: cache.eviction = \"" << name << "\"\n";
    if ((*entry)->get(PEGA_ADMISSION_TABLE) != nullptr)
        context.out << "  admission policy: cache.admission = \"" << name << "\"\n";
}

// Says what back ends know without opening a device, which takes memory on a GPU; `open` asks the devices themselves.
void list(const std::vector<std::string>& search_path, bool open, Context& context) {
    FabricOptions options{.search_path = search_path};
    options.options["cuda"]["calibrate"] = "off";  // takes seconds a GPU, for rates that are not shown
    auto fabric = Fabric::open(options);
    if (!fabric) return context.fail(fabric.error());
    if ((*fabric)->modules().empty()) context.out << "no modules found; set PEGAFLOW_PLUGIN_PATH or --search-path\n";
    for (const ModuleReport& module : (*fabric)->modules()) {
        context.out << fmt::format("{} {} ({})\n", module.name.empty() ? "?" : module.name, module.version, module.path);
        if (!module.problem.empty()) context.out << fmt::format("  not usable: {}\n", module.problem);
        if (module.problem.empty() && module.devices.empty()) list_policies(**fabric, module.name, context);
        for (const DeviceInfo& device : module.devices) {
            context.out << fmt::format("  {}  {}{}{}\n", device.name, device.text, device.uuid.empty() ? "" : "  ",
                                       device.uuid);
            if (!open) continue;
            if (const auto opened = (*fabric)->device(device.name)) {
                context.out << fmt::format("    {}\n", capabilities_text((*opened)->capabilities()));
            } else {
                context.out << fmt::format("    cannot be opened: {}\n", opened.error().message);
            }
        }
    }
}

struct CheckArguments {
    conformance::Options options;
    unsigned time_limit_s = 300;
};

// What was found is printed as it comes: what runs longest is seen while it runs.
void check(const CheckArguments& arguments, Context& context) {
    std::size_t counts[3] = {};
    std::string why_skipped;
    conformance::Options options = arguments.options;
    options.on_result = [&](const conformance::CheckResult& result) {
        constexpr const char* kWords[] = {"ok", "FAILED", "skipped"};
        ++counts[static_cast<int>(result.outcome)];
        if (result.outcome == conformance::Outcome::kSkipped && why_skipped.empty()) why_skipped = result.text;
        context.out << fmt::format("{:<8} {}{}{}", kWords[static_cast<int>(result.outcome)], result.name,
                                   result.text.empty() ? "" : ": ", result.text)
                    << std::endl;
    };
    const bool apart = arguments.time_limit_s != 0;
    const auto results =
        apart ? conformance::run_apart(options, std::chrono::seconds(arguments.time_limit_s)) : conformance::run(options);
    context.out << fmt::format("{} passed, {} failed, {} skipped\n", counts[0], counts[1], counts[2]);
    if (results.empty()) return context.fail({Code::kNotFound, fmt::format("no check has \"{}\" in its name", options.only)});
    if (counts[1] != 0) {
        context.exit = kVerifyFailed;
    } else if (counts[0] == 0) {
        context.fail({Code::kUnsupported, fmt::format("nothing was checked: {}", why_skipped)}, kNothingChecked);
    }
}

}  // namespace

void add_plugins(CLI::App& app, Context& context) {
    struct Arguments {
        CheckArguments check;
        std::vector<std::string> search_path;
        bool capabilities = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *app.add_subcommand("plugins", "List back ends and plug-ins; check one against the conformance suite");
    verb.add_option("--search-path", arguments->search_path, "Further directories to search");
    verb.add_flag("--capabilities", arguments->capabilities, "Open the devices and say what each can do");
    CheckArguments& suite = arguments->check;
    verb.add_option("--check", suite.options.path, "Run the conformance suite on this back end or policy file");
    verb.add_option("--option", suite.options.options, "key=value for the checked module; may be repeated");
    verb.add_option("--seed", suite.options.seed, "Seed of the random batches");
    verb.add_option("--only", suite.options.only, "Run only checks whose name contains this");
    verb.add_option("--time-limit", suite.time_limit_s,
                    "Seconds that one check may take; 0 = no limit, and the checks run in this process, for a debugger")
        ->check(CLI::Range(0U, 86'400U))
        ->capture_default_str();
    verb.footer(
        "Exit codes of --check: 0 all that applies passed, 1 usage, 2 a check failed (also by a crash or the time limit),\n"
        "77 nothing was checked, because no check applies here.");
    verb.callback([arguments, &context] {
        if (arguments->check.options.path.empty()) return list(arguments->search_path, arguments->capabilities, context);
        check(arguments->check, context);
    });
}

}  // namespace pegaflow::cli
