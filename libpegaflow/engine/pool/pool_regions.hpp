// SPDX-License-Identifier: Apache-2.0
// pool_regions.hpp - the slices of the pool as regions of each device that moves blocks, registered one after the other.
//
// Registering pins memory and may take seconds a slice. A device can be used as soon as its first slice is registered; a thread
// of its own registers the others as the pool makes them ready.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/pool/pool.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::engine {

// The regions of one device.
class DeviceSlices {
public:
    DeviceSlices(Pool& pool, Device& device) : pool_(pool), device_(device), regions_(pool.slice_count()) {}

    // The region of a slice; offsets in it count from the slice's start. Registers it when that was not done yet, which takes
    // its time. What the device says when it cannot. [any]
    Result<const Region*> get(std::size_t slice);
    bool has(std::size_t slice) const noexcept { return regions_[slice].load(std::memory_order_acquire) != nullptr; }
    // True when a slice that is ready was tried and is registered now; false when none is left that could be. [any]
    bool get_next();
    // How many slices this device cannot reach: it refused to register them. [any]
    std::size_t failed() const noexcept { return failed_count_.load(std::memory_order_relaxed); }
    const Device& device() const noexcept { return device_; }

private:
    Pool& pool_;
    Device& device_;
    std::mutex mutex_;                                                   // held while a slice is registered
    std::vector<std::unique_ptr<Region>> registered_;                    // guarded by mutex_
    std::vector<bool> failed_ = std::vector<bool>(pool_.slice_count());  // guarded by mutex_
    std::vector<std::atomic<const Region*>> regions_;
    std::atomic<std::size_t> failed_count_{0};
};

class PoolRegions {
public:
    explicit PoolRegions(Pool& pool) : pool_(pool) {}
    ~PoolRegions() { close(); }

    // The regions of a device, with the first slice registered; valid until close. [any]
    Result<DeviceSlices*> open(Device& device);
    // Bytes of the pool that are ready and registered with every device opened so far. [any]
    std::uint64_t ready_bytes() const;
    // What keeps devices from reaching all of the pool, in words. [any]
    std::vector<std::string> problems() const;
    // Ends the background work and unregisters everything: nothing moves any more. Idempotent. [serial]
    void close();

private:
    std::size_t first_slice(const Device& device) const;
    void run();

    Pool& pool_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<Device*, std::unique_ptr<DeviceSlices>> devices_;  // guarded by mutex_; entries stay until close
    bool stop_ = false;                                         // guarded by mutex_
    std::thread background_;                                    // guarded by mutex_
};

}  // namespace pegaflow::engine
