// SPDX-License-Identifier: Apache-2.0
// rings.hpp - what a channel reserves before it takes batches: descriptors for kernels, and staging memory on the GPU.
#pragma once

#include <array>
#include <cstdint>

#include "driver.hpp"

namespace cuda_backend {

// Pinned memory in portions that kernels read their descriptors from. A portion is free again when the work queued behind it
// at `give` has ended. Used by one thread at a time.
class DescriptorRing {
public:
    static constexpr std::uint64_t kPortionBytes = 512U << 10;
    struct Portion {
        unsigned char* host = nullptr;
        DevicePointer device = 0;
    };

    // Allocates on first use. The context is current.
    Result prepare(const Driver& driver);
    void release(const Driver& driver) noexcept;
    // The next portion; null host while the GPU still reads it. [data]
    Portion take(const Driver& driver) noexcept;
    // Where the portion taken last is in GPU memory once its first `bytes`, which are copied on `stream`, are there; its place
    // on the host where there is no such memory. [data]
    DevicePointer upload(const Driver& driver, std::uint64_t bytes, Stream stream) noexcept;
    // Marks the portion taken last as in use until `stream` has come this far. [data]
    Result give(const Driver& driver, Stream stream) noexcept;

private:
    static constexpr std::size_t kPortions = 8;
    unsigned char* memory_ = nullptr;
    DevicePointer device_ = 0;  // the same memory as the GPU sees it
    DevicePointer copies_ = 0;  // GPU memory of that size; 0 = there is none
    std::array<Event, kPortions> free_{};
    std::array<bool, kPortions> used_{};
    std::size_t next_ = 0;
};

// What was queued one way and has not ended: only little of it at a time, so that two ways share a batch as fast as each goes.
// Used by one thread at a time.
class Lane {
public:
    Result prepare(const Driver& driver);
    void release(const Driver& driver) noexcept;
    bool has_room(const Driver& driver) const noexcept;
    // Counts what was queued on `stream` just now. [data]
    Result mark(const Driver& driver, Stream stream) noexcept;

private:
    static constexpr std::size_t kParts = 2;  // one moves while the next waits
    std::array<Event, kParts> ended_{};
    std::array<bool, kParts> used_{};
    std::size_t next_ = 0;
};

// Slots of GPU memory that a kernel packs and the copy engine empties, or the reverse. Order between the two streams is kept by
// events on the GPU; the host waits for nothing.
class StagingRing {
public:
    static constexpr std::size_t kSlots = 4;
    struct Slot {
        DevicePointer base = 0;
        Event filled = nullptr, drained = nullptr;
        bool used = false;
    };

    Result prepare(const Driver& driver, std::uint64_t slot_bytes);
    void release(const Driver& driver) noexcept;
    Slot& next() noexcept { return slots_[next_++ % kSlots]; }
    // Whether nothing moves through any slot. [data]
    bool idle(const Driver& driver) const noexcept;
    std::uint64_t slot_bytes() const noexcept { return slot_bytes_; }

private:
    DevicePointer memory_ = 0;
    std::uint64_t slot_bytes_ = 0;
    std::array<Slot, kSlots> slots_{};
    std::size_t next_ = 0;
};

}  // namespace cuda_backend
