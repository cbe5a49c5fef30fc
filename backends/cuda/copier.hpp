// SPDX-License-Identifier: Apache-2.0
// copier.hpp - queues plans on a channel's streams, by whichever path was chosen.
//
// Whatever the steps of one plan queue has ended, after `join`, when an event recorded on the route's stream has. Plans of the
// kernel paths take turns on two streams, so that one begins while the other runs out; staged plans use the side stream for
// their first half and the main stream for the second. A third stream has the copy engine's part of shared plans. One thread at
// a time; the context is current.
#pragma once

#include <array>
#include <cstdint>

#include "contention.hpp"
#include "digests.hpp"
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
    const Contention* contention = nullptr;
};

// How one plan is copied, and the stream on which it ends.
struct Route {
    Path path = Path::kLoop;
    Stream end = nullptr;
    bool shared = false;      // the kernels wait for the model: the copy engine takes what they do not
    bool needs_room = false;  // whether a model has the multiprocessors decides about plans like this one
    bool kernels() const noexcept { return path == Path::kBulk || path == Path::kVector || path == Path::kStaged; }
    bool digests() const noexcept { return kernels() && !shared; }  // of all that moves
};

class Copier {
public:
    Result open(const CopyTools& tools, bool urgent);
    void close() noexcept;  // nothing is in flight any more

    // Waits until the streams are idle.
    void synchronize() noexcept;
    // The route for a plan, and what it needs is reserved. [data] once that was reserved.
    Route prepare(const Plan& plan, std::uint64_t mark_bytes);
    // Where a plan's digests are added up; queued before its steps. None when the route has no kernel that could, or no room
    // is left. Areas are given back in the order of their plans, when these have ended. [data]
    DigestArea take_digests(const Plan& plan, const Route& route) noexcept;
    // Queues the sums' way to the host, behind all steps. [data]
    Result fetch_digests(const DigestArea& area, const Route& route) noexcept;
    void give_digests(const DigestArea& area) noexcept { digests_.give(area); }

    // Queues the next part of the cursor's group, moves the cursor and adds to `queued` bytes; a kernel takes at most
    // `multiprocessors` and adds digests to `sums`, if that is not 0. kNotReady: descriptors are all in use, come again. [data]
    Result step(const Plan& plan, const Route& route, unsigned multiprocessors, DevicePointer sums, Cursor& cursor,
                std::uint64_t& queued) noexcept;

    // Makes the route's stream wait for what was queued for it elsewhere: before an event is recorded that tells of it. [data]
    Result join(const Route& route) noexcept;

private:
    // Tiles [first, last) times pairs [pair, pair + pairs): what one launch moves.
    struct Band {
        std::uint32_t first = 0, last = 0;
        std::uint64_t pair = 0, pairs = 0;
        std::uint64_t block_bytes = 0;  // of its tiles for one pair
        bool dense = false;             // the group's
        bool few_pieces = false;        // small pieces fit the descriptors
        std::uint64_t bytes() const noexcept { return block_bytes * pairs; }
    };
    // In one call of the driver: few, so that one large batch does not keep others from being seen. (A driver 580 was seen to
    // corrupt its command stream, Xid 13 and 32, when it was given a thousand copies of 2 KiB to the GPU in one batched call.)
    static constexpr std::size_t kRunsACall = 256;

    unsigned usable(const Plan& plan) const noexcept;
    void choose(const Plan& plan, unsigned can, std::uint64_t mark_bytes, Route& route) const noexcept;
    Result step_runs(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_kernel(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_lengths(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_staged(const Plan& plan, Cursor& cursor, std::uint64_t& queued) noexcept;
    Result step_shared(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept;
    // What comes next at the cursor for a kernel, about `bytes` of it.
    Band band_at(const Plan& plan, const Cursor& cursor, std::uint64_t bytes) const noexcept;
    Band chunk_at(const Plan& plan, const Cursor& cursor, std::uint64_t bytes) const noexcept;
    std::uint64_t chunk_bytes(const Plan& plan, std::uint64_t queued) const noexcept;
    // Writes a band's descriptors and queues the kernel. With `packed`, side B is that memory: the band's pages one after the
    // other when the group is dense, else tile after tile.
    Result launch(const Plan& plan, Path kernel, const Band& band, DevicePointer packed, Stream stream) noexcept;
    // Cuts the band's tiles into pieces; how many, and the largest of them. With `packed` as in `launch`.
    static unsigned write_tiles(const Plan& plan, const Band& band, DevicePointer packed, std::uint64_t piece_bytes, Tile* out,
                                std::uint64_t* largest) noexcept;
    // Bytes written.
    static std::uint64_t write_pairs(const Plan& plan, const Band& band, bool to_slot, unsigned char* out) noexcept;
    template <class Index, class OfPair>
    static std::uint64_t write_shifted(const Plan& plan, const Band& band, bool to_slot, unsigned char* out) noexcept;
    Result launch_job(Path kernel, std::uint64_t largest, const Job& job, Stream stream) noexcept;
    Result queue_staged(const Plan& plan, const Band& band) noexcept;
    Result copy_runs(const Plan& plan, const Band& band) noexcept;
    Result copy_pages(const Plan& plan, const Band& band, DevicePointer packed, Stream stream) noexcept;
    Result flush(std::size_t count, bool batched, Stream stream) noexcept;
    // Runs on their way to the copy engine: neighbours that continue each other on both sides become one.
    class Feed {
    public:
        Feed(Copier& copier, bool to_a, bool batched, Stream stream) noexcept
            : copier_(copier), to_a_(to_a), batched_(batched), stream_(stream) {}
        void add(const Run& next) noexcept;
        Result end() noexcept;

    private:
        void put() noexcept;
        Copier& copier_;
        bool to_a_, batched_;
        Stream stream_;
        Run run_;
        std::size_t count_ = 0;
        Result result_ = kSuccess;
    };
    static void advance(const Plan& plan, const Band& band, Cursor& cursor) noexcept;

    CopyTools tools_;
    Stream main_ = nullptr, side_ = nullptr, engine_ = nullptr;
    Event joined_ = nullptr;        // of the last join
    bool on_side_ = false;          // where the next plan of a kernel path runs
    unsigned multiprocessors_ = 1;  // of the step under way
    DevicePointer sums_ = 0;        // likewise
    DigestRing digests_;
    DescriptorRing descriptors_;
    StagingRing staging_;
    Lane kernel_lane_, engine_lane_;  // of shared plans; staged ones have their slots instead of the first
    InlineJob inline_{};
    std::array<DevicePointer, kRunsACall> targets_{}, sources_{};
    std::array<std::size_t, kRunsACall> lengths_{};
};

}  // namespace cuda_backend
