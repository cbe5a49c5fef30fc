// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace fake_cuda {
namespace {

// What travels in a handle: the name, the size and the device.
struct Content {
    char name[44];
    int device;
    std::uint64_t size;
};
static_assert(sizeof(Content) <= sizeof(IpcHandle));

// Killed processes leave objects behind, whose names a later process with the same number would want.
void remove_objects_of_the_dead() {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", ignored)) {
        const std::string name = entry.path().filename().string();
        int process = 0;
        if (std::sscanf(name.c_str(), "pega_fake_cuda_%d_", &process) != 1) continue;
        const bool dead = ::kill(process, 0) != 0 && errno == ESRCH;
        if (dead || process == ::getpid()) ::shm_unlink(("/" + name).c_str());
    }
}

}  // namespace

void* map_object(const std::string& name, std::size_t size, bool create) {
    const int fd = ::shm_open(name.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) return nullptr;
    struct stat status{};
    const bool sized = create ? ::ftruncate(fd, static_cast<off_t>(size)) == 0
                              : ::fstat(fd, &status) == 0 && static_cast<std::size_t>(status.st_size) >= size;
    void* address = sized ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    ::close(fd);
    return address == MAP_FAILED ? nullptr : address;
}

std::string object_prefix(int process) { return "/pega_fake_cuda_" + std::to_string(process) + "_"; }

Memory& Memory::instance() {
    // Unlinks what a process leaves behind, so that tests leave nothing in /dev/shm.
    struct Owner : Memory {
        Owner() { remove_objects_of_the_dead(); }
        ~Owner() {
            for (const auto& [base, allocation] : allocations_) {
                if (allocation.owned) ::shm_unlink(allocation.name.c_str());
            }
        }
    };
    static Owner memory;
    return memory;
}

bool Memory::allocate(int device, std::size_t size, DevicePointer* out) {
    const std::lock_guard lock(mutex_);
    Allocation allocation;
    allocation.size = size;
    allocation.device = device;
    allocation.name = object_prefix(::getpid()) + std::to_string(next_++);
    void* address = map_object(allocation.name, size, true);
    if (address == nullptr) return false;
    *out = reinterpret_cast<DevicePointer>(address);
    allocations_[*out] = allocation;
    return true;
}

bool Memory::free(DevicePointer pointer) {
    const std::lock_guard lock(mutex_);
    const auto it = allocations_.find(pointer);
    if (it == allocations_.end()) return false;
    ::munmap(reinterpret_cast<void*>(pointer), it->second.size);
    if (it->second.owned) ::shm_unlink(it->second.name.c_str());
    allocations_.erase(it);
    return true;
}

std::size_t Memory::used(int device) {
    const std::lock_guard lock(mutex_);
    std::size_t bytes = 0;
    for (const auto& [base, allocation] : allocations_) bytes += allocation.device == device ? allocation.size : 0;
    return bytes;
}

bool Memory::find(DevicePointer pointer, DevicePointer* base, Allocation* out) {
    const std::lock_guard lock(mutex_);
    auto it = allocations_.upper_bound(pointer);
    if (it == allocations_.begin()) return false;
    --it;
    if (pointer >= it->first + it->second.size) return false;
    *base = it->first;
    *out = it->second;
    return true;
}

bool Memory::export_handle(DevicePointer pointer, IpcHandle* out) {
    DevicePointer base = 0;
    Allocation allocation;
    if (!find(pointer, &base, &allocation)) return false;
    Content content{};
    std::snprintf(content.name, sizeof content.name, "%s", allocation.name.c_str());
    content.device = allocation.device;
    content.size = allocation.size;
    *out = {};
    std::memcpy(out->bytes, &content, sizeof content);
    return true;
}

bool Memory::open_handle(const IpcHandle& handle, DevicePointer* out) {
    Content content{};
    std::memcpy(&content, handle.bytes, sizeof content);
    content.name[sizeof content.name - 1] = 0;
    if (std::strncmp(content.name, "/pega_fake_cuda_", 16) != 0) return false;
    void* address = map_object(content.name, content.size, false);
    if (address == nullptr) return false;
    const std::lock_guard lock(mutex_);
    *out = reinterpret_cast<DevicePointer>(address);
    allocations_[*out] = {content.size, content.device, content.name, false};
    return true;
}

int Memory::owner_of(const IpcHandle& handle) {
    Content content{};
    std::memcpy(&content, handle.bytes, sizeof content);
    content.name[sizeof content.name - 1] = 0;
    return std::string(content.name).starts_with(object_prefix(::getpid())) ? -1 : content.device;
}

bool Memory::enable_peer(int device, int other) {
    const std::lock_guard lock(mutex_);
    return peers_.insert({device, other}).second;
}

bool Memory::reachable(int device, DevicePointer pointer) {
    DevicePointer base = 0;
    Allocation allocation;
    if (!find(pointer, &base, &allocation) || allocation.device == device) return true;
    const std::lock_guard lock(mutex_);
    return peers_.contains({device, allocation.device});
}

bool Memory::whole(DevicePointer pointer, std::size_t length) {
    DevicePointer base = 0;
    Allocation allocation;
    return !find(pointer, &base, &allocation) || pointer + length <= base + allocation.size;
}

}  // namespace fake_cuda
