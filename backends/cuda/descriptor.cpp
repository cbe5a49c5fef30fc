// SPDX-License-Identifier: Apache-2.0
// Region descriptors: GPU memory by its inter-process handle, shared host memory as backend_common::SharedObject says it.
#include <cstring>

#include "descriptor.hpp"
#include "gpu_memory.hpp"
#include "peer.hpp"

namespace cuda_backend {
namespace {

constexpr char kMagic[8] = {'P', 'G', 'C', 'U', 'D', 'A', 'R', '1'};  // the last character is the version

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

pega_status decode(const void* bytes, std::uint64_t length, Wire* out) {
    if (length != sizeof *out) return PEGA_CORRUPT;
    std::memcpy(out, bytes, sizeof *out);
    if (std::memcmp(out->magic, kMagic, sizeof kMagic) == 0) return out->checksum == checksum(*out) ? PEGA_OK : PEGA_CORRUPT;
    return std::memcmp(out->magic, kMagic, sizeof kMagic - 1) == 0 ? PEGA_UNSUPPORTED : PEGA_CORRUPT;
}

pega_status export_gpu(const pega_region& region, Wire* wire) {
    const pega_device& device = *region.device;
    const Driver& driver = *device.driver;
    const Current current(driver, device.context);
    std::memcpy(wire->magic, kMagic, sizeof kMagic);
    DevicePointer start = 0;
    std::size_t size = 0;
    if (driver.cuDeviceGetUuid_v2(&wire->uuid, device.device) != kSuccess ||
        driver.cuMemGetAddressRange_v2(&start, &size, region.base) != kSuccess ||
        driver.cuIpcGetMemHandle(&wire->handle, region.base) != kSuccess) {
        return PEGA_UNSUPPORTED;
    }
    wire->offset = region.base - start;
    wire->length = region.length;
    wire->checksum = checksum(*wire);
    remember_export(wire->handle, start, region.memory);
    return PEGA_OK;
}

}  // namespace

pega_status take_handle(pega_device& device, pega_region& region, const pega_memory& memory) {
    const std::string bytes(static_cast<const char*>(memory.handle), memory.handle_length);
    if (bytes.size() != sizeof(Wire)) return open_handle(device, region, bytes, memory.offset, nullptr);
    Wire wire{};
    if (const pega_status decoded = decode(bytes.data(), bytes.size(), &wire); decoded != PEGA_OK) return decoded;
    if (!pegaflow::backend::in_range(memory.offset, memory.length, wire.length)) return PEGA_REGION_LOST;
    return open_handle(device, region, std::string(wire.handle.bytes, sizeof wire.handle.bytes), wire.offset + memory.offset,
                       &wire.uuid);
}

pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (region == nullptr) return PEGA_INVALID;
    if (region->kind == PEGA_MEMORY_HOST) {
        if (region->shared.data() == nullptr) return PEGA_UNSUPPORTED;
        const std::vector<std::uint8_t> descriptor = region->shared.describe(kHostRegionType);
        return pegaflow::backend::give_bytes(descriptor.data(), descriptor.size(), bytes, capacity, length);
    }
    if (region->imported) return PEGA_UNSUPPORTED;
    Wire wire{};
    if (const pega_status exported = export_gpu(*region, &wire); exported != PEGA_OK) return exported;
    return pegaflow::backend::give_bytes(&wire, sizeof wire, bytes, capacity, length);
}

pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.source = PEGA_SOURCE_IPC;
    memory.handle = bytes;
    memory.handle_length = length;
    Wire wire{};
    if (length >= sizeof kMagic && std::memcmp(bytes, kMagic, sizeof kMagic - 1) == 0) {
        if (const pega_status decoded = decode(bytes, length, &wire); decoded != PEGA_OK) return decoded;
        memory.kind = PEGA_MEMORY_GPU;
        memory.length = wire.length;
        return kRegionTable.register_memory(device, &memory, out);
    }
    backend_common::SharedObject object;
    const std::span<const std::uint8_t> descriptor{static_cast<const std::uint8_t*>(bytes), length};
    std::string why;
    const pega_status found = backend_common::SharedObject::import(descriptor, kHostRegionType, &object, &why);
    if (!why.empty()) pegaflow::backend::log(device->host, PEGA_LOG_WARNING, "cuda", "memory of a peer: %s", why.c_str());
    if (found != PEGA_OK) return found;
    return adopt_shared(device, std::move(object), out);
}

}  // namespace cuda_backend
