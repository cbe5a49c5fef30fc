// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/host_memory.hpp"

#include <fmt/format.h>
#include <linux/mman.h>
#include <sys/mman.h>

#include <utility>

#include "pegaflow/bytes.hpp"

namespace pegaflow::cli {
namespace {

constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;

}  // namespace

Result<HostMemory> HostMemory::huge(std::uint64_t bytes) {
    HostMemory out;
    out.bytes_ = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    // Without MAP_NORESERVE the kernel refuses here what it could not give at the first touch.
    void* const memory =
        ::mmap(nullptr, out.bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
    if (memory == MAP_FAILED)
        return fail(Code::kNoMemory, fmt::format("{} of huge pages are not to be had; vm.nr_hugepages sets {} aside",
                                                 format_size(out.bytes_), out.bytes_ / kHugePage));
    out.address_ = memory;
    return out;
}

HostMemory::HostMemory(HostMemory&& other) noexcept
    : address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

HostMemory::~HostMemory() {
    if (address_ != nullptr) ::munmap(address_, bytes_);
}

}  // namespace pegaflow::cli
