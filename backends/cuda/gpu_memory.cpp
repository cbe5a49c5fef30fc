// SPDX-License-Identifier: Apache-2.0
#include "gpu_memory.hpp"

#include <cstring>
#include <map>
#include <mutex>

namespace cuda_backend {
namespace {

struct Entry {
    DevicePointer base = 0;
    bool ours = false;
    std::weak_ptr<GpuMemory> owner;
};

// Of the process, because handles are: one GPU's memory is imported by the device of another.
struct Table {
    std::mutex mutex;
    std::map<std::string, Entry> entries;  // guarded by mutex
};

Table& table() {
    static Table instance;
    return instance;
}

std::string key_of(const IpcHandle& handle) { return {handle.bytes, sizeof handle.bytes}; }

bool still_named(const Driver& driver, const IpcHandle& handle, DevicePointer base) {
    IpcHandle now{};
    return driver.cuIpcGetMemHandle(&now, base) == kSuccess && std::memcmp(now.bytes, handle.bytes, sizeof now.bytes) == 0;
}

}  // namespace

Result GpuMemory::allocate(const Driver& driver, Device device, std::uint64_t length, std::shared_ptr<GpuMemory>* out) {
    auto memory = std::make_shared<GpuMemory>();
    if (const Result result = driver.cuDevicePrimaryCtxRetain(&memory->context_, device); result != kSuccess) return result;
    memory->driver_ = &driver;
    memory->device_ = device;
    if (const Result result = driver.cuMemAlloc_v2(&memory->base_, length); result != kSuccess) {
        memory->base_ = 0;
        return result;
    }
    *out = std::move(memory);
    return kSuccess;
}

GpuMemory::~GpuMemory() {
    if (driver_ == nullptr) return;
    if (base_ != 0) {
        const Current current(*driver_, context_);
        driver_->cuMemFree_v2(base_);
    }
    driver_->cuDevicePrimaryCtxRelease_v2(device_);
}

void remember_export(const IpcHandle& handle, DevicePointer base, const std::shared_ptr<GpuMemory>& owner) {
    Table& exports = table();
    const std::lock_guard lock(exports.mutex);
    std::erase_if(exports.entries, [](const auto& entry) { return entry.second.ours && entry.second.owner.expired(); });
    exports.entries[key_of(handle)] = {base, owner != nullptr, owner};
}

bool find_export(const Driver& driver, const IpcHandle& handle, Export* out) {
    Entry entry;
    {
        Table& exports = table();
        const std::lock_guard lock(exports.mutex);
        const auto found = exports.entries.find(key_of(handle));
        if (found == exports.entries.end()) return false;
        entry = found->second;
    }
    out->owner = entry.owner.lock();
    if (entry.ours ? out->owner == nullptr : !still_named(driver, handle, entry.base)) return false;
    std::size_t size = 0;
    // Pointer attributes: cuMemGetAddressRange knows only the memory of the context that is current.
    if (driver.cuPointerGetAttribute(&out->base, kPointerRangeStart, entry.base) != kSuccess ||
        driver.cuPointerGetAttribute(&size, kPointerRangeSize, entry.base) != kSuccess ||
        driver.cuPointerGetAttribute(&out->ordinal, kPointerDeviceOrdinal, entry.base) != kSuccess) {
        return false;
    }
    out->size = size;
    return true;
}

}  // namespace cuda_backend
