// SPDX-License-Identifier: Apache-2.0
// device.hpp - an open device: its tables, its batches in flight, and the thread that polls it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/thread.hpp"
#include "core/plugin/entry_check.hpp"
#include "core/transport/transfer.hpp"
#include "pegaflow/abi/ext/wait.h"
#include "pegaflow/transfer.hpp"

namespace pegaflow::core {

// Which batch a completion belongs to. Slots are reused with a new generation, so that a back end that reports a batch twice,
// or one that never was, is noticed instead of ending a stranger's batch.
class InFlightTable {
public:
    struct Entry {
        Transfer::Impl* transfer = nullptr;
        std::shared_ptr<Completion::State> state;
        std::atomic<std::uint64_t>* channel_count = nullptr;
    };

    // Stores the entry and returns the user_data that names it. Allocates only when more batches are in flight than ever
    // before.
    std::uint64_t insert(Entry entry);
    // Removes and returns the entry; an empty one for a name that is not in flight.
    Entry take(std::uint64_t user_data);
    // The transfer of a batch in flight, or null.
    Transfer::Impl* find(std::uint64_t user_data);
    // Has the memory fetched that the ends of these batches touch. After a pause the caches hold nothing of it.
    void fetch_ahead(std::span<const pega_completion> records);

private:
    struct Slot {
        Entry entry;
        std::uint32_t generation = 1;
        bool used = false;
    };
    Slot* slot_of(std::uint64_t user_data);

    base::AdaptiveMutex mutex_;
    std::vector<Slot> slots_;          // guarded by mutex_
    std::vector<std::uint32_t> free_;  // guarded by mutex_
};

class OpenDevice final : public Device {
public:
    // Opens the device and starts its progress thread. `host` and the module outlive it.
    static Result<std::unique_ptr<OpenDevice>> open(const pega_host* host, const BackendTables& tables, DeviceInfo info,
                                                    const std::vector<pega_option>& options);
    ~OpenDevice() override;

    const DeviceInfo& info() const noexcept override { return info_; }
    const pega_capabilities& capabilities() const noexcept override { return capabilities_; }
    Result<Region> register_memory(const pega_memory& memory) override;
    Result<Region> import_region(std::span<const std::byte> descriptor) override;
    Result<std::vector<std::byte>> address() const override;
    Result<Channel> open_channel(std::span<const std::byte> address, std::uint32_t queue_depth) override;
    const void* extension(const char* id) const noexcept override;
    pega_device* handle() const noexcept override { return handle_; }
    Result<void> wait_notify(std::uint32_t value, std::uint64_t count, std::chrono::nanoseconds timeout) override;
    DeviceHealth health() const override;

    const BackendTables& tables() const noexcept { return tables_; }
    InFlightTable& in_flight() noexcept { return in_flight_; }
    // Tells the progress thread that a batch was accepted. [data]
    void batch_accepted() noexcept;
    // Takes back the announcement of a batch that was refused. [data]
    void batch_refused() noexcept { pending_.fetch_sub(1, std::memory_order_acq_rel); }
    // Waits until some completion or notification was handled after `seen`, or until `deadline`. Returns the new count. [any]
    std::uint64_t wait_progress(std::uint64_t seen, std::chrono::steady_clock::time_point deadline);
    std::uint64_t progress_count() const noexcept { return progress_.load(std::memory_order_acquire); }
    // True on the thread that polls, where waiting for progress would wait for itself. [any]
    bool on_progress_thread() const noexcept { return std::this_thread::get_id() == thread_.get_id(); }
    bool busy() const noexcept { return pending_.load(std::memory_order_acquire) != 0; }
    // An Error for a status of this back end. [any]
    Error error(pega_status status, std::string_view what, std::string_view reason = {}) const;

private:
    OpenDevice(const BackendTables& tables, DeviceInfo info) : tables_(tables), info_(std::move(info)) {}
    void run();
    void run_waiting();
    void run_polling();
    void take(const std::vector<pega_completion>& records, std::uint32_t count);
    bool poll_once(std::vector<pega_completion>& records);
    void dispatch(const pega_completion& record);
    void sleep();
    void note_progress();

    BackendTables tables_;
    DeviceInfo info_;
    pega_capabilities capabilities_{};
    pega_device* handle_ = nullptr;
    const pega_ext_wait* wait_ = nullptr;  // null = polling and sleeping are two calls
    InFlightTable in_flight_;
    std::atomic<std::uint64_t> pending_{0};  // batches announced and not yet ended
    std::atomic<std::uint64_t> progress_{0};
    std::atomic<std::uint64_t> failures_in_row_{0};
    base::Heartbeat heartbeat_;  // of the progress thread
    std::atomic<std::uint32_t> progress_waiters_{0};
    std::atomic<std::uint32_t> notify_waiters_{0};
    std::mutex progress_mutex_;
    std::condition_variable progress_changed_;
    std::atomic<bool> sleeping_{false};
    std::atomic<bool> stop_{false};
    int wake_fd_ = -1;
    std::thread thread_;
};

}  // namespace pegaflow::core

namespace pegaflow {

struct Region::Impl {
    core::OpenDevice* device = nullptr;
    pega_region* handle = nullptr;
    pega_region_info info{};
    ~Impl();
};

struct Channel::Impl {
    core::OpenDevice* device = nullptr;
    pega_channel* handle = nullptr;
    std::atomic<std::uint64_t> in_flight{0};
    ~Impl();
};

}  // namespace pegaflow
