// SPDX-License-Identifier: Apache-2.0
// gpu_memory.hpp - GPU memory of ours, and what this process has exported: the driver opens no handle of its own process.
#pragma once

#include <cstdint>
#include <memory>

#include "driver.hpp"

namespace cuda_backend {

// An allocation that lives as long as the regions that use it, whichever device of this process they belong to. Keeps its GPU's
// context.
class GpuMemory {
public:
    // kSuccess or what the driver said; the device's context is current. [any]
    static Result allocate(const Driver& driver, Device device, std::uint64_t length, std::shared_ptr<GpuMemory>* out);
    GpuMemory() = default;
    GpuMemory(const GpuMemory&) = delete;
    GpuMemory& operator=(const GpuMemory&) = delete;
    ~GpuMemory();
    DevicePointer base() const noexcept { return base_; }

private:
    const Driver* driver_ = nullptr;
    Device device_ = 0;
    Context context_ = nullptr;
    DevicePointer base_ = 0;
};

// An allocation of this process that a handle names.
struct Export {
    DevicePointer base = 0;
    std::uint64_t size = 0;
    int ordinal = 0;                   // of its GPU
    std::shared_ptr<GpuMemory> owner;  // null = the caller's own memory, which outlives the regions on it
};

// Remembers that `handle` names the allocation at `base`; `owner` as in Export. [any]
void remember_export(const IpcHandle& handle, DevicePointer base, const std::shared_ptr<GpuMemory>& owner);
// The allocation, when it is one of this process and still there. A context is current. [any]
bool find_export(const Driver& driver, const IpcHandle& handle, Export* out);

}  // namespace cuda_backend
