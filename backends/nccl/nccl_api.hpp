// SPDX-License-Identifier: Apache-2.0
// nccl_api.hpp - the functions of libnccl that this back end calls, resolved at run time; no NCCL header is needed to build it.
//
// Types and values are those of NCCL's public C API; the configuration is its form of 2.18, which later versions take by its
// `size` and `version`.
#pragma once

#include <climits>
#include <cstddef>
#include <string>

namespace nccl_backend {

using NcclResult = int;  // ncclResult_t
using Comm = void*;      // ncclComm_t

constexpr NcclResult kNcclSuccess = 0;
constexpr NcclResult kNcclInvalidUsage = 5;
constexpr NcclResult kNcclInProgress = 7;
constexpr int kNcclUint8 = 1;                // ncclUint8
constexpr int kLeastVersion = 21800;         // 2.18: configurations with limits, communicators that do not block
constexpr int kUndefined = INT_MIN;          // NCCL_CONFIG_UNDEF_INT
constexpr unsigned kMagic = 0xcafebeefU;     // of a configuration
constexpr std::size_t kUniqueIdBytes = 128;  // NCCL_UNIQUE_ID_BYTES

struct UniqueId {  // ncclUniqueId
    char bytes[kUniqueIdBytes];
};

struct Config {  // ncclConfig_t
    std::size_t size = sizeof(Config);
    unsigned magic = kMagic;
    unsigned version = kLeastVersion;
    int blocking = 0;
    int cga_cluster_size = kUndefined;
    int min_ctas = kUndefined;
    int max_ctas = kUndefined;
    const char* net_name = nullptr;
    int split_share = kUndefined;
    int unused = kUndefined;  // where later versions have a member, which they leave alone for this one
};

struct Nccl {
    NcclResult (*ncclGetVersion)(int*) = nullptr;
    NcclResult (*ncclGetUniqueId)(UniqueId*) = nullptr;
    NcclResult (*ncclCommInitRankConfig)(Comm*, int ranks, UniqueId, int rank, Config*) = nullptr;
    NcclResult (*ncclCommGetAsyncError)(Comm, NcclResult*) = nullptr;
    NcclResult (*ncclCommAbort)(Comm) = nullptr;
    NcclResult (*ncclGroupStart)() = nullptr;
    NcclResult (*ncclGroupEnd)() = nullptr;
    NcclResult (*ncclSend)(const void*, std::size_t count, int type, int peer, Comm, void* stream) = nullptr;
    NcclResult (*ncclRecv)(void*, std::size_t count, int type, int peer, Comm, void* stream) = nullptr;
    const char* (*ncclGetErrorString)(NcclResult) = nullptr;
    int version = 0;  // 22809 = 2.28.9

    // The process's library, opened once and kept; null with the reason when there is none that can be used. PEGAFLOW_LIBNCCL
    // names another file. [any]
    static const Nccl* get(std::string* why);
};

}  // namespace nccl_backend
