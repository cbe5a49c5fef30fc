// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/registry.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "base/log.hpp"
#include "core/plugin/entry_check.hpp"
#include "core/plugin/last_words.hpp"
#include "core/plugin/search_path.hpp"

namespace pegaflow::core {

Registry::Registry(std::span<const std::string> search_path) : host_{} {
    const std::vector<std::string> directories = module_directories(search_path);
    for (const std::string& path : module_files(directories))
        files_.push_back({module_name(path), path, is_backend_file(path)});
    host_.size = sizeof host_;
    host_.context = this;
    host_.log = &Registry::log;
    host_.now_ns = &Registry::now_ns;
    host_.extension = &Registry::extension;
}

Registry::~Registry() = default;

Result<const pega_entry*> Registry::load(const std::string& path) {
    const std::lock_guard lock(mutex_);
    if (const auto it = loaded_.find(path); it != loaded_.end()) return it->second.entry;
    PEGA_ASSIGN(Library library, Library::open(path));
    PEGA_ASSIGN(const pega_entry* entry, check_entry(library));
    loaded_.emplace(path, Loaded{std::move(library), entry});
    return entry;
}

Result<const pega_entry*> Registry::find(std::string_view name) {
    const std::string path = path_of(name);
    if (path.empty()) {
        return fail(Code::kNotFound, fmt::format("no module \"{}\" in the search path (a file pegaflow-backend-{}.so or "
                                                 "pegaflow-plugin-{}.so; see PEGAFLOW_PLUGIN_PATH)",
                                                 name, name, name));
    }
    PEGA_ASSIGN(const pega_entry* entry, load(path));
    if (name != entry->name) {
        return fail(Code::kUnsupported,
                    fmt::format("{} is not usable: it calls itself \"{}\", expected \"{}\" after its file name", path,
                                entry->name, name));
    }
    return entry;
}

std::string Registry::path_of(std::string_view name) const {
    for (const File& file : files_) {
        if (file.name == name) return file.path;
    }
    return {};
}

void Registry::log(void*, std::uint32_t level, const char* module, const char* message) {
    if (level > PEGA_LOG_ERROR) level = PEGA_LOG_ERROR;
    if (level == PEGA_LOG_ERROR) LastWords::note(message);
    const auto as_level = static_cast<base::LogLevel>(level);
    if (base::log_enabled(as_level)) base::write_log(as_level, module, message);
}

std::uint64_t Registry::now_ns(void*) {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

const void* Registry::extension(void*, const char* id) {
    static constexpr pega_host_modules kModules = {sizeof(pega_host_modules), 0, &Registry::find_module};
    return std::strcmp(id, PEGA_HOST_MODULES) == 0 ? &kModules : nullptr;
}

const pega_entry* Registry::find_module(void* context, const char* name) {
    auto& self = *static_cast<Registry*>(context);
    auto entry = self.find(name);
    // Who asks for a back end calls its tables as they are.
    if (entry && (*entry)->get(PEGA_BACKEND_TABLE) != nullptr) {
        if (auto tables = check_backend(*entry, self.path_of(name)); !tables) entry = unexpected<Error>(tables.error());
    }
    if (entry) return *entry;
    base::log_warning("core", "{}", entry.error().message);
    return nullptr;
}

}  // namespace pegaflow::core
