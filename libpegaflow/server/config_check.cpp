// SPDX-License-Identifier: Apache-2.0
// Names in a configuration that only the loaded modules can tell right from wrong.
#include <fmt/format.h>

#include <algorithm>

#include "pegaflow/abi/policy.h"
#include "server/config.hpp"

namespace pegaflow::server {
namespace {

// The plug-ins that have a policy table.
std::vector<std::string> plugins_with(Fabric& fabric, const char* table) {
    std::vector<std::string> out;
    for (const ModuleReport& module : fabric.modules()) {
        if (!module.problem.empty() || !module.devices.empty()) continue;
        const auto entry = fabric.module(module.name);
        if (entry && (*entry)->get(table) != nullptr) out.push_back(module.name);
    }
    return out;
}

Result<void> check(const Config& config, const char* key, const std::string& name, const std::vector<std::string>& known,
                   std::string_view advice = "") {
    if (std::ranges::find(known, name) != known.end()) return {};
    const auto origin = config.origins.find(key);
    return fail(Code::kInvalid,
                fmt::format("{}: \"{}\" is not there; there are: {}{}", origin == config.origins.end() ? key : origin->second,
                            name, fmt::join(known, ", "), advice));
}

}  // namespace

Result<void> check_names(const Config& config, Fabric& fabric) {
    std::vector<std::string> evictions = plugins_with(fabric, PEGA_EVICTION_TABLE);
    evictions.insert(evictions.begin(), {"tiny_lfu", "lru"});
    PEGA_TRY(check(config, "cache.eviction", config.engine.eviction_policy, evictions));
    std::vector<std::string> admissions = plugins_with(fabric, PEGA_ADMISSION_TABLE);
    admissions.insert(admissions.begin(), "none");
    const std::string& admission = config.engine.admission_policy;
    const bool eviction = std::ranges::find(evictions, admission) != evictions.end();
    PEGA_TRY(check(config, "cache.admission", admission, admissions,
                   eviction ? "; it orders eviction: set cache.eviction to it" : ""));
    std::vector<std::string> devices;
    for (const DeviceInfo& info : fabric.devices()) devices.push_back(info.name);
    for (const std::string& name : config.engine.devices) PEGA_TRY(check(config, "modules.devices", name, devices));
    return {};
}

}  // namespace pegaflow::server
