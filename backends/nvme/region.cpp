// SPDX-License-Identifier: Apache-2.0
// Regions: host memory that is registered with the ring, and ranges of files, striped over several of them.
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "device.hpp"

pega_region::~pega_region() {
    if (owned != 0) ::munmap(base, owned);
}

void pega_region::locate(std::uint64_t at, nvme_backend::Fragment* fragment) const noexcept {
    if (files.size() == 1) {
        fragment->file = files.front().get();
        fragment->offset = file_offset + at;
        return;
    }
    const std::uint64_t turn = at / stripe_bytes;
    const std::uint64_t within = at % stripe_bytes;
    fragment->file = files[turn % files.size()].get();
    fragment->offset = file_offset + turn / files.size() * stripe_bytes + within;
    fragment->length = std::min(fragment->length, stripe_bytes - within);
}

namespace nvme_backend {
namespace {

constexpr std::uint64_t kHugePage = 2 << 20;
constexpr std::uint64_t kPieceUnit = 1 << 20;

void adopt(pega_device* device, std::unique_ptr<pega_region> region, pega_region** out) {
    region->device = device;
    *out = region.get();
    const std::lock_guard table_lock(device->table_mutex);
    const std::lock_guard lock(device->mutex);
    if (device->options.fixed) {
        for (const auto& file : region->files)
            device->table_changes.push_back({TableChange::Kind::kAddFile, nullptr, -1, 0, file});
        if (!region->is_file()) device->table_changes.push_back({TableChange::Kind::kAddBuffer, region.get(), -1, 0, nullptr});
        device->look_at_tables.store(true, std::memory_order_release);
        wake(*device);
    }
    device->regions.push_back(std::move(region));
}

// The file that another region of the device has open, or a null pointer.
std::shared_ptr<File> open_already(pega_device* device, const std::string& path, bool read_only) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) return nullptr;
    const std::lock_guard lock(device->mutex);
    for (const auto& region : device->regions) {
        for (const auto& file : region->files) {
            if (file->same_as(info.st_dev, info.st_ino, read_only)) return file;
        }
    }
    return nullptr;
}

pega_status open_path(pega_device* device, const std::string& path, bool read_only, std::shared_ptr<File>* out) {
    *out = open_already(device, path, read_only);
    struct stat info{};
    if (*out != nullptr) {
        if (::fstat((*out)->fd, &info) == 0 && S_ISREG(info.st_mode)) (*out)->size = static_cast<std::uint64_t>(info.st_size);
        return PEGA_OK;
    }
    std::string why;
    const pega_status status = File::open(path, read_only, device->options, out, &why);
    if (status != PEGA_OK) pegaflow::backend::log(device->host, PEGA_LOG_ERROR, "nvme", "%s", why.c_str());
    return status;
}

// Bytes that file `i` of `n` must have for a region of `length` bytes.
std::uint64_t share_of(const pega_region& region, std::uint64_t i) {
    const std::uint64_t n = region.files.size();
    if (n == 1) return region.length;
    const std::uint64_t whole = region.length / region.stripe_bytes;
    const std::uint64_t rest = region.length % region.stripe_bytes;
    const std::uint64_t turns = whole / n + (i < whole % n ? 1 : 0);
    return turns * region.stripe_bytes + (i == whole % n ? rest : 0);
}

// The paths of the handle, separated by zero bytes.
std::vector<std::string> split_paths(const pega_memory& memory) {
    std::vector<std::string> out;
    const std::string all(static_cast<const char*>(memory.handle), memory.handle_length);
    for (std::size_t from = 0; from < all.size();) {
        const std::size_t end = std::min(all.find('\0', from), all.size());
        if (end > from) out.push_back(all.substr(from, end - from));
        from = end + 1;
    }
    return out;
}

pega_status register_path(pega_device* device, const pega_memory& memory, pega_region& region) {
    if (memory.handle == nullptr || memory.handle_length == 0) return PEGA_INVALID;
    const std::vector<std::string> paths = split_paths(memory);
    if (paths.empty()) return PEGA_INVALID;
    for (const std::string& path : paths) {
        std::shared_ptr<File> file;
        const pega_status status = open_path(device, path, (memory.flags & PEGA_REGION_READ_ONLY) != 0, &file);
        if (status != PEGA_OK) return status;
        region.files.push_back(std::move(file));
    }
    region.file_offset = memory.offset;
    region.stripe_bytes = device->options.stripe_bytes;
    for (std::size_t i = 0; i < region.files.size(); ++i) {
        const File& file = *region.files[i];
        if (pegaflow::backend::in_range(memory.offset, share_of(region, i), file.size)) continue;
        pegaflow::backend::log(device->host, PEGA_LOG_ERROR, "nvme", "%s has %llu bytes, the region needs %llu from %llu on",
                               file.path.c_str(), static_cast<unsigned long long>(file.size),
                               static_cast<unsigned long long>(share_of(region, i)),
                               static_cast<unsigned long long>(memory.offset));
        return PEGA_REGION_LOST;
    }
    return PEGA_OK;
}

// A piece of the disk that the option `directory` names.
pega_status carve(pega_device* device, const pega_memory& memory, pega_region& region) {
    std::shared_ptr<File> file;
    const pega_status status = open_path(device, device->options.directory, false, &file);
    if (status != PEGA_OK) return status;
    const std::lock_guard lock(device->mutex);
    std::uint64_t at = 0;
    for (const auto& [begin, length] : device->carved) {
        if (begin - at >= memory.length) break;
        at = (begin + length + kPieceUnit - 1) / kPieceUnit * kPieceUnit;
    }
    if (!pegaflow::backend::in_range(at, memory.length, file->size)) return PEGA_NO_MEMORY;
    device->carved[at] = memory.length;
    region.files.push_back(std::move(file));
    region.file_offset = at;
    region.stripe_bytes = device->options.stripe_bytes;
    region.carved = true;
    return PEGA_OK;
}

pega_status allocate_file(pega_device* device, const pega_memory& memory, pega_region& region) {
    struct stat place{};
    if (::stat(device->options.directory.c_str(), &place) == 0 && !S_ISDIR(place.st_mode)) return carve(device, memory, region);
    std::shared_ptr<File> file;
    std::string why;
    const pega_status status = File::create(memory.length, device->options, &file, &why);
    if (status != PEGA_OK) {
        pegaflow::backend::log(device->host, PEGA_LOG_ERROR, "nvme", "%s", why.c_str());
        return status;
    }
    region.files.push_back(std::move(file));
    region.stripe_bytes = device->options.stripe_bytes;
    return PEGA_OK;
}

// Memory in whole huge pages where the kernel gives them, so that its registration is short.
pega_status allocate_host(const pega_memory& memory, pega_region& region) {
    const std::uint64_t unit = memory.length >= kHugePage ? kHugePage : kPage;
    if (memory.length > UINT64_MAX - 2 * unit) return PEGA_NO_MEMORY;
    const std::uint64_t bytes = (memory.length + unit - 1) / unit * unit;
    void* mapping = ::mmap(nullptr, bytes + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return PEGA_NO_MEMORY;
    auto* const at = static_cast<std::uint8_t*>(mapping);
    const std::uint64_t lead = (unit - reinterpret_cast<std::uintptr_t>(mapping) % unit) % unit;
    if (lead != 0) ::munmap(at, lead);
    if (lead != unit) ::munmap(at + lead + bytes, unit - lead);
    if (unit == kHugePage) ::madvise(at + lead, bytes, MADV_HUGEPAGE);
    region.base = at + lead;
    region.owned = bytes;
    return PEGA_OK;
}

pega_status fill(pega_device* device, const pega_memory& memory, pega_region& region) {
    if (memory.kind == PEGA_MEMORY_FILE && memory.source == PEGA_SOURCE_PATH) return register_path(device, memory, region);
    if (memory.kind == PEGA_MEMORY_FILE && memory.source == PEGA_SOURCE_ALLOCATE) return allocate_file(device, memory, region);
    if (memory.kind == PEGA_MEMORY_HOST && memory.source == PEGA_SOURCE_ALLOCATE) return allocate_host(memory, region);
    if (memory.kind != PEGA_MEMORY_HOST || memory.source != PEGA_SOURCE_ADDRESS) return PEGA_UNSUPPORTED;
    if (memory.address == nullptr) return PEGA_INVALID;
    if (memory.length > UINT64_MAX - reinterpret_cast<std::uint64_t>(memory.address)) return PEGA_INVALID;
    region.base = static_cast<std::uint8_t*>(memory.address);
    return PEGA_OK;
}

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || memory == nullptr || out == nullptr || !pegaflow::backend::whole(*memory) || memory->length == 0)
        return PEGA_INVALID;
    auto region = std::make_unique<pega_region>();
    region->flags = memory->flags;
    region->length = memory->length;
    const pega_status status = fill(device, *memory, *region);
    if (status == PEGA_OK) adopt(device, std::move(region), out);
    return status;
}

// Takes the region's files and memory out of the ring's tables. table_mutex and mutex are held.
void leave_tables(pega_device& device, pega_region& region) {
    std::erase_if(device.table_changes, [&](const TableChange& c) { return c.region == &region; });
    if (region.buffer >= 0) {
        const std::uint64_t slices = (region.length + region.slice_bytes - 1) / region.slice_bytes;
        device.table_changes.push_back({TableChange::Kind::kDropBuffer, nullptr, region.buffer, slices, nullptr});
    }
    for (const auto& file : region.files) {
        const bool shared = std::any_of(device.regions.begin(), device.regions.end(), [&](const auto& other) {
            return other.get() != &region && std::find(other->files.begin(), other->files.end(), file) != other->files.end();
        });
        if (!shared) device.table_changes.push_back({TableChange::Kind::kDropFile, nullptr, -1, 0, file});
    }
    device.look_at_tables.store(true, std::memory_order_release);
    wake(device);
}

pega_status unregister(pega_region* region) {
    if (region == nullptr) return PEGA_INVALID;
    pega_device& device = *region->device;
    const std::lock_guard table_lock(device.table_mutex);
    const std::lock_guard lock(device.mutex);
    if (region->in_flight != 0) return PEGA_INVALID;
    leave_tables(device, *region);
    if (region->carved) device.carved.erase(region->file_offset);
    std::erase_if(device.regions, [&](const auto& r) { return r.get() == region; });
    return PEGA_OK;
}

pega_status info(pega_region* region, pega_region_info* out) {
    if (region == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region_info info{};
    info.size = out->size;
    info.kind = region->is_file() ? PEGA_MEMORY_FILE : PEGA_MEMORY_HOST;
    info.length = region->length;
    info.address = region->base;
    pegaflow::backend::copy_out(out, info);
    return PEGA_OK;
}

pega_status export_descriptor(pega_region* region, void*, std::uint64_t, std::uint64_t* length) {
    return region == nullptr || length == nullptr ? PEGA_INVALID : PEGA_UNSUPPORTED;
}

pega_status import_descriptor(pega_device*, const void*, std::uint64_t, pega_region**) { return PEGA_UNSUPPORTED; }

pega_status flush(pega_region* region) {
    if (region == nullptr || !region->is_file()) return PEGA_INVALID;
    for (const auto& file : region->files) {
        if (const int error = file->flush(); error != 0) {
            pegaflow::backend::log(region->device->host, PEGA_LOG_ERROR, "nvme", "flush of %s: %s", file->path.c_str(),
                                   std::strerror(error));
            return PEGA_REGION_LOST;
        }
    }
    return PEGA_OK;
}

pega_status discard(pega_region* region, std::uint64_t offset, std::uint64_t length) {
    if (region == nullptr || !region->is_file() || !pegaflow::backend::in_range(offset, length, region->length) ||
        (region->flags & PEGA_REGION_READ_ONLY) != 0) {
        return PEGA_INVALID;
    }
    while (length != 0) {
        Fragment piece;
        piece.length = length;
        region->locate(offset, &piece);
        if (const int error = piece.file->discard(piece.offset, piece.length); error != 0)
            return error == EOPNOTSUPP ? PEGA_UNSUPPORTED : PEGA_REGION_LOST;
        offset += piece.length;
        length -= piece.length;
    }
    return PEGA_OK;
}

}  // namespace

const pega_region_table kRegionTable = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                        &import_descriptor};
const pega_ext_durable kDurableTable = {sizeof(pega_ext_durable), 0, &flush, &discard};

}  // namespace nvme_backend
