// SPDX-License-Identifier: Apache-2.0
// library.hpp - one shared object opened with dlopen, closed by its owner.
#pragma once

#include <string>

#include "pegaflow/result.hpp"

namespace pegaflow::core {

class Library {
public:
    // Opens `path` with RTLD_NOW | RTLD_LOCAL. kUnsupported with the loader's own words when it cannot. [any]
    static Result<Library> open(const std::string& path);
    Library(Library&& other) noexcept;
    Library& operator=(Library&& other) noexcept;
    ~Library();

    const std::string& path() const noexcept { return path_; }
    // The address of a symbol that this very file defines; null when it has none, or only a dependency has it. [any]
    const void* own_symbol(const char* name) const noexcept;

private:
    Library(std::string path, void* handle) : path_(std::move(path)), handle_(handle) {}

    std::string path_;
    void* handle_;
};

}  // namespace pegaflow::core
