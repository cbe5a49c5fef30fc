// SPDX-License-Identifier: Apache-2.0
// The ring's tables of files and buffers, changed by the thread that may: regions come and go on any.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "device.hpp"

namespace nvme_backend {
namespace {

constexpr std::uint64_t kLargestSlice = std::uint64_t{1} << 30;  // the kernel's limit for one buffer

void add_buffer(pega_device& device, pega_region& region) {
    std::uint64_t slice = kLargestSlice;
    int error = 0;
    const int first = device.ring.add_buffer(region.base, region.length, &slice, &error);
    region.slice_bytes = slice;
    region.buffer = first;
    if (first >= 0 || device.registration_failed) return;
    device.registration_failed = true;
    pegaflow::backend::log(device.host, PEGA_LOG_WARNING, "nvme",
                           "%llu bytes cannot be registered with the ring (%s); requests pin their memory one by one, which "
                           "costs processor time. A limit on locked memory (ulimit -l) is the usual reason",
                           static_cast<unsigned long long>(region.length),
                           error != 0 ? std::strerror(error) : "its table of buffers is full");
}

}  // namespace

void change_tables(pega_device& device) {
    const std::lock_guard lock(device.table_mutex);
    for (TableChange& change : device.table_changes) {
        switch (change.kind) {
            case TableChange::Kind::kAddBuffer:
                if (change.region->buffer < 0) add_buffer(device, *change.region);
                break;
            case TableChange::Kind::kDropBuffer:
                device.ring.drop_buffer(change.first, change.count);
                break;
            case TableChange::Kind::kAddFile:
                if (change.file->slot < 0) change.file->slot = device.ring.add_file(change.file->fd);
                break;
            case TableChange::Kind::kDropFile:
                if (change.file->slot >= 0) device.ring.drop_file(change.file->slot);
                change.file->slot = -1;
                break;
        }
    }
    device.table_changes.clear();
}

void forget_tables(pega_device& device) {
    const std::lock_guard table_lock(device.table_mutex);
    device.table_changes.clear();
    const std::lock_guard lock(device.mutex);
    for (const auto& region : device.regions) {
        region->buffer = -1;
        for (const auto& file : region->files) {
            file->slot = -1;
            device.table_changes.push_back({TableChange::Kind::kAddFile, nullptr, -1, 0, file});
        }
        if (!region->is_file()) device.table_changes.push_back({TableChange::Kind::kAddBuffer, region.get(), -1, 0, nullptr});
    }
    if (!device.options.fixed) device.table_changes.clear();
    device.look_at_tables.store(!device.table_changes.empty(), std::memory_order_release);
}

}  // namespace nvme_backend
