// SPDX-License-Identifier: Apache-2.0
// Regions of the inner back end, each in a wrapper that knows its device.
#include "device.hpp"

namespace interposer {
namespace {

pega_status wrap_region(pega_device* device, pega_status status, pega_region* inner, pega_region** out) {
    if (status != PEGA_OK) return status;
    auto region = std::make_unique<pega_region>(pega_region{device, inner});
    *out = region.get();
    const std::lock_guard lock(device->mutex);
    device->regions.emplace(*out, std::move(region));
    return PEGA_OK;
}

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region* inner = nullptr;
    const pega_status registered = device->inner.region->register_memory(device->device, memory, &inner);
    const pega_status status = wrap_region(device, registered, inner, out);
    if (status == PEGA_OK) (*out)->read_only = (memory->flags & PEGA_REGION_READ_ONLY) != 0;
    return status;
}

pega_status unregister(pega_region* region) {
    if (region == nullptr) return PEGA_INVALID;
    {
        // What this layer holds back still belongs to its regions.
        const std::lock_guard lock(region->device->mutex);
        for (const auto& [id, pending] : region->device->pending) {
            const pega_batch& b = pending->batch;
            bool used = b.format == PEGA_FORMAT_FLAT && (b.local_region == region || b.remote_region == region);
            for (std::uint64_t i = 0; b.format == PEGA_FORMAT_SPANS && i < b.span_count; ++i) {
                const pega_span& s = pegaflow::backend::span_at(b, i);
                used = used || s.local_region == region || s.remote_region == region;
            }
            if (used) return PEGA_INVALID;
        }
    }
    pega_device& device = *region->device;
    const pega_status status = device.inner.region->unregister(region->inner);
    if (status != PEGA_OK) return status;
    const std::lock_guard lock(device.mutex);
    device.regions.erase(region);
    return PEGA_OK;
}

pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    return region == nullptr ? PEGA_INVALID
                             : region->device->inner.region->export_descriptor(region->inner, bytes, capacity, length);
}

pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region* inner = nullptr;
    const pega_status status = device->inner.region->import_descriptor(device->device, bytes, length, &inner);
    return wrap_region(device, status, inner, out);
}

}  // namespace

pega_status region_info(pega_region* region, pega_region_info* out) {
    return region == nullptr ? PEGA_INVALID : region->device->inner.region->info(region->inner, out);
}

const pega_region_table kRegionTable = {
    sizeof(pega_region_table), 0, &register_memory, &unregister, &region_info, &export_descriptor, &import_descriptor};

}  // namespace interposer
