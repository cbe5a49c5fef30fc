// SPDX-License-Identifier: Apache-2.0
#include "nccl_api.hpp"

#include <dlfcn.h>

#include <cstdlib>

namespace nccl_backend {
namespace {

struct Loaded {
    Nccl nccl;
    bool usable = false;
    std::string why;
};

template <class Function>
bool resolve(void* library, const char* name, Function& out, std::string& why) {
    out = reinterpret_cast<Function>(::dlsym(library, name));
    if (out == nullptr && why.empty()) why.append("libnccl lacks ").append(name).append("; 2.18 or later is needed");
    return out != nullptr;
}

Loaded load() {
    Loaded out;
    const char* chosen = std::getenv("PEGAFLOW_LIBNCCL");
    const char* file = chosen != nullptr ? chosen : "libnccl.so.2";
    void* library = ::dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
        out.why = std::string(file) + " cannot be opened: install NCCL, or name its file in PEGAFLOW_LIBNCCL";
        return out;
    }
    Nccl& n = out.nccl;
    bool all = true;
#define PEGA_RESOLVE(name) all = resolve(library, #name, n.name, out.why) && all
    PEGA_RESOLVE(ncclGetVersion);
    PEGA_RESOLVE(ncclGetUniqueId);
    PEGA_RESOLVE(ncclCommInitRankConfig);
    PEGA_RESOLVE(ncclCommGetAsyncError);
    PEGA_RESOLVE(ncclCommAbort);
    PEGA_RESOLVE(ncclGroupStart);
    PEGA_RESOLVE(ncclGroupEnd);
    PEGA_RESOLVE(ncclSend);
    PEGA_RESOLVE(ncclRecv);
    PEGA_RESOLVE(ncclGetErrorString);
#undef PEGA_RESOLVE
    if (!all) return out;
    if (n.ncclGetVersion(&n.version) != kNcclSuccess || n.version < kLeastVersion) {
        out.why = std::string(file) + " is version " + std::to_string(n.version) + ", expected 21800 (2.18) or later";
        return out;
    }
    out.usable = true;
    return out;
}

}  // namespace

const Nccl* Nccl::get(std::string* why) {
    // Never closed: its threads may outlive every communicator.
    static const Loaded loaded = load();
    if (!loaded.usable && why != nullptr) *why = loaded.why;
    return loaded.usable ? &loaded.nccl : nullptr;
}

}  // namespace nccl_backend
