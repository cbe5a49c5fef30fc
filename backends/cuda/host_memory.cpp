// SPDX-License-Identifier: Apache-2.0
#include "host_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace cuda_backend {
namespace {

constexpr std::uint64_t kHugePage = 2U << 20;
constexpr std::uint64_t kBytesAThread = 128U << 20;
constexpr std::uint64_t kMostThreads = 16;
constexpr std::uint64_t kPage = 4096;

void touch(char* from, char* to) {
    for (; from < to; from += kPage) *static_cast<volatile char*>(from) = 0;
}

// Pages belong to the node of the thread that first writes them: the threads inherit the caller's affinity.
void touch_in_parallel(char* memory, std::uint64_t length) {
    const std::uint64_t cores = std::max(std::thread::hardware_concurrency(), 1U);
    const std::uint64_t count = std::clamp<std::uint64_t>(length / kBytesAThread, 1, std::min(cores, kMostThreads));
    const std::uint64_t part = (length / count + kHugePage - 1) / kHugePage * kHugePage;
    std::vector<std::thread> threads;
    std::uint64_t started = part;
    try {
        for (; started < length; started += part) {
            char* from = memory + started;
            threads.emplace_back([=] { touch(from, memory + std::min(started + part, length)); });
        }
    } catch (const std::system_error&) {  // no more threads: this one does the rest
        touch(memory + started, memory + length);
    }
    touch(memory, memory + std::min(part, length));
    for (std::thread& thread : threads) thread.join();
}

}  // namespace

HostMemory& HostMemory::operator=(HostMemory&& other) noexcept {
    address_ = std::exchange(other.address_, nullptr);
    mapped_ = std::exchange(other.mapped_, 0);
    return *this;
}

Result HostMemory::allocate(const Driver& driver, std::uint64_t length, HostMemory* out) {
    if (length < kHugePage) return driver.cuMemHostAlloc(&out->address_, length, kHostPortable);
    const std::uint64_t mapped = (length + kHugePage - 1) / kHugePage * kHugePage;
    // One huge page more, so that the memory can begin at the start of one.
    void* raw = ::mmap(nullptr, mapped + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return kOutOfMemory;
    const auto start = reinterpret_cast<std::uintptr_t>(raw);
    const std::uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
    auto* memory = reinterpret_cast<char*>(aligned);
    if (aligned != start) ::munmap(raw, aligned - start);
    if (aligned - start != kHugePage) ::munmap(memory + mapped, kHugePage - (aligned - start));
    ::madvise(memory, mapped, MADV_HUGEPAGE);
    touch_in_parallel(memory, mapped);
    const Result result = driver.cuMemHostRegister_v2(memory, mapped, kHostPortable);
    if (result != kSuccess) {
        ::munmap(memory, mapped);
        return result;
    }
    out->address_ = memory;
    out->mapped_ = mapped;
    return kSuccess;
}

void HostMemory::release(const Driver& driver) noexcept {
    if (address_ == nullptr) return;
    if (mapped_ == 0) {
        driver.cuMemFreeHost(address_);
    } else {
        driver.cuMemHostUnregister(address_);
        ::munmap(address_, mapped_);
    }
    address_ = nullptr;
}

}  // namespace cuda_backend
