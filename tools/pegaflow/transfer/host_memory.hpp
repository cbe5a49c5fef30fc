// SPDX-License-Identifier: Apache-2.0
// host_memory.hpp - memory of huge pages for the host's sides of a transfer benchmark.
#pragma once

#include <cstdint>

#include "pegaflow/result.hpp"

namespace pegaflow::cli {

enum class HugePages {
    kAuto,  // where enough are set aside (vm.nr_hugepages)
    k2M,    // nothing else will do
    kOff,
};

class HostMemory {
public:
    HostMemory() noexcept = default;
    // At least `bytes`, in pages of 2 MiB that are set aside. kNoMemory when there are not enough.
    static Result<HostMemory> huge(std::uint64_t bytes);
    HostMemory(HostMemory&& other) noexcept;
    HostMemory& operator=(HostMemory&& other) noexcept;
    ~HostMemory();

    void* address() const noexcept { return address_; }

private:
    void* address_ = nullptr;
    std::uint64_t bytes_ = 0;
};

}  // namespace pegaflow::cli
