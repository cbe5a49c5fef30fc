// SPDX-License-Identifier: Apache-2.0
// device.hpp - the objects of the host back end and how they belong together.
//
// One mutex of the device guards scheduling: which batches there are, what of them is claimed, and the completion queue. Bytes
// are copied by worker threads with the mutex released, a chunk at a time, so that it is held for nanoseconds a chunk.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/mailbox.hpp"
#include "common/record_queue.hpp"
#include "common/shared_object.hpp"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/digest.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/backend.hpp"

namespace host_backend {

struct Batch;
using backend_common::SharedObject;

constexpr std::uint32_t kRegionType = 1;  // SharedObject types
constexpr std::uint32_t kEventType = 2;
constexpr std::uint32_t kDefaultDepth = 64;
constexpr std::uint32_t kMaxDepth = 4096;
constexpr std::uint32_t kMaxThreads = 64;

}  // namespace host_backend

struct pega_region {
    pega_device* device = nullptr;
    std::uint32_t flags = 0;
    std::uint8_t* base = nullptr;
    std::uint64_t length = 0;
    host_backend::SharedObject shared;        // SHM, ALLOCATE with SHARED, imported
    void* owned = nullptr;                    // ALLOCATE: a private mapping
    std::atomic<std::uint64_t> in_flight{0};  // batches that use it
};

struct pega_event {
    pega_device* device = nullptr;
    host_backend::SharedObject shared;
    std::atomic<std::uint32_t>* word = nullptr;  // 0 pending, 1 happened
};

struct pega_channel {
    pega_device* device = nullptr;
    backend_common::Peer peer;
    // Guarded by the device's mutex:
    bool closed = false;
    std::uint32_t in_flight = 0;
    std::vector<std::unique_ptr<host_backend::Batch>> slots;
    std::vector<host_backend::Batch*> free;
};

struct pega_device {
    const pega_host* host = nullptr;
    std::uint32_t thread_count = 1;

    std::mutex mutex;
    std::condition_variable work;  // for workers
    std::condition_variable idle;  // for close: a batch has ended
    bool stop = false;
    bool armed = false;
    std::vector<host_backend::Batch*> runnable[3];  // by priority, urgent last; a vector keeps its memory, a list would not
    std::vector<host_backend::Batch*> parked;       // wait for an event or for room in a peer's socket
    backend_common::RecordQueue completions;
    std::vector<std::unique_ptr<pega_channel>> channels;
    std::vector<std::unique_ptr<pega_region>> regions;

    backend_common::Mailbox mailbox;
    int event_fd = -1;
    std::vector<std::thread> threads;

    ~pega_device();
};

namespace host_backend {

extern const pega_region_table kRegionTable;
extern const pega_channel_table kChannelTable;
extern const pega_completion_table kCompletionTable;
extern const pega_ext_cancel kCancelTable;
extern const pega_ext_notify kNotifyTable;
extern const pega_ext_stream kStreamTable;

// Device (device.cpp).
pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out);
void close_device(pega_device* device);

// Executor (executor.cpp).
bool start_workers(pega_device* device);  // false when the system has no thread to give
void stop_workers(pega_device* device);
// Makes a batch runnable or parks it. The mutex is held.
void schedule(pega_device& device, Batch& batch);
// Ends a batch early as far as it has not started. The mutex is held.
void cancel_batch(pega_device& device, Batch& batch, int native_code);

}  // namespace host_backend
