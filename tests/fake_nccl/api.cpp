// SPDX-License-Identifier: Apache-2.0
// api.cpp - a libnccl for machines without a GPU: the functions that the nccl back end calls, over the fake driver's streams.
// Only what that uses is offered: two ranks, bytes. PEGAFLOW_FAKE_NCCL_VERSION changes the
// version that it says it is.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "comm.hpp"
#include "nccl_api.hpp"

namespace fake_nccl {
namespace {

using nccl_backend::Config;
using nccl_backend::kNcclInProgress;
using nccl_backend::kNcclInvalidUsage;
using nccl_backend::kNcclSuccess;
using nccl_backend::NcclResult;
using nccl_backend::UniqueId;

constexpr NcclResult kInvalidArgument = 4;
constexpr NcclResult kSystemError = 2;

struct Group {
    int depth = 0;
    Comm* comm = nullptr;
    std::vector<Message> messages;
};
thread_local Group group;

NcclResult queue(void* at, std::size_t count, int type, int peer, void* comm, void* stream, bool send) {
    if (group.depth == 0 || comm == nullptr || type != nccl_backend::kNcclUint8 || peer < 0 || peer > 1 || count == 0)
        return kInvalidArgument;
    auto* asked = static_cast<Comm*>(comm);
    if (asked->in_progress() || (group.comm != nullptr && group.comm != asked)) return kNcclInvalidUsage;
    if (!group.messages.empty() && group.messages.front().stream != stream) return kNcclInvalidUsage;
    group.comm = asked;
    group.messages.push_back({static_cast<unsigned char*>(at), count, send, stream});
    return kNcclSuccess;
}

}  // namespace
}  // namespace fake_nccl

using namespace fake_nccl;

extern "C" {

NcclResult ncclGetVersion(int* out) {
    const char* text = std::getenv("PEGAFLOW_FAKE_NCCL_VERSION");
    return *out = text != nullptr ? std::atoi(text) : 22809, kNcclSuccess;
}
NcclResult ncclGetUniqueId(UniqueId* out) {
    std::random_device random;
    *out = {};
    std::snprintf(out->bytes, sizeof out->bytes, "pegaflow-fake-nccl-%d-%08x%08x", ::getpid(), random(), random());
    return kNcclSuccess;
}
NcclResult ncclCommInitRankConfig(void** out, int ranks, UniqueId id, int rank, Config* config) {
    if (config == nullptr || config->magic != nccl_backend::kMagic || config->size != sizeof(Config) || config->blocking < 0 ||
        config->blocking > 1 || ranks != 2 || rank < 0 || rank > 1) {
        return kInvalidArgument;
    }
    id.bytes[sizeof id.bytes - 1] = 0;
    if (std::strncmp(id.bytes, "pegaflow-fake-nccl-", 19) != 0) return kInvalidArgument;
    auto* comm = new Comm(id.bytes, rank, config->blocking != 0);
    *out = comm;
    return comm->settle();
}
NcclResult ncclCommGetAsyncError(void* comm, NcclResult* out) {
    const auto* asked = static_cast<Comm*>(comm);
    *out = asked->failed() ? kSystemError : (asked->in_progress() ? kNcclInProgress : kNcclSuccess);
    return kNcclSuccess;
}
NcclResult ncclCommAbort(void* comm) { return delete static_cast<Comm*>(comm), kNcclSuccess; }
NcclResult ncclGroupStart() { return ++group.depth, kNcclSuccess; }
NcclResult ncclGroupEnd() {
    if (group.depth == 0) return kNcclInvalidUsage;
    if (--group.depth != 0 || group.comm == nullptr) return kNcclSuccess;
    Comm* comm = group.comm;
    group.comm = nullptr;
    return comm->post(std::move(group.messages)) ? comm->settle() : kNcclInvalidUsage;
}
NcclResult ncclSend(const void* at, std::size_t count, int type, int peer, void* comm, void* stream) {
    return queue(const_cast<void*>(at), count, type, peer, comm, stream, true);
}
NcclResult ncclRecv(void* at, std::size_t count, int type, int peer, void* comm, void* stream) {
    return queue(at, count, type, peer, comm, stream, false);
}
const char* ncclGetErrorString(NcclResult result) { return result == kNcclSuccess ? "no error" : "an error of the fake NCCL"; }

}  // extern "C"
