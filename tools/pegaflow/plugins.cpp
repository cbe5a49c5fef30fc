// SPDX-License-Identifier: Apache-2.0
// pegaflow plugins: what loads, with what it can do, and why the rest does not; --check runs the conformance suite.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
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

void check(const conformance::Options& options, Context& context) {
    const auto results = conformance::run(options);
    std::size_t counts[3] = {};
    for (const auto& result : results) {
        constexpr const char* kWords[] = {"ok", "FAILED", "skipped"};
        ++counts[static_cast<int>(result.outcome)];
        context.out << fmt::format("{:<8} {}{}{}\n", kWords[static_cast<int>(result.outcome)], result.name,
                                   result.text.empty() ? "" : ": ", result.text);
    }
    context.out << fmt::format("{} passed, {} failed, {} skipped\n", counts[0], counts[1], counts[2]);
    if (counts[1] != 0 || results.empty()) context.exit = kVerifyFailed;
}

}  // namespace

void add_plugins(CLI::App& app, Context& context) {
    struct Arguments {
        conformance::Options check;
        std::vector<std::string> search_path;
        bool capabilities = false;
    };
    auto arguments = std::make_shared<Arguments>();
    CLI::App& verb = *app.add_subcommand("plugins", "List back ends and plug-ins; check one against the conformance suite");
    verb.add_option("--search-path", arguments->search_path, "Further directories to search");
    verb.add_flag("--capabilities", arguments->capabilities, "Open the devices and say what each can do");
    verb.add_option("--check", arguments->check.path, "Run the conformance suite on this back end or policy file");
    verb.add_option("--option", arguments->check.options, "key=value for the checked module; may be repeated");
    verb.add_option("--seed", arguments->check.seed, "Seed of the random batches");
    verb.add_option("--only", arguments->check.only, "Run only checks whose name contains this");
    verb.callback([arguments, &context] {
        if (arguments->check.path.empty()) return list(arguments->search_path, arguments->capabilities, context);
        check(arguments->check, context);
    });
}

}  // namespace pegaflow::cli
