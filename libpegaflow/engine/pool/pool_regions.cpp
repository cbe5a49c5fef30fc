// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/pool_regions.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/log.hpp"
#include "base/thread.hpp"
#include "pegaflow/bytes.hpp"

namespace pegaflow::engine {
namespace {

constexpr auto kLookInterval = std::chrono::milliseconds(20);  // for slices that became ready

}  // namespace

Result<const Region*> DeviceSlices::get(std::size_t slice) {
    if (const Region* region = regions_[slice].load(std::memory_order_acquire)) return region;
    const std::lock_guard lock(mutex_);
    if (const Region* region = regions_[slice].load(std::memory_order_acquire)) return region;
    const Pool::Slice& place = pool_.slice(slice);
    auto region = device_.register_address(pool_.base() + place.offset, place.length);
    if (!region) {
        if (!failed_[slice]) {
            base::log_error("engine", "{} cannot register {} of the pool at offset {}: {}", device_.info().name,
                            format_size(place.length), place.offset, region.error().message);
        }
        if (!failed_[slice]) ++failed_count_;
        failed_[slice] = true;
        return fail(std::move(region).error());
    }
    registered_.push_back(std::make_unique<Region>(std::move(*region)));
    regions_[slice].store(registered_.back().get(), std::memory_order_release);
    return registered_.back().get();
}

bool DeviceSlices::get_next() {
    for (std::size_t slice = 0; slice < regions_.size(); ++slice) {
        if (has(slice) || !pool_.slice(slice).ready.load(std::memory_order_acquire)) continue;
        {
            const std::lock_guard lock(mutex_);
            if (failed_[slice]) continue;
        }
        if (get(slice)) return true;
    }
    return false;
}

std::size_t PoolRegions::first_slice(const Device& device) const {
    for (std::size_t slice = 0; slice < pool_.slice_count(); ++slice) {
        const bool near = pool_.slice(slice).node == device.info().numa_node;
        if (near && pool_.slice(slice).ready.load(std::memory_order_acquire)) return slice;
    }
    return 0;
}

Result<DeviceSlices*> PoolRegions::open(Device& device) {
    DeviceSlices* slices = nullptr;
    {
        const std::lock_guard lock(mutex_);
        if (stop_) return fail(Code::kCanceled, "the engine is closing");
        auto& entry = devices_[&device];
        if (!entry) entry = std::make_unique<DeviceSlices>(pool_, device);
        slices = entry.get();
    }
    PEGA_TRY(slices->get(first_slice(device)));
    const std::lock_guard lock(mutex_);
    if (pool_.slice_count() > 1 && !background_.joinable() && !stop_) {
        PEGA_ASSIGN(background_, base::start_thread([this] { run(); }));
    }
    changed_.notify_all();
    return slices;
}

void PoolRegions::run() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        std::vector<DeviceSlices*> devices;
        for (const auto& [device, slices] : devices_) devices.push_back(slices.get());
        lock.unlock();
        bool more = false;
        for (DeviceSlices* slices : devices) more |= slices->get_next();
        lock.lock();
        if (!more) changed_.wait_for(lock, kLookInterval, [this] { return stop_; });
    }
}

std::uint64_t PoolRegions::ready_bytes() const {
    const std::lock_guard lock(mutex_);
    std::uint64_t bytes = 0;
    for (std::size_t slice = 0; slice < pool_.slice_count(); ++slice) {
        const bool ready = pool_.slice(slice).ready.load(std::memory_order_acquire) &&
                           std::all_of(devices_.begin(), devices_.end(), [&](const auto& d) { return d.second->has(slice); });
        bytes += ready ? pool_.slice(slice).length : 0;
    }
    return bytes;
}

std::vector<std::string> PoolRegions::problems() const {
    std::vector<std::string> out;
    if (pool_.incomplete()) {
        out.push_back(fmt::format("the system had no memory for all of the pool: it stays at {} of {}",
                                  format_size(pool_.ready_bytes()), format_size(pool_.capacity())));
    }
    const std::lock_guard lock(mutex_);
    for (const auto& [device, slices] : devices_) {
        if (slices->failed() == 0) continue;
        out.push_back(fmt::format("{} does not reach {} of {} slices of the pool: they could not be registered with it",
                                  slices->device().info().name, slices->failed(), pool_.slice_count()));
    }
    return out;
}

void PoolRegions::close() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        changed_.notify_all();
    }
    if (background_.joinable()) background_.join();
    devices_.clear();
}

}  // namespace pegaflow::engine
