// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "core/plugin/entry_check.hpp"
#include "core/plugin/registry.hpp"
#include "core/transport/device.hpp"

namespace pegaflow {
namespace {

constexpr std::uint32_t kMaxDevices = 64;
constexpr std::uint64_t kMaxReason = 512;

// The texts behind an array of pega_option; both live as long as this.
struct OptionList {
    std::map<std::string, std::string> texts;
    std::vector<pega_option> options;

    explicit OptionList(std::map<std::string, std::string> map) : texts(std::move(map)) {
        for (const auto& [key, value] : texts) options.push_back({key.c_str(), value.c_str()});
    }
    OptionList(const OptionList&) = delete;
    OptionList& operator=(const OptionList&) = delete;
};

std::string_view without_prefix(std::string_view uuid) { return uuid.starts_with("GPU-") ? uuid.substr(4) : uuid; }

}  // namespace

struct Fabric::State {
    struct Source {
        core::BackendTables tables;
        std::unique_ptr<OptionList> options;
    };

    FabricOptions options;
    std::unique_ptr<core::Registry> registry;
    std::vector<ModuleReport> modules;
    std::vector<DeviceInfo> devices;
    std::map<std::string, Source, std::less<>> sources;  // by back end name
    std::atomic<bool> kept_open{false};
    std::mutex mutex;
    std::map<std::string, std::unique_ptr<core::OpenDevice>, std::less<>> open;  // guarded by mutex

    ModuleReport load(const core::Registry::File& file);
    Result<void> probe(const std::string& name, ModuleReport& report);
    std::vector<std::string> wrappers_of(std::string_view backend) const;
    std::string outermost(const std::string& backend) const;
    std::map<std::string, std::string> texts_for(const std::string& backend) const;
    std::map<std::string, std::string> options_of(const std::string& module) const;
};

std::vector<std::string> Fabric::State::wrappers_of(std::string_view backend) const {
    std::vector<std::string> out;
    for (const auto& [wrapper, inner] : options.wrap) {
        if (inner == backend) out.push_back(wrapper);
    }
    return out;
}

std::string Fabric::State::outermost(const std::string& backend) const {
    const std::vector<std::string> wrappers = wrappers_of(backend);
    return wrappers.empty() ? backend : wrappers.back();
}

// The options of the outermost module: its own, what it wraps, and with one more "inner." each the options of what lies within.
std::map<std::string, std::string> Fabric::State::texts_for(const std::string& backend) const {
    std::map<std::string, std::string> texts = options_of(backend);
    std::string within = backend;
    for (const std::string& wrapper : wrappers_of(backend)) {
        std::map<std::string, std::string> outer = options_of(wrapper);
        for (const auto& [key, value] : texts) outer.emplace("inner." + key, value);
        outer["inner"] = within;
        texts = std::move(outer);
        within = wrapper;
    }
    return texts;
}

std::map<std::string, std::string> Fabric::State::options_of(const std::string& module) const {
    const auto it = options.options.find(module);
    return it == options.options.end() ? std::map<std::string, std::string>{} : it->second;
}

Result<void> Fabric::State::probe(const std::string& name, ModuleReport& report) {
    const std::string module = outermost(name);
    PEGA_ASSIGN(const pega_entry* entry, registry->find(module));
    report.version = entry->version;
    Source source;
    PEGA_ASSIGN(source.tables, core::check_backend(entry, registry->path_of(module)));
    source.options = std::make_unique<OptionList>(texts_for(name));
    std::vector<pega_device_info> infos(kMaxDevices);
    infos.front().size = sizeof(pega_device_info);
    std::uint32_t count = 0;
    char reason[kMaxReason] = "";
    const auto& list = source.options->options;
    const pega_status status =
        source.tables.backend->probe(registry->host(), list.data(), static_cast<std::uint32_t>(list.size()), infos.data(),
                                     kMaxDevices, &count, reason, sizeof reason);
    if (status != PEGA_OK) {
        reason[kMaxReason - 1] = '\0';
        return fail(static_cast<Code>(status), *reason != '\0' ? reason : "probe failed without a reason");
    }
    for (std::uint32_t i = 0; i < std::min(count, kMaxDevices); ++i) {
        pega_device_info& d = infos[i];
        d.uuid[sizeof d.uuid - 1] = d.text[sizeof d.text - 1] = '\0';
        report.devices.push_back(
            {fmt::format("{}:{}", name, d.index), name, d.index, d.kind, d.numa_node, d.memory_bytes, d.uuid, d.text});
    }
    sources.emplace(name, std::move(source));
    return {};
}

ModuleReport Fabric::State::load(const core::Registry::File& file) {
    ModuleReport report{file.path, file.name, "", "", {}};
    if (file.backend) {
        if (auto probed = probe(file.name, report); !probed) report.problem = probed.error().message;
    } else if (auto entry = registry->find(file.name)) {
        report.version = (*entry)->version;
    } else {
        report.problem = entry.error().message;
    }
    return report;
}

Result<std::unique_ptr<Fabric>> Fabric::open(FabricOptions options) {
    auto state = std::make_unique<State>();
    state->options = std::move(options);
    state->registry = std::make_unique<core::Registry>(state->options.search_path);
    std::vector<std::string> wanted = state->options.backends;
    for (const auto& [wrapper, inner] : state->options.wrap) {
        const std::vector<std::string> around = state->wrappers_of(inner);
        if (std::count(around.begin(), around.end(), wrapper) > 1)
            return fail(Code::kInvalid, fmt::format("back end \"{}\" is wrapped twice by \"{}\"", inner, wrapper));
        if (std::find(wanted.begin(), wanted.end(), inner) == wanted.end() && !wanted.empty()) wanted.push_back(inner);
    }
    for (const auto& file : state->registry->files()) {
        const bool chosen =
            !file.backend || wanted.empty() || std::find(wanted.begin(), wanted.end(), file.name) != wanted.end();
        if (chosen) state->modules.push_back(state->load(file));
    }
    for (const ModuleReport& report : state->modules) {
        state->devices.insert(state->devices.end(), report.devices.begin(), report.devices.end());
    }
    const auto require = [&](const std::string& name) -> Result<void> {
        const auto it =
            std::find_if(state->modules.begin(), state->modules.end(), [&](const auto& r) { return r.name == name; });
        if (it == state->modules.end())
            return fail(Code::kNotFound, fmt::format("back end \"{}\" was not found in the search path", name));
        if (!it->problem.empty())
            return fail(Code::kNotFound, fmt::format("back end \"{}\" cannot be used: {}", name, it->problem));
        return {};
    };
    for (const std::string& name : state->options.backends) PEGA_TRY(require(name));
    for (const auto& [wrapper, inner] : state->options.wrap) PEGA_TRY(require(inner));
    return std::unique_ptr<Fabric>(new Fabric(std::move(state)));
}

Fabric::Fabric(std::unique_ptr<State> state) : state_(std::move(state)) {}

Fabric::~Fabric() {
    if (!state_->kept_open) {
        state_->open.clear();
        return;
    }
    // Named here, so that tools that look for leaks know that it is meant.
    static std::vector<State*>& kept = *new std::vector<State*>();
    static std::mutex& mutex = *new std::mutex();
    const std::lock_guard lock(mutex);
    kept.push_back(state_.release());
}

void Fabric::keep_open() noexcept { state_->kept_open = true; }

std::span<const ModuleReport> Fabric::modules() const noexcept { return state_->modules; }
std::span<const DeviceInfo> Fabric::devices() const noexcept { return state_->devices; }

Result<Device*> Fabric::device(std::string_view name) {
    const std::lock_guard lock(state_->mutex);
    if (const auto it = state_->open.find(name); it != state_->open.end()) return static_cast<Device*>(it->second.get());
    const auto info =
        std::find_if(state_->devices.begin(), state_->devices.end(), [&](const DeviceInfo& d) { return d.name == name; });
    if (info == state_->devices.end()) {
        std::string known;
        for (const DeviceInfo& d : state_->devices) known += (known.empty() ? "" : ", ") + d.name;
        return fail(Code::kNotFound, fmt::format("no device \"{}\"; there are: {}", name, known.empty() ? "none" : known));
    }
    const State::Source& source = state_->sources.at(info->backend);
    PEGA_ASSIGN(auto opened, core::OpenDevice::open(state_->registry->host(), source.tables, *info, source.options->options));
    return static_cast<Device*>(state_->open.emplace(std::string(name), std::move(opened)).first->second.get());
}

Result<Device*> Fabric::device_by_uuid(std::string_view uuid) {
    for (const DeviceInfo& d : state_->devices) {
        if (!uuid.empty() && without_prefix(d.uuid) == without_prefix(uuid)) return device(d.name);
    }
    return fail(Code::kNotFound, fmt::format("no device has the UUID \"{}\" here; `pegaflow plugins` lists devices", uuid));
}

Result<Device*> Fabric::route(std::string_view local_device, std::uint32_t remote_kind) {
    PEGA_ASSIGN(Device* const local, device(local_device));
    if (remote_kind < PEGA_MEMORY_KINDS && (local->capabilities().matrix[local->info().kind] & (1U << remote_kind)) != 0)
        return local;
    return fail(Code::kUnsupported,
                fmt::format("{} does not move bytes to or from memory of kind {}", local_device, remote_kind));
}

Result<const pega_entry*> Fabric::module(std::string_view name) { return state_->registry->find(name); }

std::vector<pega_option> Fabric::module_options(std::string_view name) const {
    std::vector<pega_option> out;
    const auto it = state_->options.options.find(std::string(name));
    if (it == state_->options.options.end()) return out;
    for (const auto& [key, value] : it->second) out.push_back({key.c_str(), value.c_str()});
    return out;
}

std::vector<DeviceHealth> Fabric::health() const {
    const std::lock_guard lock(state_->mutex);
    std::vector<DeviceHealth> out;
    for (const auto& [name, device] : state_->open) out.push_back(device->health());
    return out;
}

const pega_host* Fabric::host() const noexcept { return state_->registry->host(); }

}  // namespace pegaflow
