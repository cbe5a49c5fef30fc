// SPDX-License-Identifier: Apache-2.0
// entry.cpp - the cuda back end: GPU memory and pinned host memory, moved by the copy engines.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "batch.hpp"

namespace cuda_backend {
namespace {

int numa_node(const Driver& driver, Device device) {
    int domain = 0;
    int bus = 0;
    int slot = 0;
    driver.cuDeviceGetAttribute(&domain, kAttributePciDomain, device);
    driver.cuDeviceGetAttribute(&bus, kAttributePciBus, device);
    driver.cuDeviceGetAttribute(&slot, kAttributePciDevice, device);
    char path[96];
    std::snprintf(path, sizeof path, "/sys/bus/pci/devices/%04x:%02x:%02x.0/numa_node", domain, bus, slot);
    int node = PEGA_NUMA_ANY;
    std::ifstream file(path);
    file >> node;
    return file ? node : PEGA_NUMA_ANY;
}

pega_status probe(const pega_host*, const pega_option*, std::uint32_t, pega_device_info* infos, std::uint32_t capacity,
                  std::uint32_t* count, char* reason, std::uint64_t reason_capacity) {
    if (count == nullptr) return PEGA_INVALID;
    *count = 0;
    std::string why;
    const Driver* driver = Driver::get(&why);
    int devices = 0;
    if (driver != nullptr && (driver->cuDeviceGetCount(&devices) != kSuccess || devices == 0))
        why = "the CUDA driver sees no GPU";
    if (!why.empty()) {
        if (reason != nullptr && reason_capacity != 0) std::snprintf(reason, reason_capacity, "%s", why.c_str());
        return PEGA_UNSUPPORTED;
    }
    *count = static_cast<std::uint32_t>(devices);
    for (std::uint32_t i = 0; infos != nullptr && i < std::min(capacity, *count); ++i) {
        Device device = 0;
        Uuid uuid{};
        std::size_t memory = 0;
        pega_device_info info{};
        if (driver->cuDeviceGet(&device, static_cast<int>(i)) != kSuccess) continue;
        driver->cuDeviceGetUuid_v2(&uuid, device);
        driver->cuDeviceTotalMem_v2(&memory, device);
        driver->cuDeviceGetName(info.text, sizeof info.text, device);
        info.numa_node = numa_node(*driver, device);
        info.index = i;
        info.kind = PEGA_MEMORY_GPU;
        info.memory_bytes = memory;
        std::snprintf(info.uuid, sizeof info.uuid, "%s", uuid_text(uuid).c_str());
        auto* element = reinterpret_cast<pega_device_info*>(reinterpret_cast<unsigned char*>(infos) +
                                                            static_cast<std::size_t>(i) * infos->size);
        info.size = element->size = infos->size;
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
    c.matrix[PEGA_MEMORY_GPU] = (1U << PEGA_MEMORY_HOST) | (1U << PEGA_MEMORY_GPU);
    c.matrix[PEGA_MEMORY_HOST] = 1U << PEGA_MEMORY_GPU;
    c.source_mask =
        (1U << PEGA_SOURCE_ADDRESS) | (1U << PEGA_SOURCE_ALLOCATE) | (1U << PEGA_SOURCE_SHM) | (1U << PEGA_SOURCE_IPC);
    c.alignment = 1;
    c.max_batches = 4096;
    // Typical of one PCIe 5 x16 link and of one queued copy a page.
    for (pega_cost& cost : c.cost) cost = {10'000, 2'300, 55'000'000'000, 128 * 1024, 1, 0};
    pegaflow::backend::copy_out(out, c);
    return PEGA_OK;
}

pega_status address(pega_device* device, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (device == nullptr) return PEGA_INVALID;
    const std::vector<std::uint8_t>& own = device->mailbox.address();
    return pegaflow::backend::give_bytes(own.data(), own.size(), bytes, capacity, length);
}

const void* extension(pega_device*, const char* id) {
    if (std::strcmp(id, PEGA_EXT_CANCEL) == 0) return &kCancelTable;
    if (std::strcmp(id, PEGA_EXT_NOTIFY) == 0) return &kNotifyTable;
    if (std::strcmp(id, PEGA_EXT_STREAM) == 0) return &kStreamTable;
    if (std::strcmp(id, PEGA_EXT_CALIBRATION) == 0) return &kCalibrationTable;
    return nullptr;
}

const char* error_text(std::int32_t code) {
    const Driver* driver = Driver::get(nullptr);
    const char* text = nullptr;
    if (driver != nullptr) driver->cuGetErrorString(code, &text);
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
}  // namespace cuda_backend

const pega_entry pegaflow_entry = {sizeof(pega_entry),     PEGA_ABI_MAJOR,    PEGA_ABI_MINOR, "cuda",
                                   cuda_backend::kVersion, &cuda_backend::get};
