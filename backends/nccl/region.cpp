// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "device.hpp"

namespace nccl_backend {
namespace {

using cuda_backend::kSuccess;

pega_status take_gpu(const pega_device& device, pega_region& region, const pega_memory& memory) {
    const cuda_backend::Driver& driver = *device.driver;
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        const CudaResult result = driver.cuMemAlloc_v2(&region.allocated, region.length);
        if (result != kSuccess) region.allocated = 0;
        region.base = region.allocated;
        return to_status(result);
    }
    if (memory.source != PEGA_SOURCE_ADDRESS) return PEGA_UNSUPPORTED;
    // First and last byte: memory that was mapped in pieces is one range to its owner, but not to the driver.
    region.base = reinterpret_cast<DevicePointer>(memory.address);
    for (const DevicePointer at : {region.base, region.base + region.length - 1}) {
        int ordinal = -1;
        const CudaResult result = driver.cuPointerGetAttribute(&ordinal, cuda_backend::kPointerDeviceOrdinal, at);
        if (result != kSuccess || ordinal != device.index) return PEGA_INVALID;
    }
    return PEGA_OK;
}

pega_status take_host(const pega_device& device, pega_region& region, const pega_memory& memory) {
    const cuda_backend::Driver& driver = *device.driver;
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        const CudaResult result = driver.cuMemHostAlloc(&region.host_allocated, region.length, cuda_backend::kHostPortable);
        if (result != kSuccess) region.host_allocated = nullptr;
        region.host_address = region.host_allocated;
        if (result != kSuccess) return to_status(result);
    } else if (memory.source == PEGA_SOURCE_ADDRESS) {
        if (memory.address == nullptr) return PEGA_INVALID;
        const CudaResult result = driver.cuMemHostRegister_v2(memory.address, region.length, cuda_backend::kHostPortable);
        if (result == kSuccess) region.host_registered = memory.address;
        if (result != kSuccess && result != cuda_backend::kHostMemoryAlreadyRegistered) return to_status(result);
        region.host_address = memory.address;
    } else {
        return PEGA_UNSUPPORTED;
    }
    return to_status(driver.cuMemHostGetDevicePointer_v2(&region.base, region.host_address, 0));
}

void release(const pega_device& device, pega_region& region) {
    const cuda_backend::Driver& driver = *device.driver;
    if (region.allocated != 0) driver.cuMemFree_v2(region.allocated);
    if (region.host_allocated != nullptr) driver.cuMemFreeHost(region.host_allocated);
    if (region.host_registered != nullptr) driver.cuMemHostUnregister(region.host_registered);
}

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || memory == nullptr || out == nullptr || !pegaflow::backend::whole(*memory) || memory->length == 0)
        return PEGA_INVALID;
    if (memory->kind != PEGA_MEMORY_GPU && memory->kind != PEGA_MEMORY_HOST) return PEGA_UNSUPPORTED;
    auto region = std::make_unique<pega_region>();
    region->device = device;
    region->kind = memory->kind;
    region->flags = memory->flags;
    region->length = memory->length;
    const Current current(*device->driver, device->context);
    const pega_status status =
        memory->kind == PEGA_MEMORY_HOST ? take_host(*device, *region, *memory) : take_gpu(*device, *region, *memory);
    if (status != PEGA_OK) {
        release(*device, *region);
        return status;
    }
    const Id random = random_id();
    std::memcpy(&region->generation, random.data(), sizeof region->generation);
    const std::lock_guard lock(device->mutex);
    region->key = device->next_key++;
    *out = region.get();
    device->regions.emplace(region->key, std::move(region));
    return PEGA_OK;
}

pega_status unregister(pega_region* region) {
    if (region == nullptr) return PEGA_INVALID;
    pega_device& device = *region->device;
    std::unique_ptr<pega_region> own;
    {
        const std::lock_guard lock(device.mutex);
        if (region->in_flight.load(std::memory_order_acquire) != 0) return PEGA_INVALID;
        if (region->imported) {
            std::erase_if(device.imported, [&](const auto& r) { return r.get() == region; });
            return PEGA_OK;
        }
        const auto it = device.regions.find(region->key);
        own = std::move(it->second);
        device.regions.erase(it);
    }
    const Current current(*device.driver, device.context);
    release(device, *own);
    return PEGA_OK;
}

pega_status info(pega_region* region, pega_region_info* out) {
    if (region == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region_info info{};
    info.size = out->size;
    info.kind = region->imported ? PEGA_MEMORY_REMOTE : region->kind;
    info.length = region->length;
    info.address = region->kind == PEGA_MEMORY_HOST ? region->host_address : reinterpret_cast<void*>(region->base);
    pegaflow::backend::copy_out(out, info);
    return PEGA_OK;
}

pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (region == nullptr || length == nullptr || (bytes == nullptr && capacity != 0)) return PEGA_INVALID;
    if (region->imported) return PEGA_UNSUPPORTED;
    *length = sizeof(Descriptor);
    if (capacity < sizeof(Descriptor)) return PEGA_NO_MEMORY;
    pega_device& device = *region->device;
    const Bytes encoded = encode(
        Descriptor{{}, device.address.device, region->key, region->generation, region->length, region->kind, region->flags, 0});
    const std::lock_guard lock(device.mutex);
    region->exported = true;
    std::memcpy(bytes, encoded.data(), encoded.size());
    return PEGA_OK;
}

pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    Descriptor descriptor{};
    if (const pega_status status = read_descriptor(bytes, length, descriptor); status != PEGA_OK) return status;
    auto region = std::make_unique<pega_region>();
    region->device = device;
    region->imported = true;
    region->owner = descriptor.device;
    region->key = descriptor.key;
    region->generation = descriptor.generation;
    region->length = descriptor.length;
    region->kind = descriptor.kind;
    region->flags = descriptor.flags;
    const std::lock_guard lock(device->mutex);
    *out = region.get();
    device->imported.push_back(std::move(region));
    return PEGA_OK;
}

}  // namespace

pega_status find_region(pega_device& device, std::uint64_t key, std::uint64_t generation, std::uint64_t offset,
                        std::uint64_t length, bool written, pega_region*& out) noexcept {
    const auto it = device.regions.find(key);
    if (it == device.regions.end() || it->second->generation != generation || !it->second->exported) return PEGA_REGION_LOST;
    out = it->second.get();
    if (!pegaflow::backend::in_range(offset, length, out->length)) return PEGA_INVALID;
    return written && (out->flags & PEGA_REGION_READ_ONLY) != 0 ? PEGA_INVALID : PEGA_OK;
}

const pega_region_table kRegionTable = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                        &import_descriptor};

}  // namespace nccl_backend
