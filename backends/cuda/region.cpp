// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "descriptor.hpp"
#include "peer.hpp"

namespace cuda_backend {
namespace {

pega_status take_gpu(pega_device& device, pega_region& region, const pega_memory& memory) {
    const Driver& driver = *device.driver;
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        const Result result = GpuMemory::allocate(driver, device.device, region.length, &region.memory);
        if (result == kSuccess) region.base = region.memory->base();
        return to_status(result);
    }
    if (memory.source == PEGA_SOURCE_IPC) {
        return memory.handle == nullptr ? PEGA_INVALID : take_handle(device, region, memory);
    }
    if (memory.source != PEGA_SOURCE_ADDRESS) return PEGA_UNSUPPORTED;
    int ordinal = -1;
    region.base = reinterpret_cast<DevicePointer>(memory.address);
    const Result result = driver.cuPointerGetAttribute(&ordinal, kPointerDeviceOrdinal, region.base);
    return result == kSuccess && ordinal == device.index ? PEGA_OK : PEGA_INVALID;
}

pega_status address_on_gpu(const Driver& driver, pega_region& region, void* address) {
    region.host_address = address;
    return to_status(driver.cuMemHostGetDevicePointer_v2(&region.base, address, 0));
}

pega_status pin(const Driver& driver, pega_region& region, void* address) {
    const Result result = driver.cuMemHostRegister_v2(address, region.length, kHostPortable);
    if (result == kSuccess) region.host_registered = address;
    if (result != kSuccess && result != kHostMemoryAlreadyRegistered) return to_status(result);
    return address_on_gpu(driver, region, address);
}

pega_status take_shared(const pega_device& device, pega_region& region, const pega_memory& memory) {
    using backend_common::SharedObject;
    pega_status status = PEGA_OK;
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        status = SharedObject::create(region.length, &region.shared);
    } else if (memory.handle == nullptr) {
        status = PEGA_INVALID;
    } else {
        const std::string name(static_cast<const char*>(memory.handle), memory.handle_length);
        std::string why;
        status = SharedObject::open_named(name, memory.offset, region.length, &region.shared, &why);
        if (status != PEGA_OK) {
            pegaflow::backend::log(device.host, PEGA_LOG_WARNING, "cuda", "shared memory object \"%s\": %s", name.c_str(),
                                   why.c_str());
        }
    }
    return status != PEGA_OK ? status : pin(*device.driver, region, region.shared.data());
}

pega_status take_host(const pega_device& device, pega_region& region, const pega_memory& memory) {
    const Driver& driver = *device.driver;
    const bool shared = memory.source == PEGA_SOURCE_ALLOCATE && (memory.flags & PEGA_REGION_SHARED) != 0;
    if (shared || memory.source == PEGA_SOURCE_SHM) return take_shared(device, region, memory);
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        const Result result = HostMemory::allocate(driver, region.length, &region.host_allocated);
        return result == kSuccess ? address_on_gpu(driver, region, region.host_allocated.address()) : to_status(result);
    }
    if (memory.source != PEGA_SOURCE_ADDRESS) return PEGA_UNSUPPORTED;
    return memory.address == nullptr ? PEGA_INVALID : pin(driver, region, memory.address);
}

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || memory == nullptr || out == nullptr || memory->size < sizeof *memory || memory->length == 0)
        return PEGA_INVALID;
    if (memory->kind != PEGA_MEMORY_GPU && memory->kind != PEGA_MEMORY_HOST) return PEGA_UNSUPPORTED;
    auto region = std::make_unique<pega_region>();
    region->device = device;
    region->kind = memory->kind;
    region->flags = memory->flags;
    region->length = memory->length;
    const Current current(*device->driver, device->context);
    // Pinning gigabytes takes long; batches go on meanwhile.
    pega_status status = memory->kind == PEGA_MEMORY_HOST ? take_host(*device, *region, *memory) : PEGA_OK;
    const std::lock_guard lock(device->mutex);
    if (memory->kind == PEGA_MEMORY_GPU) status = take_gpu(*device, *region, *memory);
    if (status != PEGA_OK) {
        release(*device, *region);
        return status;
    }
    *out = region.get();
    device->regions.push_back(std::move(region));
    return PEGA_OK;
}

pega_status unregister(pega_region* region) {
    if (region == nullptr || region->in_flight.load(std::memory_order_acquire) != 0) return PEGA_INVALID;
    pega_device& device = *region->device;
    const Current current(*device.driver, device.context);
    const std::lock_guard lock(device.mutex);
    release(device, *region);
    std::erase_if(device.regions, [&](const auto& r) { return r.get() == region; });
    return PEGA_OK;
}

pega_status info(pega_region* region, pega_region_info* out) {
    if (region == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region_info info{};
    info.size = out->size;
    info.kind = region->kind;
    info.length = region->length;
    info.address = region->kind == PEGA_MEMORY_HOST ? region->host_address : reinterpret_cast<void*>(region->base);
    pegaflow::backend::copy_out(out, info);
    return PEGA_OK;
}

}  // namespace

pega_status adopt_shared(pega_device* device, backend_common::SharedObject object, pega_region** out) {
    auto region = std::make_unique<pega_region>();
    region->device = device;
    region->kind = PEGA_MEMORY_HOST;
    region->length = object.length();
    region->shared = std::move(object);
    region->imported = true;
    const Current current(*device->driver, device->context);
    const pega_status status = pin(*device->driver, *region, region->shared.data());
    const std::lock_guard lock(device->mutex);
    if (status != PEGA_OK) {
        release(*device, *region);
        return status;
    }
    *out = region.get();
    device->regions.push_back(std::move(region));
    return PEGA_OK;
}

void release(pega_device& device, pega_region& region) {
    const Driver& driver = *device.driver;
    region.host_allocated.release(driver);
    if (region.host_registered != nullptr) driver.cuMemHostUnregister(region.host_registered);
    region.host_registered = nullptr;
    region.memory.reset();
    close_handle(device, region);
}

const pega_region_table kRegionTable = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                        &import_descriptor};

}  // namespace cuda_backend
