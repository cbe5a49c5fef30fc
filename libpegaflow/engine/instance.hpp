// SPDX-License-Identifier: Apache-2.0
// instance.hpp - one serving replica: its workers, their memory, and the layout that follows when all have come.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/gate.hpp"
#include "engine/block/layout.hpp"
#include "engine/lane.hpp"
#include "engine/pool/pool_regions.hpp"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::engine {

// A layer of a worker: where its bytes are.
struct WorkerLayer {
    LayerGeometry geometry;
    std::shared_ptr<Region> region;  // shared by the layers that lie in the same memory
    std::uint64_t base = 0;          // of block 0, from the region's start
};

class Worker {
public:
    // Opens the worker's memory and two lanes on its device. `pool` are the pool's regions on the same device and outlive it.
    static Result<std::unique_ptr<Worker>> open(const WorkerRegistration& registration, Device& device, DeviceSlices& pool,
                                                std::uint32_t max_queued);
    ~Worker() { close(); }

    const WorkerRegistration& registration() const noexcept { return registration_; }
    Device& device() const noexcept { return device_; }
    DeviceSlices& pool() const noexcept { return pool_; }
    const WorkerLayer* layer(std::string_view name) const;
    std::uint64_t region_bytes() const;
    // Enters for the time of one save or load. Empty when the worker is closing. [any]
    base::Gate::Pass enter() noexcept { return gate_.enter(); }
    Lane& saves() noexcept { return *saves_; }
    Lane& loads() noexcept { return *loads_; }
    // The event that these bytes name, opened once. kUnsupported, kCorrupt, kRegionLost. [any]
    Result<pega_event*> event(std::string_view exported);
    // Refuses new work from now on. [any]
    void refuse() noexcept { gate_.close(); }
    // True when no save or load is inside, at `deadline` at the latest; call after refuse. [any]
    bool wait_idle(std::chrono::steady_clock::time_point deadline) { return gate_.wait_empty_until(deadline); }
    // Refuses new work, waits for what runs, lets go of memory and channels. Idempotent. [serial]
    void close();

private:
    Worker(const WorkerRegistration& registration, Device& device, DeviceSlices& pool)
        : registration_(registration), device_(device), pool_(pool) {}
    Result<void> open_layers();

    WorkerRegistration registration_;
    Device& device_;
    DeviceSlices& pool_;
    std::map<std::string, WorkerLayer, std::less<>> layers_;
    std::unique_ptr<Lane> saves_, loads_;
    base::Gate gate_;
    std::mutex events_mutex_;
    std::map<std::string, pega_event*, std::less<>> events_;  // guarded by events_mutex_
};

// Registration changes under the mutex; after sealing, layout and workers do not change any more.
struct Instance {
    std::uint64_t number = 0;  // of the engine's instances, also of those that are gone
    std::string id;
    std::string name_space;
    std::uint32_t tp_size = 0;
    std::uint32_t world_size = 0;
    bool page_first = false;
    std::string dtype;

    mutable std::mutex mutex;
    std::map<std::int32_t, std::unique_ptr<Worker>> workers;  // guarded by mutex until sealed
    Layout layout;                                            // set before sealed
    std::uint64_t scope = 0;                                  // likewise
    std::atomic<bool> sealed{false};
    bool closed = false;  // guarded by mutex

    // What there is to tell of it, without waiting for a worker that is being opened or closed.
    InstanceInfo info() const {
        const std::lock_guard lock(info_mutex_);
        return info_;
    }
    void publish();  // after a change; `mutex` is held

    // The worker of a device once the instance has sealed. kInvalid, kNotFound. [any]
    Result<Worker*> worker(std::int32_t device_id) const;

private:
    mutable std::mutex info_mutex_;
    InstanceInfo info_;  // guarded by info_mutex_
};

}  // namespace pegaflow::engine
