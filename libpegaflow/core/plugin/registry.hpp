// SPDX-License-Identifier: Apache-2.0
// registry.hpp - the modules of one fabric: found, checked, kept open; generic over what they are for.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/plugin/library.hpp"
#include "pegaflow/abi/entry.h"
#include "pegaflow/abi/host.h"
#include "pegaflow/result.hpp"

namespace pegaflow::core {

class Registry {
public:
    // Remembers which files there are; loads none. [any]
    explicit Registry(std::span<const std::string> search_path);
    ~Registry();  // closes all modules: everything that uses one is gone by then

    struct File {
        std::string name;
        std::string path;
        bool backend = false;
    };
    std::span<const File> files() const noexcept { return files_; }

    // The entry of the module with this name, loading it on first use. kNotFound, or kUnsupported with the reason. [any]
    Result<const pega_entry*> find(std::string_view name);
    // Loads a file by path, whatever its name. [any]
    Result<const pega_entry*> load(const std::string& path);
    // The path a module was found at; "" when there is none. [any]
    std::string path_of(std::string_view name) const;

    // What modules get as their host; valid as long as the registry. [any]
    const pega_host* host() const noexcept { return &host_; }

private:
    static void log(void* context, std::uint32_t level, const char* module, const char* message);
    static std::uint64_t now_ns(void* context);
    static const void* extension(void* context, const char* id);
    static const pega_entry* find_module(void* context, const char* name);

    struct Loaded {
        Library library;
        const pega_entry* entry;
    };

    std::vector<File> files_;
    pega_host host_;
    std::recursive_mutex mutex_;                         // recursive: a module's probe may ask for another module
    std::map<std::string, Loaded, std::less<>> loaded_;  // by path; guarded by mutex_
};

}  // namespace pegaflow::core
