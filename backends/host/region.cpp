// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "device.hpp"

namespace host_backend {
namespace {

// The region's end: what it owns goes with it, and nothing refers to it any more.
void destroy(pega_region* region) {
    if (region->owned != nullptr) ::munmap(region->owned, region->length);
    pega_device* device = region->device;
    const std::lock_guard lock(device->mutex);
    std::erase_if(device->regions, [&](const auto& r) { return r.get() == region; });
}

void adopt(pega_device* device, std::unique_ptr<pega_region> region, pega_region** out) {
    const std::lock_guard lock(device->mutex);
    *out = region.get();
    device->regions.push_back(std::move(region));
}

pega_status allocate(pega_region& region) {
    if ((region.flags & PEGA_REGION_SHARED) != 0) {
        const pega_status status = SharedObject::create(region.length, &region.shared);
        region.base = region.shared.data();
        return status;
    }
    void* memory = ::mmap(nullptr, region.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return PEGA_NO_MEMORY;
    region.owned = memory;
    region.base = static_cast<std::uint8_t*>(memory);
    return PEGA_OK;
}

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || memory == nullptr || out == nullptr || memory->size < sizeof *memory) return PEGA_INVALID;
    if (memory->kind != PEGA_MEMORY_HOST) return PEGA_UNSUPPORTED;
    if (memory->length == 0) return PEGA_INVALID;
    auto region = std::make_unique<pega_region>();
    region->device = device;
    region->flags = memory->flags;
    region->length = memory->length;
    pega_status status = PEGA_OK;
    switch (memory->source) {
        case PEGA_SOURCE_ADDRESS:
            if (memory->address == nullptr || reinterpret_cast<std::uintptr_t>(memory->address) > UINTPTR_MAX - memory->length)
                return PEGA_INVALID;
            region->base = static_cast<std::uint8_t*>(memory->address);
            break;
        case PEGA_SOURCE_ALLOCATE:
            status = allocate(*region);
            break;
        case PEGA_SOURCE_SHM: {
            if (memory->handle == nullptr) return PEGA_INVALID;
            const std::string name(static_cast<const char*>(memory->handle), memory->handle_length);
            std::string why;
            status = SharedObject::open_named(name, memory->offset, memory->length, &region->shared, &why);
            if (status != PEGA_OK) {
                pegaflow::backend::log(device->host, PEGA_LOG_WARNING, "host", "shared memory object \"%s\": %s", name.c_str(),
                                       why.c_str());
            }
            region->base = region->shared.data();
            break;
        }
        default:
            return PEGA_UNSUPPORTED;
    }
    if (status == PEGA_OK) adopt(device, std::move(region), out);
    return status;
}

pega_status unregister(pega_region* region) {
    if (region == nullptr || region->in_flight.load(std::memory_order_acquire) != 0) return PEGA_INVALID;
    destroy(region);
    return PEGA_OK;
}

pega_status info(pega_region* region, pega_region_info* out) {
    if (region == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region_info info{};
    info.size = out->size;
    info.kind = PEGA_MEMORY_HOST;
    info.length = region->length;
    info.address = region->base;
    pegaflow::backend::copy_out(out, info);
    return PEGA_OK;
}

pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (region == nullptr) return PEGA_INVALID;
    if (region->shared.data() == nullptr) return PEGA_UNSUPPORTED;
    const std::vector<std::uint8_t> descriptor = region->shared.describe(kRegionType);
    return pegaflow::backend::give_bytes(descriptor.data(), descriptor.size(), bytes, capacity, length);
}

pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    auto region = std::make_unique<pega_region>();
    region->device = device;
    std::string why;
    const pega_status status =
        SharedObject::import({static_cast<const std::uint8_t*>(bytes), length}, kRegionType, &region->shared, &why);
    if (!why.empty()) pegaflow::backend::log(device->host, PEGA_LOG_WARNING, "host", "memory of a peer: %s", why.c_str());
    if (status != PEGA_OK) return status;
    region->base = region->shared.data();
    region->length = region->shared.length();
    adopt(device, std::move(region), out);
    return PEGA_OK;
}

}  // namespace

const pega_region_table kRegionTable = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                        &import_descriptor};

}  // namespace host_backend
