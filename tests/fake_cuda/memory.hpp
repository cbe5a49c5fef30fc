// SPDX-License-Identifier: Apache-2.0
// memory.hpp - GPU memory of the fake driver: POSIX shared memory, so that its handles work between processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "driver.hpp"

namespace fake_cuda {

using cuda_backend::DevicePointer;
using cuda_backend::IpcHandle;

struct Allocation {
    std::size_t size = 0;
    int device = 0;
    std::string name;  // of the shared memory object
    bool owned = true;
};

// Maps the named object of shared memory, made anew or there already; null when that fails.
void* map_object(const std::string& name, std::size_t size, bool create);
// What the names of a process's objects begin with; whoever comes after it removes what it left.
std::string object_prefix(int process);

class Memory {
public:
    static Memory& instance();

    bool allocate(int device, std::size_t size, DevicePointer* out);
    bool free(DevicePointer pointer);
    // Bytes of that GPU that this process has allocated or opened.
    std::size_t used(int device);
    // The allocation that holds the address.
    bool find(DevicePointer pointer, DevicePointer* base, Allocation* out);
    bool export_handle(DevicePointer pointer, IpcHandle* out);
    bool open_handle(const IpcHandle& handle, DevicePointer* out);
    // The GPU whose memory it names, or -1 when that is memory of this process.
    static int owner_of(const IpcHandle& handle);
    // False when it was on before.
    bool enable_peer(int device, int other);
    // Whether kernels of `device` may touch the address: its own memory, host memory, or a peer's after enable_peer.
    bool reachable(int device, DevicePointer pointer);
    // True when [pointer, pointer + length) is GPU memory of one allocation, or lies in no allocation at all.
    bool whole(DevicePointer pointer, std::size_t length);

private:
    std::mutex mutex_;
    std::map<DevicePointer, Allocation> allocations_;
    std::set<std::pair<int, int>> peers_;
    std::uint64_t next_ = 0;
};

}  // namespace fake_cuda
