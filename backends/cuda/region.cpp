// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "device.hpp"

namespace cuda_backend {
namespace {

constexpr char kMagic[8] = {'P', 'G', 'C', 'U', 'D', 'A', 'R', '1'};

// What travels between processes.
struct Wire {
    char magic[8];
    Uuid uuid;
    IpcHandle handle;
    std::uint64_t offset;  // from the start of the allocation
    std::uint64_t length;
    std::uint64_t checksum;  // over everything else
};

std::uint64_t checksum(Wire wire) {
    wire.checksum = 0;
    const auto* bytes = reinterpret_cast<const unsigned char*>(&wire);
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (std::size_t i = 0; i < sizeof wire; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    return hash;
}

pega_status open_ipc(pega_device& device, pega_region& region, const std::string& bytes, std::uint64_t offset) {
    IpcHandle handle{};
    if (bytes.size() != sizeof handle.bytes) return PEGA_INVALID;
    std::memcpy(handle.bytes, bytes.data(), sizeof handle.bytes);
    OpenHandle& open = device.opened[bytes];
    if (open.users == 0) {
        const Result result = device.driver->cuIpcOpenMemHandle_v2(&open.base, handle, kIpcLazyEnablePeerAccess);
        if (result != kSuccess) {
            device.opened.erase(bytes);
            pegaflow::backend::log(
                device.host, PEGA_LOG_ERROR, "cuda",
                "an IPC handle cannot be opened (%d). Memory from expandable segments or virtual memory management has no "
                "handle that works: start the client with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:False",
                result);
            return PEGA_REGION_LOST;
        }
        DevicePointer start = 0;
        std::size_t size = 0;
        device.driver->cuMemGetAddressRange_v2(&start, &size, open.base);
        open.size = size;
    }
    ++open.users;
    region.ipc_handle = bytes;
    if (open.size != 0 && !pegaflow::backend::in_range(offset, region.length, open.size)) return PEGA_REGION_LOST;
    region.base = open.base + offset;
    return PEGA_OK;
}

// The handle of `memory`: the 64 bytes of a CUipcMemHandle, or a descriptor that this back end exported.
pega_status take_ipc(pega_device& device, pega_region& region, const pega_memory& memory) {
    const std::string bytes(static_cast<const char*>(memory.handle), memory.handle_length);
    if (bytes.size() != sizeof(Wire)) return open_ipc(device, region, bytes, memory.offset);
    Wire wire{};
    std::memcpy(&wire, bytes.data(), sizeof wire);
    if (std::memcmp(wire.magic, kMagic, sizeof kMagic) != 0 || wire.checksum != checksum(wire)) return PEGA_CORRUPT;
    if (!pegaflow::backend::in_range(memory.offset, memory.length, wire.length)) return PEGA_REGION_LOST;
    return open_ipc(device, region, std::string(wire.handle.bytes, sizeof wire.handle.bytes), wire.offset + memory.offset);
}

pega_status take_gpu(pega_device& device, pega_region& region, const pega_memory& memory) {
    const Driver& driver = *device.driver;
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        const Result result = driver.cuMemAlloc_v2(&region.allocated, region.length);
        region.base = region.allocated;
        return to_status(result);
    }
    if (memory.source == PEGA_SOURCE_IPC) {
        return memory.handle == nullptr ? PEGA_INVALID : take_ipc(device, region, memory);
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

pega_status take_host(const pega_device& device, pega_region& region, const pega_memory& memory) {
    const Driver& driver = *device.driver;
    if (memory.source == PEGA_SOURCE_ALLOCATE) {
        const Result result = HostMemory::allocate(driver, region.length, &region.host_allocated);
        return result == kSuccess ? address_on_gpu(driver, region, region.host_allocated.address()) : to_status(result);
    }
    if (memory.source != PEGA_SOURCE_ADDRESS) return PEGA_UNSUPPORTED;
    if (memory.address == nullptr) return PEGA_INVALID;
    const Result result = driver.cuMemHostRegister_v2(memory.address, region.length, kHostPortable);
    if (result == kSuccess) region.host_registered = memory.address;
    if (result != kSuccess && result != kHostMemoryAlreadyRegistered) return to_status(result);
    return address_on_gpu(driver, region, memory.address);
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

pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (region == nullptr || length == nullptr || (bytes == nullptr && capacity != 0)) return PEGA_INVALID;
    if (region->kind != PEGA_MEMORY_GPU || !region->ipc_handle.empty()) return PEGA_UNSUPPORTED;
    *length = sizeof(Wire);
    if (capacity < sizeof(Wire)) return PEGA_NO_MEMORY;
    pega_device& device = *region->device;
    const Driver& driver = *device.driver;
    const Current current(driver, device.context);
    Wire wire{};
    std::memcpy(wire.magic, kMagic, sizeof kMagic);
    DevicePointer start = 0;
    std::size_t size = 0;
    if (driver.cuDeviceGetUuid_v2(&wire.uuid, device.device) != kSuccess ||
        driver.cuMemGetAddressRange_v2(&start, &size, region->base) != kSuccess ||
        driver.cuIpcGetMemHandle(&wire.handle, region->base) != kSuccess) {
        return PEGA_UNSUPPORTED;
    }
    wire.offset = region->base - start;
    wire.length = region->length;
    wire.checksum = checksum(wire);
    std::memcpy(bytes, &wire, sizeof wire);
    return PEGA_OK;
}

pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    Wire wire{};
    if (length != sizeof wire) return PEGA_CORRUPT;
    std::memcpy(&wire, bytes, sizeof wire);
    if (std::memcmp(wire.magic, kMagic, sizeof kMagic) != 0 || wire.checksum != checksum(wire)) return PEGA_CORRUPT;
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = PEGA_MEMORY_GPU;
    memory.source = PEGA_SOURCE_IPC;
    memory.handle = bytes;
    memory.handle_length = length;
    memory.length = wire.length;
    return register_memory(device, &memory, out);
}

}  // namespace

void release(pega_device& device, pega_region& region) {
    const Driver& driver = *device.driver;
    if (region.allocated != 0) driver.cuMemFree_v2(region.allocated);
    region.host_allocated.release(driver);
    if (region.host_registered != nullptr) driver.cuMemHostUnregister(region.host_registered);
    region.allocated = 0;
    region.host_registered = nullptr;
    const auto open = device.opened.find(region.ipc_handle);
    if (region.ipc_handle.empty() || open == device.opened.end()) return;
    region.ipc_handle.clear();
    if (--open->second.users != 0) return;
    driver.cuIpcCloseMemHandle(open->second.base);
    device.opened.erase(open);
}

const pega_region_table kRegionTable = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                        &import_descriptor};

}  // namespace cuda_backend
