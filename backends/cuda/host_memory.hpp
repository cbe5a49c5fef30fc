// SPDX-License-Identifier: Apache-2.0
// host_memory.hpp - pinned host memory of our own: huge pages where the kernel gives them, touched by several threads at once.
#pragma once

#include <cstdint>

#include "driver.hpp"

namespace cuda_backend {

// Pinned memory of `length` bytes that GPUs address too. From 2 MiB on it is mapped, advised to be huge pages, touched in
// parallel and registered, which takes a fraction of what the driver's own allocation does; less than that comes from the
// driver.
class HostMemory {
public:
    HostMemory() = default;
    HostMemory(HostMemory&& other) noexcept { *this = static_cast<HostMemory&&>(other); }
    HostMemory& operator=(HostMemory&& other) noexcept;
    // Gives the memory back; the context is current.
    void release(const Driver& driver) noexcept;

    // kSuccess or what the driver said. The context is current. [any]
    static Result allocate(const Driver& driver, std::uint64_t length, HostMemory* out);
    void* address() const noexcept { return address_; }

private:
    void* address_ = nullptr;
    std::uint64_t mapped_ = 0;  // bytes; 0 = the driver's own allocation
};

}  // namespace cuda_backend
