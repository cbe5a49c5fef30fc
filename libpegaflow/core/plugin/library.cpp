// SPDX-License-Identifier: Apache-2.0
#include "core/plugin/library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <utility>

namespace pegaflow::core {

Result<Library> Library::open(const std::string& path) {
    void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return fail(Code::kUnsupported, fmt::format("cannot open {}: {}", path, ::dlerror()));
    return Library(path, handle);
}

Library::Library(Library&& other) noexcept : path_(std::move(other.path_)), handle_(std::exchange(other.handle_, nullptr)) {}

Library& Library::operator=(Library&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(handle_, other.handle_);
    return *this;
}

Library::~Library() {
    if (handle_ != nullptr) ::dlclose(handle_);
}

const void* Library::own_symbol(const char* name) const noexcept {
    const void* address = ::dlsym(handle_, name);
    if (address == nullptr) return nullptr;
    // dlsym also searches dependencies: a module that links another module would otherwise pass for it.
    const struct link_map* map = nullptr;
    Dl_info where{};
    if (::dlinfo(handle_, RTLD_DI_LINKMAP, &map) != 0 || ::dladdr(address, &where) == 0) return nullptr;
    return where.dli_fbase == reinterpret_cast<const void*>(map->l_addr) ? address : nullptr;
}

}  // namespace pegaflow::core
