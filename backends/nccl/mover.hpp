// SPDX-License-Identifier: Apache-2.0
// mover.hpp - the GPU's half of a link: two streams, a ring of staging slots, and the copies between scattered memory and a
// slot.
//
// `comm` carries what NCCL queues, `side` the copies before and after it, so that one part is packed while another is on its
// way. Order between the two is kept by events on the GPU; the host waits for nothing. One thread at a time, context current.
#pragma once

#include <array>
#include <vector>

#include "../cuda/kernels.hpp"
#include "../cuda/rings.hpp"

namespace nccl_backend {

using cuda_backend::DevicePointer;
using cuda_backend::Driver;
using cuda_backend::Event;
using cuda_backend::Kernels;
using cuda_backend::StagingRing;
using cuda_backend::Stream;
using CudaResult = cuda_backend::Result;

// Bytes of this side, as the GPU addresses them.
struct Run {
    DevicePointer at = 0;
    std::uint64_t length = 0;
    bool host = false;  // pinned host memory
};
struct Copy {
    DevicePointer target = 0, source = 0;
    std::uint64_t length = 0;
};

class Mover {
public:
    // What is queued at once must need no more portions of descriptors than there are.
    static constexpr std::size_t kMostParts = 8;

    CudaResult open(const Driver& driver, const Kernels& kernels, std::uint64_t slot_bytes, unsigned multiprocessors);
    void close() noexcept;  // nothing is in flight any more

    CudaResult copy(const std::vector<Copy>& copies) noexcept;  // on the side stream
    // Packs runs into a slot behind its last use, and lets the comm stream go on when that is done.
    CudaResult pack(const std::vector<Run>& from, StagingRing::Slot*& slot) noexcept;
    // Takes a slot for NCCL to fill, behind its last use.
    CudaResult take(StagingRing::Slot*& slot) noexcept;
    // Behind what NCCL has queued: the slot's bytes go to the runs.
    CudaResult unpack(StagingRing::Slot& slot, const std::vector<Run>& to) noexcept;
    CudaResult sent(StagingRing::Slot& slot) noexcept;  // behind what NCCL has queued: the slot may be used again

    Stream comm() const noexcept { return comm_; }
    Stream side() const noexcept { return side_; }
    // Events, kept for the next one. null when there is none to be had.
    Event take_event() noexcept;
    void give_event(Event event) { spare_.push_back(event); }

private:
    CudaResult launch(const std::vector<Copy>& copies, bool aligned) noexcept;

    const Driver* driver_ = nullptr;
    const Kernels* kernels_ = nullptr;
    unsigned multiprocessors_ = 0;
    std::uint64_t slot_bytes_ = 0;
    Stream comm_ = nullptr, side_ = nullptr;
    cuda_backend::DescriptorRing descriptors_;
    StagingRing staging_;
    std::vector<Event> spare_;
    std::vector<Copy> copies_;  // of pack and unpack; keeps its memory
};

}  // namespace nccl_backend
