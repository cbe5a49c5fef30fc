// SPDX-License-Identifier: Apache-2.0
#include "rings.hpp"

namespace cuda_backend {

Result DescriptorRing::prepare(const Driver& driver) {
    if (memory_ != nullptr) return kSuccess;
    void* memory = nullptr;
    if (const Result result = driver.cuMemHostAlloc(&memory, kPortions * kPortionBytes, kHostPortable); result != kSuccess)
        return result;
    memory_ = static_cast<unsigned char*>(memory);
    Result result = driver.cuMemHostGetDevicePointer_v2(&device_, memory, 0);
    if (driver.cuMemAlloc_v2(&copies_, kPortions * kPortionBytes) != kSuccess) copies_ = 0;
    for (Event& event : free_) {
        if (result == kSuccess) result = driver.cuEventCreate(&event, kEventDisableTiming);
    }
    if (result != kSuccess) release(driver);
    return result;
}

void DescriptorRing::release(const Driver& driver) noexcept {
    for (Event& event : free_) {
        if (event != nullptr) driver.cuEventDestroy_v2(event);
        event = nullptr;
    }
    if (memory_ != nullptr) driver.cuMemFreeHost(memory_);
    if (copies_ != 0) driver.cuMemFree_v2(copies_);
    memory_ = nullptr;
    copies_ = 0;
    used_ = {};
}

DescriptorRing::Portion DescriptorRing::take(const Driver& driver) noexcept {
    if (used_[next_] && driver.cuEventQuery(free_[next_]) == kNotReady) return {};
    used_[next_] = false;
    return {memory_ + next_ * kPortionBytes, device_ + next_ * kPortionBytes};
}

DevicePointer DescriptorRing::upload(const Driver& driver, std::uint64_t bytes, Stream stream) noexcept {
    const std::uint64_t at = next_ * kPortionBytes;
    const bool copied = copies_ != 0 && driver.cuMemcpyAsync(copies_ + at, device_ + at, bytes, stream) == kSuccess;
    return (copied ? copies_ : device_) + at;
}

Result DescriptorRing::give(const Driver& driver, Stream stream) noexcept {
    const Result result = driver.cuEventRecord(free_[next_], stream);
    used_[next_] = result == kSuccess;
    next_ = (next_ + 1) % kPortions;
    return result;
}

Result Lane::prepare(const Driver& driver) {
    Result result = kSuccess;
    for (Event& event : ended_) {
        if (event == nullptr && result == kSuccess) result = driver.cuEventCreate(&event, kEventDisableTiming);
    }
    return result;
}

void Lane::release(const Driver& driver) noexcept {
    for (Event& event : ended_) {
        if (event != nullptr) driver.cuEventDestroy_v2(event);
        event = nullptr;
    }
    used_ = {};
}

bool Lane::has_room(const Driver& driver) const noexcept {
    return !used_[next_] || driver.cuEventQuery(ended_[next_]) != kNotReady;
}

Result Lane::mark(const Driver& driver, Stream stream) noexcept {
    const Result result = driver.cuEventRecord(ended_[next_], stream);
    used_[next_] = result == kSuccess;
    next_ = (next_ + 1) % kParts;
    return result;
}

// Slots are drained in order.
bool StagingRing::idle(const Driver& driver) const noexcept {
    const Slot& slot = slots_[(next_ + kSlots - 1) % kSlots];
    return !slot.used || driver.cuEventQuery(slot.drained) != kNotReady;
}

Result StagingRing::prepare(const Driver& driver, std::uint64_t slot_bytes) {
    if (memory_ != 0) return kSuccess;
    if (const Result result = driver.cuMemAlloc_v2(&memory_, kSlots * slot_bytes); result != kSuccess) {
        memory_ = 0;
        return result;
    }
    slot_bytes_ = slot_bytes;
    Result result = kSuccess;
    for (std::size_t i = 0; i < kSlots && result == kSuccess; ++i) {
        Slot& slot = slots_[i];
        slot.base = memory_ + i * slot_bytes;
        result = driver.cuEventCreate(&slot.filled, kEventDisableTiming);
        if (result == kSuccess) result = driver.cuEventCreate(&slot.drained, kEventDisableTiming);
    }
    if (result != kSuccess) release(driver);
    return result;
}

void StagingRing::release(const Driver& driver) noexcept {
    for (Slot& slot : slots_) {
        if (slot.filled != nullptr) driver.cuEventDestroy_v2(slot.filled);
        if (slot.drained != nullptr) driver.cuEventDestroy_v2(slot.drained);
        slot = {};
    }
    if (memory_ != 0) driver.cuMemFree_v2(memory_);
    memory_ = 0;
    slot_bytes_ = 0;
}

}  // namespace cuda_backend
