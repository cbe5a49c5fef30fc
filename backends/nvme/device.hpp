// SPDX-License-Identifier: Apache-2.0
// device.hpp - the objects of the nvme back end: a device handle is one ring, moved by whoever polls.
//
// Submitters put batches into `incoming`; the poller cuts them into requests, hands those to the kernel, and reports ends. Two
// mutexes: `mutex` guards what submitters and the poller share, for moments; `poll_mutex` is held by the one thread that moves
// the ring. `poll_mutex` is taken first.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "batch.hpp"
#include "common/record_queue.hpp"
#include "file.hpp"
#include "operation.hpp"
#include "options.hpp"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/wait.h"
#include "ring.hpp"

namespace nvme_backend {

constexpr std::uint32_t kDefaultDepth = 64;
constexpr std::uint32_t kMaxBatches = 4096;
constexpr std::uint32_t kBounces = 32;
constexpr std::uint64_t kPage = 4096;

// Something that only the ring's thread may do to its tables.
struct TableChange {
    enum class Kind { kAddBuffer, kDropBuffer, kAddFile, kDropFile } kind;
    pega_region* region = nullptr;  // kAddBuffer
    int first = -1;                 // kDropBuffer
    std::uint64_t count = 0;        // kDropBuffer
    std::shared_ptr<File> file;     // keeps the file open until its slot is empty; the regions on it are the other owners
};

// A thread that polls: its address is no other's as long as a ring remembers it.
struct PollingThread {
    std::atomic<bool> ended{false};
};

}  // namespace nvme_backend

struct pega_region {
    pega_device* device = nullptr;
    std::uint32_t flags = 0;
    std::uint64_t length = 0;
    std::uint64_t in_flight = 0;  // guarded by the device's mutex: uses by batches

    // Host memory.
    std::uint8_t* base = nullptr;
    std::uint64_t owned = 0;  // bytes of the mapping at base that are ours; 0 = the caller's
    int buffer = -1;          // first slot in the ring's table of buffers; the poller's
    std::uint64_t slice_bytes = 0;

    // Files, in turns of stripe_bytes. Shared by the regions on the same path and by table changes under way.
    std::vector<std::shared_ptr<nvme_backend::File>> files;
    std::uint64_t file_offset = 0;
    std::uint64_t stripe_bytes = 0;
    bool carved = false;  // file_offset is a key of the device's `carved`

    bool is_file() const noexcept { return !files.empty(); }
    // Where byte `at` is; cuts fragment->length to what is consecutive in that file. [data]
    void locate(std::uint64_t at, nvme_backend::Fragment* fragment) const noexcept;
    ~pega_region();
};

struct pega_channel {
    pega_device* device = nullptr;
    // Guarded by the device's mutex:
    bool closed = false;
    std::uint32_t in_flight = 0;
    std::vector<std::unique_ptr<nvme_backend::Batch>> slots;
    std::vector<nvme_backend::Batch*> free;
};

struct pega_device {
    const pega_host* host = nullptr;
    nvme_backend::Options options;
    bool deferred = false;  // one thread polls
    int event_fd = -1;      // written by threads that want the poller
    int ring_fd = -1;       // written by the kernel while the poller sleeps on wait_fd
    int epoll_fd = -1;
    unsigned forks = 0;  // that this process had behind it when the device was opened

    std::mutex mutex;
    std::condition_variable idle;                         // a batch has ended
    std::vector<nvme_backend::Batch*> incoming;           // guarded by mutex
    bool sleeping = false;                                // guarded by mutex: event_fd wakes the poller
    std::vector<std::unique_ptr<pega_channel>> channels;  // guarded by mutex
    std::vector<std::unique_ptr<pega_region>> regions;    // guarded by mutex
    std::map<std::uint64_t, std::uint64_t> carved;        // guarded by mutex: offset and length of allocated pieces of a disk
    std::atomic<bool> look_at_cancels{false};
    std::atomic<bool> look_at_tables{false};
    std::atomic<bool> interrupted{false};

    std::mutex table_mutex;                                // held while a table change is made
    std::vector<nvme_backend::TableChange> table_changes;  // guarded by table_mutex
    bool registration_failed = false;                      // said once

    std::mutex poll_mutex;  // guards all that follows
    nvme_backend::Ring ring;
    std::shared_ptr<const nvme_backend::PollingThread> ring_thread;  // its other owner is the thread
    bool wake_armed = false;                                         // the ring watches event_fd
    std::vector<nvme_backend::Batch*> taken;
    std::vector<nvme_backend::Batch*> runnable[3];  // by priority, urgent last
    std::vector<nvme_backend::Batch*> active;       // all that were taken and have not ended
    std::vector<nvme_backend::Batch*> ended;        // reported, not yet given back
    std::vector<nvme_backend::Batch*> unsynced;     // landed, and no operation was free to flush its files: they get the next
    backend_common::RecordQueue records;
    std::unique_ptr<nvme_backend::Operation[]> operations;
    std::vector<nvme_backend::Operation*> free_operations;
    std::vector<nvme_backend::Operation*> again;  // to be handed in anew
    std::unique_ptr<nvme_backend::Bounce[]> bounces;
    std::vector<nvme_backend::Bounce*> free_bounces;
    std::set<std::pair<const nvme_backend::File*, std::uint64_t>> held_blocks;
    std::uint32_t taken_by[3] = {};  // operations that are not free, by the priority of their batch
    std::uint64_t in_kernel = 0;     // operations
    std::uint64_t bytes_moving = 0;  // of all operations
    bool stalled = false;            // something waits for an operation to end
    unsigned lot = 0;                // completions that are reported before their successors are handed in

    std::uint64_t now() const { return host->now_ns(host->context); }
    ~pega_device();
};

namespace nvme_backend {

extern const pega_region_table kRegionTable;
extern const pega_channel_table kChannelTable;
extern const pega_completion_table kCompletionTable;
extern const pega_ext_cancel kCancelTable;
extern const pega_ext_durable kDurableTable;
extern const pega_ext_wait kWaitTable;

// Device (device.cpp).
pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out);
void close_device(pega_device* device);
// Makes the poller look, when it sleeps. `mutex` is held.
void wake(pega_device& device) noexcept;
// True in a child of the process that opened the device: the ring's memory is the parent's, too, and not to be touched.
bool inherited(const pega_device& device) noexcept;

// The engine (pump.cpp). poll_mutex is held for all of them.
// Moves everything that can be moved; sleeps until `until_ns` (0 = not at all, kNoTimeout = for ever) when there is nothing to
// report. False when this thread may not move the ring.
bool pump(pega_device& device, std::uint64_t until_ns);
// True when only polling finds out what has ended.
bool must_poll(const pega_device& device) noexcept;

// Requests (feed.cpp).
// Cuts runnable batches into operations while there is room.
void feed(pega_device& device);
// The next free operation, for this batch. There must be one.
Operation& take_operation(pega_device& device, Batch& batch) noexcept;
// Frees what an operation holds.
void release(pega_device& device, Operation& operation);

// Submission and completion of operations (issue.cpp).
// Begins a new operation, whose phase is kDirect, kRead, kFillHead (of a write by bounce) or kFlush.
void start(pega_device& device, Operation& operation);
// Hands the rest of the operation's phase to the ring, or puts it among those for later.
void issue(pega_device& device, Operation& operation);
// Issues what could not be issued before, or ends it when its batch has failed meanwhile.
void retry(pega_device& device, Operation& operation);
// Ends what could not be handed in, for this reason.
void refuse(pega_device& device, Operation& operation, int error);
// Asks the kernel to end it early.
void cancel(pega_device& device, Operation& operation);
// The kernel is done with it.
void complete(pega_device& device, Operation& operation, std::int32_t result);

// Ends (end.cpp).
// Looks whether a batch is over: syncs it when it asks for that, else reports it.
void settle(pega_device& device, Batch& batch);
void report_mark(pega_device& device, const Batch& batch);
void give_up(pega_device& device, Batch& batch, std::int32_t status, std::int32_t native);

// Tables of the ring (table.cpp).
void change_tables(pega_device& device);
void forget_tables(pega_device& device);

}  // namespace nvme_backend
