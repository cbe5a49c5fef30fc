// SPDX-License-Identifier: Apache-2.0
// device.hpp - the objects of the nccl back end: one device a GPU, one link a channel or a peer's channel, all moved by poll.
//
// One mutex of the device guards everything below it; it is held while work is queued, never while any is waited for. Only
// `poll` (and a channel's close) makes progress; the back end starts no thread of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../cuda/driver.hpp"
#include "../cuda/kernels.hpp"
#include "nccl_api.hpp"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/backend.hpp"
#include "settings.hpp"
#include "wire.hpp"

namespace nccl_backend {

using cuda_backend::Current;
using cuda_backend::DevicePointer;
using CudaResult = cuda_backend::Result;

struct Batch;
class Link;
class Connection;

// A connection that has not yet shown the token.
struct Visitor {
    std::unique_ptr<Connection> connection;
    std::uint64_t since_ns = 0;
};

}  // namespace nccl_backend

struct pega_region {
    pega_device* device = nullptr;
    std::uint32_t kind = PEGA_MEMORY_GPU;
    std::uint32_t flags = 0;
    std::uint64_t length = 0;
    nccl_backend::DevicePointer base = 0;  // as the GPU addresses it, host memory too; 0 when imported
    // Of memory here:
    nccl_backend::DevicePointer allocated = 0;
    void* host_address = nullptr;
    void* host_allocated = nullptr;
    void* host_registered = nullptr;
    std::uint64_t key = 0, generation = 0;
    bool exported = false;  // peers may name it; guarded by the device's mutex
    // Of a peer's memory: `key` and `generation` are the owner's.
    bool imported = false;
    nccl_backend::Id owner{};
    std::atomic<std::uint64_t> in_flight{0};
};

struct pega_event {
    pega_device* device = nullptr;
    cuda_backend::Event event = nullptr;
    bool owned = true;
};

struct pega_channel {
    pega_device* device = nullptr;
    // Guarded by the device's mutex:
    nccl_backend::Link* link = nullptr;
    bool closed = false;
    std::deque<nccl_backend::Batch*> queue;  // accepted and not ended, in order of submission
    std::vector<std::unique_ptr<nccl_backend::Batch>> slots;
    std::vector<nccl_backend::Batch*> free;

    ~pega_channel();
};

struct pega_device {
    const pega_host* host = nullptr;
    const cuda_backend::Driver* driver = nullptr;
    const nccl_backend::Nccl* nccl = nullptr;
    int index = 0;
    cuda_backend::Device device = 0;
    cuda_backend::Context context = nullptr;
    nccl_backend::Settings settings;
    cuda_backend::Kernels kernels;
    nccl_backend::Address address{};  // of this device
    int epoll_fd = -1, listen_fd = -1;

    std::mutex mutex;
    std::vector<std::unique_ptr<nccl_backend::Link>> links;  // guarded by mutex, with all below
    std::vector<std::unique_ptr<pega_channel>> channels;
    std::unordered_map<std::uint64_t, std::unique_ptr<pega_region>> regions;  // here, by key
    std::vector<std::unique_ptr<pega_region>> imported;
    std::deque<nccl_backend::Visitor> visitors;
    std::deque<pega_completion> completions;
    std::unordered_map<std::uint32_t, std::uint64_t> arrived;  // notifications
    std::uint64_t next_key = 1;
    bool closing = false;

    pega_device();
    ~pega_device();
    std::uint64_t now() const { return host->now_ns(host->context); }
};

namespace nccl_backend {

extern const pega_region_table kRegionTable;
extern const pega_channel_table kChannelTable;
extern const pega_completion_table kCompletionTable;
extern const pega_ext_cancel kCancelTable;
extern const pega_ext_notify kNotifyTable;
extern const pega_ext_stream kStreamTable;

constexpr const char* kVersion = "1.0";
constexpr std::int32_t kNativeNccl = 100'000;  // added to an ncclResult_t; below are values of CUDA

pega_status to_status(CudaResult result) noexcept;
pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out);
void close_device(pega_device* device);

// Everything that can move does. The mutex is held, the context current.
void progress(pega_device& device);
// Takes in peers that connect, and turns those with the token into links. The mutex is held, the context current.
void serve_visitors(pega_device& device);

// A region here that peers may name: range and rights are checked. OK, INVALID, REGION_LOST. The mutex is held.
pega_status find_region(pega_device& device, std::uint64_t key, std::uint64_t generation, std::uint64_t offset,
                        std::uint64_t length, bool written, pega_region*& out) noexcept;

}  // namespace nccl_backend
