// SPDX-License-Identifier: Apache-2.0
// entry.cpp - the nvme back end: files and block devices, read and written past the page cache by io_uring.
#include <sys/utsname.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "device.hpp"

namespace nvme_backend {
namespace {

namespace fs = std::filesystem;

// What the disks of this machine have in common: their number, and their NUMA node when it is one.
struct Disks {
    int count = 0;
    int node = PEGA_NUMA_ANY;
};

Disks find_disks() {
    Disks out;
    bool mixed = false;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator("/sys/class/nvme", error)) {
        std::ifstream file(entry.path() / "numa_node");
        int node = PEGA_NUMA_ANY;
        file >> node;
        mixed = mixed || (out.count != 0 && node != out.node);
        out.node = node;
        ++out.count;
    }
    if (mixed || out.node < 0) out.node = PEGA_NUMA_ANY;
    return out;
}

pega_status refuse(char* reason, std::uint64_t capacity, const std::string& why) {
    if (reason != nullptr && capacity != 0) std::snprintf(reason, capacity, "%s", why.c_str());
    return PEGA_UNSUPPORTED;
}

pega_status probe(const pega_host*, const pega_option* given, std::uint32_t option_count, pega_device_info* infos,
                  std::uint32_t capacity, std::uint32_t* count, char* reason, std::uint64_t reason_capacity) {
    if (count == nullptr) return PEGA_INVALID;
    *count = 0;
    Options options;
    std::string why;
    if (!parse_options(given, option_count, &options, &why)) return refuse(reason, reason_capacity, why);
    io_uring ring{};
    if (const int error = -::io_uring_queue_init(4, &ring, 0); error != 0) {
        return refuse(reason, reason_capacity,
                      std::string("io_uring is not to be had: ") + std::strerror(error) +
                          " (kernel.io_uring_disabled, or the container's seccomp profile)");
    }
    ::io_uring_queue_exit(&ring);
    *count = options.handles;
    const Disks disks = find_disks();
    utsname system{};
    ::uname(&system);
    for (std::uint32_t i = 0; infos != nullptr && i < std::min(capacity, *count); ++i) {
        pega_device_info info{};
        info.numa_node = disks.node;
        info.index = i;
        info.kind = PEGA_MEMORY_FILE;
        std::snprintf(info.text, sizeof info.text, "files and block devices by io_uring, Linux %.24s, %d NVMe controller%s",
                      system.release, disks.count, disks.count == 1 ? "" : "s");
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
    c.flags = PEGA_CAP_READ | PEGA_CAP_WRITE | PEGA_CAP_CANCEL | PEGA_CAP_MARKS;
    c.matrix[PEGA_MEMORY_HOST] = 1U << PEGA_MEMORY_FILE;
    c.matrix[PEGA_MEMORY_FILE] = 1U << PEGA_MEMORY_HOST;
    c.source_mask = (1U << PEGA_SOURCE_ADDRESS) | (1U << PEGA_SOURCE_ALLOCATE) | (1U << PEGA_SOURCE_PATH);
    c.alignment = 1;
    c.max_batches = kMaxBatches;
    // Typical of one NVMe drive on four lanes of PCIe 4; the core measures what this machine does.
    c.cost[0] = {80'000, 1'000, 6'500'000'000, 16 << 10, 4, 0};
    c.cost[1] = {20'000, 1'000, 4'000'000'000, 16 << 10, 4, 0};
    pegaflow::backend::copy_out(out, c);
    return PEGA_OK;
}

pega_status address(pega_device*, void*, std::uint64_t, std::uint64_t*) { return PEGA_UNSUPPORTED; }

const void* extension(pega_device* device, const char* id) {
    if (std::strcmp(id, PEGA_EXT_CANCEL) == 0) return &kCancelTable;
    if (std::strcmp(id, PEGA_EXT_DURABLE) == 0) return &kDurableTable;
    // A ring whose completions must be looked for cannot be slept on.
    if (std::strcmp(id, PEGA_EXT_WAIT) == 0 && !device->options.poll) return &kWaitTable;
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
}  // namespace nvme_backend

const pega_entry pegaflow_entry = {sizeof(pega_entry), PEGA_ABI_MAJOR, PEGA_ABI_MINOR, "nvme", "1.0", &nvme_backend::get};
