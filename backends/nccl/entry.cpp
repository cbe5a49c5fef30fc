// SPDX-License-Identifier: Apache-2.0
// entry.cpp - the nccl back end: memory of GPUs that reach each other by NCCL only, on one host or on several.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "device.hpp"

namespace nccl_backend {
namespace {

using cuda_backend::Driver;
using cuda_backend::kSuccess;

int numa_node(const Driver& driver, cuda_backend::Device device) {
    int domain = 0;
    int bus = 0;
    int slot = 0;
    driver.cuDeviceGetAttribute(&domain, cuda_backend::kAttributePciDomain, device);
    driver.cuDeviceGetAttribute(&bus, cuda_backend::kAttributePciBus, device);
    driver.cuDeviceGetAttribute(&slot, cuda_backend::kAttributePciDevice, device);
    char path[96];
    std::snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node", domain, bus, slot);
    int node = PEGA_NUMA_ANY;
    std::ifstream file(path);
    file >> node;
    return file ? node : PEGA_NUMA_ANY;
}

pega_device_info describe(const Driver& driver, std::uint32_t index) {
    pega_device_info info{};
    cuda_backend::Device device = 0;
    if (driver.cuDeviceGet(&device, static_cast<int>(index)) != kSuccess) return info;
    cuda_backend::Uuid uuid{};
    std::size_t memory = 0;
    driver.cuDeviceGetUuid_v2(&uuid, device);
    driver.cuDeviceTotalMem_v2(&memory, device);
    driver.cuDeviceGetName(info.text, sizeof info.text, device);
    info.numa_node = numa_node(driver, device);
    info.index = index;
    info.kind = PEGA_MEMORY_GPU;
    info.memory_bytes = memory;
    char* text = info.uuid + std::snprintf(info.uuid, sizeof info.uuid, "GPU-");
    for (std::size_t i = 0; i < sizeof uuid.bytes; ++i)
        text += std::snprintf(text, 4, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid.bytes[i]);
    return info;
}

pega_status probe(const pega_host*, const pega_option*, std::uint32_t, pega_device_info* infos, std::uint32_t capacity,
                  std::uint32_t* count, char* reason, std::uint64_t reason_capacity) {
    if (count == nullptr) return PEGA_INVALID;
    *count = 0;
    std::string why;
    int devices = 0;
    const Driver* driver = Driver::get(&why);
    if (driver != nullptr && (driver->cuDeviceGetCount(&devices) != kSuccess || devices == 0))
        why = "the CUDA driver sees no GPU";
    if (why.empty()) Nccl::get(&why);
    if (!why.empty()) {
        if (reason != nullptr && reason_capacity != 0) std::snprintf(reason, reason_capacity, "%s", why.c_str());
        return PEGA_UNSUPPORTED;
    }
    *count = static_cast<std::uint32_t>(devices);
    for (std::uint32_t i = 0; infos != nullptr && i < std::min(capacity, *count); ++i) {
        auto* element = reinterpret_cast<pega_device_info*>(reinterpret_cast<unsigned char*>(infos) +
                                                            static_cast<std::size_t>(i) * infos->size);
        element->size = infos->size;
        pega_device_info info = describe(*driver, i);
        info.size = infos->size;
        pegaflow::backend::copy_out(element, info);
    }
    return PEGA_OK;
}

pega_status capabilities(pega_device* device, pega_capabilities* out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_capabilities c{};
    c.size = out->size;
    c.flags =
        PEGA_CAP_READ | PEGA_CAP_WRITE | PEGA_CAP_CANCEL | PEGA_CAP_NOTIFY | PEGA_CAP_STREAM | PEGA_CAP_MARKS | PEGA_CAP_PEERS;
    c.matrix[PEGA_MEMORY_GPU] = (1U << PEGA_MEMORY_HOST) | (1U << PEGA_MEMORY_GPU) | (1U << PEGA_MEMORY_REMOTE);
    c.matrix[PEGA_MEMORY_HOST] = (1U << PEGA_MEMORY_GPU) | (1U << PEGA_MEMORY_REMOTE);
    c.source_mask = (1U << PEGA_SOURCE_ADDRESS) | (1U << PEGA_SOURCE_ALLOCATE);
    c.alignment = 1;
    c.max_batches = 4096;
    // Typical of one host whose GPUs have NVLink, and of one announcement and one group of NCCL a part.
    for (pega_cost& cost : c.cost) cost = {100'000, 20, 150'000'000'000, 1U << 20, 1, 0};
    pegaflow::backend::copy_out(out, c);
    return PEGA_OK;
}

pega_status address(pega_device* device, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (device == nullptr || length == nullptr || (bytes == nullptr && capacity != 0)) return PEGA_INVALID;
    const Bytes encoded = encode(device->address);
    *length = encoded.size();
    if (capacity < encoded.size()) return PEGA_NO_MEMORY;
    std::memcpy(bytes, encoded.data(), encoded.size());
    return PEGA_OK;
}

const void* extension(pega_device*, const char* id) {
    if (std::strcmp(id, PEGA_EXT_CANCEL) == 0) return &kCancelTable;
    if (std::strcmp(id, PEGA_EXT_NOTIFY) == 0) return &kNotifyTable;
    if (std::strcmp(id, PEGA_EXT_STREAM) == 0) return &kStreamTable;
    return nullptr;
}

const char* error_text(std::int32_t code) {
    const char* text = nullptr;
    const Nccl* nccl = Nccl::get(nullptr);
    const Driver* driver = Driver::get(nullptr);
    if (code >= kNativeNccl && nccl != nullptr) {
        text = nccl->ncclGetErrorString(code - kNativeNccl);
    } else if (driver != nullptr) {
        driver->cuGetErrorString(code, &text);
    }
    return text != nullptr ? text : "";
}

constexpr pega_backend_table kBackendTable = {
    sizeof(pega_backend_table), 0, &probe, &open_device, &close_device, &capabilities, &address, &extension, &error_text};

const void* get(const char* id) {
    if (std::strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kBackendTable;
    if (std::strcmp(id, PEGA_REGION_TABLE) == 0) return &kRegionTable;
    if (std::strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kChannelTable;
    if (std::strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kCompletionTable;
    return nullptr;
}

}  // namespace
}  // namespace nccl_backend

const pega_entry pegaflow_entry = {sizeof(pega_entry),     PEGA_ABI_MAJOR,    PEGA_ABI_MINOR, "nccl",
                                   nccl_backend::kVersion, &nccl_backend::get};
