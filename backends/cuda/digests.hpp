// SPDX-License-Identifier: Apache-2.0
// digests.hpp - where the kernels add up the digests of pages: GPU memory that is zeroed before, and copied to the host after.
#pragma once

#include <cstdint>

#include "driver.hpp"

namespace cuda_backend {

// The sums of one batch.
struct DigestArea {
    DevicePointer device = 0;             // 0 = none
    const std::uint64_t* host = nullptr;  // valid once the work behind `fetch` has ended
    std::uint64_t count = 0;
    std::uint64_t end = 0;  // position behind it, of the ring
};

// Areas of a ring, given back in the order in which they were taken. One thread at a time; the context is current.
class DigestRing {
public:
    static constexpr std::uint64_t kSums = 128U << 10;

    Result prepare(const Driver& driver);
    void release(const Driver& driver) noexcept;
    // Room for `count` sums, zeroed in the order of `stream`; none when the ring is full. [data]
    DigestArea take(const Driver& driver, std::uint64_t count, Stream stream) noexcept;
    // Queues the copy of the sums to the host. [data]
    Result fetch(const Driver& driver, const DigestArea& area, Stream stream) const noexcept;
    void give(const DigestArea& area) noexcept;

private:
    DevicePointer device_ = 0;
    std::uint64_t* host_ = nullptr;
    std::uint64_t begin_ = 0, end_ = 0;  // what is taken; positions grow for ever, modulo kSums they are places
};

}  // namespace cuda_backend
