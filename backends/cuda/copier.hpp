// SPDX-License-Identifier: Apache-2.0
// copier.hpp - queues plans on a channel's streams, by whichever path was chosen.
//
// Work of one channel is ordered by its main stream: whatever a step queues has ended when an event recorded on the main stream
// behind it has. The side stream carries the first half of staged copies. One thread at a time; the context is current.
#pragma once

#include <array>
#include <cstdint>

#include "kernels.hpp"
#include "plan.hpp"
#include "rings.hpp"
#include "settings.hpp"

namespace cuda_backend {

// What one device's channels share.
struct CopyTools {
    const Driver* driver = nullptr;
    const Kernels* kernels = nullptr;
    const Settings* settings = nullptr;
    const PathTable* table = nullptr;
};

class Copier {
public:
    Result open(const CopyTools& tools, bool urgent);
    void close() noexcept;  // nothing is in flight any more

    Stream main() const noexcept { return main_; }
    // Makes everything queued from here on wait for `event`.
    Result wait(Event event) noexcept;
    // Waits until both streams are idle.
    void synchronize() noexcept;
    // The path for a plan, and what it needs is reserved. [data] once that was reserved.
    Path prepare(const Plan& plan, std::uint64_t mark_bytes);
    // Queues the next part of the cursor's group, moves the cursor and adds to `queued` bytes. kNotReady: descriptors are all
    // in use, come again. [data]
    Result step(const Plan& plan, Path path, Cursor& cursor, std::uint64_t& queued) noexcept;

private:
    // Tiles [first, last) times pairs [pair, pair + pairs): what one launch moves.
    struct Band {
        std::uint32_t first = 0, last = 0;
        std::uint64_t pair = 0, pairs = 0;
        std::uint64_t block_bytes = 0;  // of its tiles for one pair
        bool dense = false;             // the group's
        std::uint64_t bytes() const noexcept { return block_bytes * pairs; }
    };
    static constexpr std::size_t kRuns = 1024;

    unsigned usable(const Plan& plan) const noexcept;
    unsigned multiprocessors(const Plan& plan) const noexcept;
    Result step_runs(const Plan& plan, bool batched, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_kernel(const Plan& plan, Path kernel, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_lengths(const Plan& plan, Path kernel, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_staged(const Plan& plan, Cursor& cursor, std::uint64_t& queued) noexcept;
    Band band_at(const Plan& plan, const Cursor& cursor) const noexcept;
    Band chunk_at(const Plan& plan, const Cursor& cursor, std::uint64_t bytes) const noexcept;
    std::uint64_t chunk_bytes(const Plan& plan, std::uint64_t queued) const noexcept;
    // Writes a band's descriptors and queues the kernel. With `packed`, side B is that memory: the band's pages one after the
    // other when the group is dense, else tile after tile.
    Result launch(const Plan& plan, Path kernel, const Band& band, DevicePointer packed, Stream stream) noexcept;
    Result launch_job(Path kernel, std::uint64_t largest, const Job& job, unsigned multiprocessors, Stream stream) noexcept;
    Result copy_pages(const Plan& plan, const Band& band, DevicePointer packed, Stream stream) noexcept;
    Result flush(std::size_t count, bool batched, Stream stream) noexcept;
    static void advance(const Plan& plan, const Band& band, Cursor& cursor) noexcept;

    CopyTools tools_;
    Stream main_ = nullptr, side_ = nullptr;
    DescriptorRing descriptors_;
    StagingRing staging_;
    std::array<DevicePointer, kRuns> targets_{}, sources_{};
    std::array<std::size_t, kRuns> lengths_{};
};

}  // namespace cuda_backend
