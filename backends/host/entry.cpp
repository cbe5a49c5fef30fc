// SPDX-License-Identifier: Apache-2.0
// entry.cpp - the host back end: process memory and shared memory, copied by threads.
#include <sys/sysinfo.h>

#include <cstdio>
#include <cstring>
#include <thread>

#include "batch.hpp"

namespace host_backend {
namespace {

pega_status probe(const pega_host*, const pega_option*, std::uint32_t, pega_device_info* infos, std::uint32_t capacity,
                  std::uint32_t* count, char*, std::uint64_t) {
    if (count == nullptr) return PEGA_INVALID;
    *count = 1;
    if (infos == nullptr || capacity == 0) return PEGA_OK;
    struct sysinfo system{};
    ::sysinfo(&system);
    pega_device_info info{};
    info.size = infos->size;
    info.numa_node = PEGA_NUMA_ANY;
    info.kind = PEGA_MEMORY_HOST;
    info.memory_bytes = static_cast<std::uint64_t>(system.totalram) * system.mem_unit;
    std::snprintf(info.text, sizeof info.text, "host memory, %u processors", std::thread::hardware_concurrency());
    pegaflow::backend::copy_out(infos, info);
    return PEGA_OK;
}

pega_status capabilities(pega_device* device, pega_capabilities* out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_capabilities c{};
    c.size = out->size;
    c.flags = PEGA_CAP_READ | PEGA_CAP_WRITE | PEGA_CAP_CANCEL | PEGA_CAP_NOTIFY | PEGA_CAP_STREAM | PEGA_CAP_MARKS |
              PEGA_CAP_PEERS | PEGA_CAP_OWN_THREADS;
    c.matrix[PEGA_MEMORY_HOST] = 1U << PEGA_MEMORY_HOST;
    c.source_mask = (1U << PEGA_SOURCE_ADDRESS) | (1U << PEGA_SOURCE_ALLOCATE) | (1U << PEGA_SOURCE_SHM);
    c.alignment = 1;
    c.max_batches = kMaxDepth;
    c.threads = device->thread_count;
    // Typical of one server socket; the core measures what this machine does.
    for (pega_cost& cost : c.cost) cost = {5'000, 30, 10'000'000'000, 2048, 1, 0};
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
    return nullptr;
}

const char* error_text(std::int32_t native_code) {
    return ::strerrordesc_np(native_code) != nullptr ? ::strerrordesc_np(native_code) : "";
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
}  // namespace host_backend

const pega_entry pegaflow_entry = {sizeof(pega_entry), PEGA_ABI_MAJOR, PEGA_ABI_MINOR, "host", "1.0", &host_backend::get};
