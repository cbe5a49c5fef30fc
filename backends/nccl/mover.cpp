// SPDX-License-Identifier: Apache-2.0
#include "mover.hpp"

#include <algorithm>

#include "../cuda/pieces.hpp"

namespace nccl_backend {

using cuda_backend::kEventDisableTiming;
using cuda_backend::kNotReady;
using cuda_backend::kPiece;
using cuda_backend::kSuccess;
using cuda_backend::Pair;
using cuda_backend::Path;
using cuda_backend::Tile;

CudaResult Mover::open(const Driver& driver, const Kernels& kernels, std::uint64_t slot_bytes, unsigned multiprocessors) {
    driver_ = &driver;
    kernels_ = &kernels;
    slot_bytes_ = slot_bytes;
    multiprocessors_ = multiprocessors;
    int least = 0;
    int greatest = 0;
    driver.cuCtxGetStreamPriorityRange(&least, &greatest);
    CudaResult result = driver.cuStreamCreateWithPriority(&comm_, cuda_backend::kStreamNonBlocking, greatest);
    if (result == kSuccess) result = driver.cuStreamCreateWithPriority(&side_, cuda_backend::kStreamNonBlocking, greatest);
    if (result == kSuccess && kernels.usable(Path::kVector)) result = descriptors_.prepare(driver);
    if (result != kSuccess) close();
    return result;
}

void Mover::close() noexcept {
    if (driver_ == nullptr) return;
    descriptors_.release(*driver_);
    staging_.release(*driver_);
    for (Event event : spare_) driver_->cuEventDestroy_v2(event);
    spare_.clear();
    if (comm_ != nullptr) driver_->cuStreamDestroy_v2(comm_);
    if (side_ != nullptr) driver_->cuStreamDestroy_v2(side_);
    comm_ = side_ = nullptr;
}

Event Mover::take_event() noexcept {
    Event event = nullptr;
    if (!spare_.empty()) {
        event = spare_.back();
        spare_.pop_back();
    } else if (driver_->cuEventCreate(&event, kEventDisableTiming) != kSuccess) {
        event = nullptr;
    }
    return event;
}

CudaResult Mover::copy(const std::vector<Copy>& copies) noexcept {
    constexpr std::uint64_t kLargeCopy = 256U << 10;  // from here on copy engines need no help
    std::uint64_t bytes = 0;
    std::uint64_t mixed = 0;
    for (const Copy& c : copies) {
        bytes += c.length;
        mixed |= c.target | c.source | c.length;
    }
    const bool small = bytes < kLargeCopy * copies.size();
    if (small && kernels_->usable(Path::kVector)) return launch(copies, mixed % 16 == 0);
    CudaResult result = kSuccess;
    for (std::size_t i = 0; i < copies.size() && result == kSuccess; ++i)
        result = driver_->cuMemcpyAsync(copies[i].target, copies[i].source, copies[i].length, side_);
    return result;
}

// Unified addresses are the offsets of a tile at zero; so one launch takes copies between any memories.
CudaResult Mover::launch(const std::vector<Copy>& copies, bool aligned) noexcept {
    constexpr std::uint64_t kPairsAt = sizeof(Tile);
    constexpr std::uint64_t kRoom =
        (cuda_backend::DescriptorRing::kPortionBytes - kPairsAt) / (sizeof(Pair) + sizeof(unsigned));
    std::size_t at = 0;
    std::uint64_t done = 0;
    while (at < copies.size()) {
        const auto portion = descriptors_.take(*driver_);
        if (portion.host == nullptr) return kNotReady;
        auto* pairs = reinterpret_cast<Pair*>(portion.host + kPairsAt);
        auto* lengths = reinterpret_cast<unsigned*>(portion.host + kPairsAt + kRoom * sizeof(Pair));
        *reinterpret_cast<Tile*>(portion.host) = {0, 1, 0, 1, 0, 0};
        unsigned count = 0;
        std::uint64_t largest = 0;
        while (at < copies.size() && count < kRoom) {
            const Copy& c = copies[at];
            const std::uint64_t length = std::min<std::uint64_t>(kPiece, c.length - done);
            pairs[count] = {c.source + done, c.target + done};
            lengths[count++] = static_cast<unsigned>(length);
            largest = std::max(largest, length);
            done += length;
            if (done < c.length) continue;
            ++at;
            done = 0;
        }
        cuda_backend::Job job{};
        job.tiles = reinterpret_cast<const Tile*>(portion.device);
        job.pairs = reinterpret_cast<const void*>(portion.device + kPairsAt);
        job.lengths = reinterpret_cast<const unsigned*>(portion.device + kPairsAt + kRoom * sizeof(Pair));
        job.tile_count = 1;
        job.pair_count = count;
        const Path path = aligned && kernels_->usable(Path::kBulk) ? Path::kBulk : Path::kVector;
        const CudaResult result =
            kernels_->launch(*driver_, path, kernels_->shape(path, largest), job, multiprocessors_, side_);
        if (result != kSuccess) return result;
        if (const CudaResult given = descriptors_.give(*driver_, side_); given != kSuccess) return given;
    }
    return kSuccess;
}

CudaResult Mover::pack(const std::vector<Run>& from, StagingRing::Slot*& slot) noexcept {
    CudaResult result = staging_.prepare(*driver_, slot_bytes_);
    if (result != kSuccess) return result;
    slot = &staging_.next();
    if (slot->used) result = driver_->cuStreamWaitEvent(side_, slot->drained, 0);
    copies_.clear();
    DevicePointer at = slot->base;
    for (const Run& run : from) {
        copies_.push_back({at, run.at, run.length});
        at += run.length;
    }
    if (result == kSuccess) result = copy(copies_);
    if (result == kSuccess) result = driver_->cuEventRecord(slot->filled, side_);
    return result == kSuccess ? driver_->cuStreamWaitEvent(comm_, slot->filled, 0) : result;
}

CudaResult Mover::take(StagingRing::Slot*& slot) noexcept {
    const CudaResult result = staging_.prepare(*driver_, slot_bytes_);
    if (result != kSuccess) return result;
    slot = &staging_.next();
    return slot->used ? driver_->cuStreamWaitEvent(comm_, slot->drained, 0) : kSuccess;
}

CudaResult Mover::unpack(StagingRing::Slot& slot, const std::vector<Run>& to) noexcept {
    copies_.clear();
    DevicePointer at = slot.base;
    for (const Run& run : to) {
        copies_.push_back({run.at, at, run.length});
        at += run.length;
    }
    CudaResult result = driver_->cuEventRecord(slot.filled, comm_);
    if (result == kSuccess) result = driver_->cuStreamWaitEvent(side_, slot.filled, 0);
    if (result == kSuccess) result = copy(copies_);
    if (result == kSuccess) result = driver_->cuEventRecord(slot.drained, side_);
    slot.used = true;
    return result;
}

CudaResult Mover::sent(StagingRing::Slot& slot) noexcept {
    slot.used = true;
    return driver_->cuEventRecord(slot.drained, comm_);
}

}  // namespace nccl_backend
