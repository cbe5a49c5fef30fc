// SPDX-License-Identifier: Apache-2.0
// device.hpp - the objects of the cuda back end: one device a GPU, a pair of streams a channel, everything moved by poll.
//
// One mutex of the device guards its channels and batches; it is held while copies are queued, never while one is waited for.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "common/mailbox.hpp"
#include "common/record_queue.hpp"
#include "common/shared_object.hpp"
#include "copier.hpp"
#include "driver.hpp"
#include "gpu_memory.hpp"
#include "host_memory.hpp"
#include "pegaflow/abi/ext/calibration.h"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/digest.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/backend.hpp"

namespace cuda_backend {

struct Batch;

// An allocation of another process, opened once however often it is registered.
struct OpenHandle {
    DevicePointer base = 0;
    std::uint64_t size = 0;
    std::uint64_t users = 0;
};

}  // namespace cuda_backend

struct pega_region {
    pega_device* device = nullptr;
    std::uint32_t kind = PEGA_MEMORY_GPU;
    std::uint32_t flags = 0;
    cuda_backend::DevicePointer base = 0;  // as the GPU addresses it, host memory too
    std::uint64_t length = 0;
    std::shared_ptr<cuda_backend::GpuMemory> memory;  // ours; shared with regions of this process that imported it
    bool imported = false;                            // GPU memory of another process or of another region
    std::string ipc_handle;                           // of an opened allocation
    void* host_address = nullptr;                     // of host memory
    cuda_backend::HostMemory host_allocated;          // pinned host memory that is ours
    backend_common::SharedObject shared;              // host memory that other processes map too
    void* host_registered = nullptr;                  // host memory that we pinned
    std::atomic<std::uint64_t> in_flight{0};
};

struct pega_event {
    pega_device* device = nullptr;
    cuda_backend::Event event = nullptr;
    bool owned = true;
};

struct pega_channel {
    pega_device* device = nullptr;
    std::uint32_t depth = 0;
    cuda_backend::Copier copier;  // queues under the device's mutex
    backend_common::Peer peer;    // where values go
    // Guarded by the device's mutex:
    bool closed = false;
    std::uint32_t in_flight = 0;
    std::vector<cuda_backend::Batch*> waiting;  // for their events, in order of submission; nothing of them has begun
    std::deque<cuda_backend::Batch*> queue;     // have begun; the stream runs them in this order
    std::vector<std::unique_ptr<cuda_backend::Batch>> slots;
    std::vector<cuda_backend::Batch*> free;
};

struct pega_device {
    const pega_host* host = nullptr;
    const cuda_backend::Driver* driver = nullptr;
    int index = 0;
    cuda_backend::Device device = 0;
    cuda_backend::Context context = nullptr;
    backend_common::Mailbox mailbox;
    // Set when the device is opened, then only read:
    cuda_backend::Settings settings;
    cuda_backend::Kernels kernels;
    cuda_backend::PathTable table;

    std::mutex mutex;
    std::vector<std::unique_ptr<pega_channel>> channels;     // guarded by mutex
    std::vector<std::unique_ptr<pega_region>> regions;       // guarded by mutex
    cuda_backend::Contention contention;                     // but for `crowded` guarded by mutex
    backend_common::RecordQueue completions;                 // guarded by mutex
    std::vector<cuda_backend::Event> spare_events;           // guarded by mutex
    std::map<std::string, cuda_backend::OpenHandle> opened;  // guarded by mutex
    std::set<cuda_backend::Device> peers;                    // GPUs whose contexts are kept for peer access; guarded by mutex

    // What one kernel may take now, so that those that run beside each other keep to the limit in sum. The mutex is held.
    unsigned multiprocessors(const cuda_backend::Plan& plan) const noexcept;
    cuda_backend::Event take_event();  // the mutex is held, the context current; null when there is none to be had
};

namespace cuda_backend {

extern const pega_region_table kRegionTable;
extern const pega_channel_table kChannelTable;
extern const pega_completion_table kCompletionTable;
extern const pega_ext_cancel kCancelTable;
extern const pega_ext_notify kNotifyTable;
extern const pega_ext_stream kStreamTable;
extern const pega_ext_calibration kCalibrationTable;

constexpr const char* kVersion = "1.10";

pega_status to_status(Result result) noexcept;
std::string uuid_text(const Uuid& uuid);
pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out);
void close_device(pega_device* device);
// Queues at most `steps` parts of each of the channel's batches and reports those that have ended. The mutex is held, the
// context current.
void advance(pega_device& device, pega_channel& channel, int steps);
// Lets go of what a region holds. The mutex is held, the context current.
void release(pega_device& device, pega_region& region);

}  // namespace cuda_backend
