// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/search_path.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <system_error>

namespace pegaflow::core {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBackendPrefix = "pegaflow-backend-";
constexpr std::string_view kPluginPrefix = "pegaflow-plugin-";
constexpr std::string_view kSuffix = ".so";

fs::path own_directory() {
    Dl_info where{};
    if (::dladdr(reinterpret_cast<const void*>(&own_directory), &where) == 0 || where.dli_fname == nullptr) return {};
    std::error_code error;
    const fs::path self = fs::weakly_canonical(where.dli_fname, error);
    return error ? fs::path() : self.parent_path();
}

void add(std::vector<std::string>& out, const fs::path& directory) {
    std::error_code error;
    if (directory.empty() || !fs::is_directory(directory, error)) return;
    const std::string path = fs::weakly_canonical(directory, error).string();
    if (!error && std::find(out.begin(), out.end(), path) == out.end()) out.push_back(path);
}

}  // namespace

std::vector<std::string> module_directories(std::span<const std::string> extra) {
    std::vector<std::string> out;
    if (const char* list = std::getenv("PEGAFLOW_PLUGIN_PATH")) {
        std::string_view rest = list;
        while (!rest.empty()) {
            const std::size_t colon = std::min(rest.find(':'), rest.size());
            add(out, fs::path(rest.substr(0, colon)));
            rest.remove_prefix(std::min(colon + 1, rest.size()));
        }
    }
    for (const std::string& directory : extra) add(out, directory);
    const fs::path own = own_directory();
    if (!own.empty()) {
        add(out, own / "pegaflow");
        add(out, own);
        add(out, own.parent_path() / "lib" / "pegaflow");
    }
    return out;
}

std::string module_name(std::string_view path) {
    std::string_view name = path.substr(path.rfind('/') + 1);
    if (!name.ends_with(kSuffix)) return {};
    name.remove_suffix(kSuffix.size());
    for (const std::string_view prefix : {kBackendPrefix, kPluginPrefix}) {
        if (name.starts_with(prefix)) return std::string(name.substr(prefix.size()));
    }
    return {};
}

bool is_backend_file(std::string_view path) { return path.substr(path.rfind('/') + 1).starts_with(kBackendPrefix); }

std::vector<std::string> module_files(std::span<const std::string> directories) {
    std::vector<std::string> out;
    std::set<std::string> seen;
    for (const std::string& directory : directories) {
        std::vector<std::string> here;
        std::error_code error;
        for (const auto& entry : fs::directory_iterator(directory, error)) {
            if (!module_name(entry.path().string()).empty()) here.push_back(entry.path().string());
        }
        std::sort(here.begin(), here.end());
        for (std::string& file : here) {
            if (seen.insert(fs::path(file).filename().string()).second) out.push_back(std::move(file));
        }
    }
    return out;
}

}  // namespace pegaflow::core
