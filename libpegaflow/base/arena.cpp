// SPDX-License-Identifier: Apache-2.0
#include "base/arena.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace pegaflow::base {
namespace {

constexpr std::size_t kHugepage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t bytes, std::size_t to) noexcept { return (bytes + to - 1) / to * to; }

// Begins at a huge page: mapped with room for that, and cut.
std::byte* map(std::size_t bytes) {
    void* memory = ::mmap(nullptr, bytes + kHugepage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto* const first = static_cast<std::byte*>(memory);
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    const std::size_t before = round_up(address, kHugepage) - address;
    if (before != 0) ::munmap(first, before);
    if (before != kHugepage) ::munmap(first + before + bytes, kHugepage - before);
    ::madvise(first + before, bytes, MADV_HUGEPAGE);  // refused: small pages, and slower
    return first + before;
}

}  // namespace

Arena::~Arena() {
    for (const auto& [memory, bytes] : parts_) ::munmap(memory, bytes);
}

void* Arena::allocate(std::size_t bytes) {
    bytes = round_up(bytes, kAlignment);
    if (bytes > left_) {
        const std::size_t mapped = round_up(bytes, kHugepage);
        parts_.reserve(parts_.size() + 1);
        next_ = map(mapped);
        left_ = mapped;
        parts_.emplace_back(next_, mapped);
    }
    left_ -= bytes;
    return std::exchange(next_, next_ + bytes);
}

}  // namespace pegaflow::base
