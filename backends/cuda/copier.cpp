// SPDX-License-Identifier: Apache-2.0
#include "copier.hpp"

#include <algorithm>

#include "pieces.hpp"

namespace cuda_backend {
namespace {

constexpr unsigned bit(Path path) noexcept { return 1U << static_cast<unsigned>(path); }

// Links between GPUs are faster than the copy engine can be fed with small runs; kernels feed them. By rule and not by
// measurement: which peers there will be is not known when a device is opened, and their memory is busy.
Path peer_path(const Plan& plan, unsigned can, std::uint64_t kernels_below) noexcept {
    if (plan.fragment < kernels_below && (can & bit(Path::kBulk)) != 0) return Path::kBulk;
    if (plan.fragment < kernels_below && (can & bit(Path::kVector)) != 0) return Path::kVector;
    return (can & bit(Path::kBatch)) != 0 ? Path::kBatch : Path::kLoop;
}

}  // namespace

Result Copier::open(const CopyTools& tools, bool urgent) {
    tools_ = tools;
    const Driver& driver = *tools.driver;
    int least = 0;
    int greatest = 0;
    driver.cuCtxGetStreamPriorityRange(&least, &greatest);
    const int priority = urgent || tools.settings->high_priority ? greatest : least;
    Result result = driver.cuStreamCreateWithPriority(&main_, kStreamNonBlocking, priority);
    if (result == kSuccess) result = driver.cuStreamCreateWithPriority(&side_, kStreamNonBlocking, priority);
    if (result == kSuccess) result = driver.cuStreamCreateWithPriority(&engine_, kStreamNonBlocking, priority);
    if (result == kSuccess) result = driver.cuEventCreate(&joined_, kEventDisableTiming);
    if (result == kSuccess) result = kernel_lane_.prepare(driver);
    if (result == kSuccess) result = engine_lane_.prepare(driver);
    if (result == kSuccess && tools.kernels->usable(Path::kVector)) result = descriptors_.prepare(driver);
    // Without memory for them there are no digests, that is all.
    if (result == kSuccess && tools.kernels->usable(Path::kVector)) static_cast<void>(digests_.prepare(driver));
    if (result != kSuccess) close();
    return result;
}

void Copier::close() noexcept {
    if (tools_.driver == nullptr) return;
    descriptors_.release(*tools_.driver);
    staging_.release(*tools_.driver);
    digests_.release(*tools_.driver);
    kernel_lane_.release(*tools_.driver);
    engine_lane_.release(*tools_.driver);
    if (joined_ != nullptr) tools_.driver->cuEventDestroy_v2(joined_);
    for (const Stream stream : {main_, side_, engine_}) {
        if (stream != nullptr) tools_.driver->cuStreamDestroy_v2(stream);
    }
    main_ = side_ = engine_ = nullptr;
    joined_ = nullptr;
}

void Copier::synchronize() noexcept {
    for (const Stream stream : {side_, main_, engine_}) tools_.driver->cuStreamSynchronize(stream);
}

// Bit per path that can move this plan at all.
unsigned Copier::usable(const Plan& plan) const noexcept {
    unsigned out = bit(Path::kLoop);
    if (plan.mixed) return out;
    if (tools_.driver->has_batched_copies()) out |= bit(Path::kBatch);
    const Kernels& kernels = *tools_.kernels;
    if (!kernels.usable(Path::kVector) || plan.pair_count > kMostPairs) return out;
    std::uint64_t largest = 0;
    for (const Tile& tile : plan.tiles) largest = std::max(largest, tile.bytes);
    for (std::uint64_t i = 0; plan.lengths() != nullptr && i < plan.pair_count; ++i)
        largest = std::max(largest, plan.lengths()[i]);
    if (pieces_of(largest, kPiece) > kMostPieces) return out;
    out |= bit(Path::kVector);
    if (kernels.usable(Path::kBulk) && plan.aligned) out |= bit(Path::kBulk);
    // Pages smaller than that would be a copy each on the host's side: packing them gains nothing.
    constexpr std::uint64_t kLeastRun = 256U << 10;
    const bool packs = plan.lengths() == nullptr && plan.b_is_host && plan.page_run >= std::min(kLeastRun, plan.bytes);
    if (packs && largest <= tools_.settings->staging_chunk) out |= bit(Path::kStaged);
    return out;
}

void Copier::choose(const Plan& plan, unsigned can, std::uint64_t mark_bytes, Route& route) const noexcept {
    Workload workload{plan.to_a, plan.fragment, plan.page_run, mark_bytes, false};
    const Path forced = tools_.settings->forced;
    if (forced == Path::kShared) {
        workload.crowded = true;
        const Choice choice = tools_.table->choose(workload, can & ~bit(Path::kBatch) & ~bit(Path::kLoop));
        route.path = choice.path;
        route.shared = route.kernels() && (can & bit(Path::kBatch)) != 0 && plan.lengths() == nullptr;
    } else if (forced != Path::kAuto) {
        route.path = (can & bit(forced)) != 0 ? forced : Path::kLoop;
    } else if (!plan.b_is_host) {
        route.path = peer_path(plan, can, tools_.settings->peer_kernel_bytes);
    } else {
        workload.crowded = tools_.contention->crowded();
        const Choice choice = tools_.table->choose(workload, can);
        route.path = choice.path;
        route.shared = choice.shared && plan.lengths() == nullptr;
        route.needs_room = choice.needs_room;
    }
}

Route Copier::prepare(const Plan& plan, std::uint64_t mark_bytes) {
    const unsigned can = usable(plan);
    Route route;
    route.end = main_;
    choose(plan, can, mark_bytes, route);
    // Without memory for the ring the kernels still work.
    if (route.path == Path::kStaged && staging_.prepare(*tools_.driver, tools_.settings->staging_chunk) != kSuccess)
        route.path = (can & bit(Path::kBulk)) != 0 ? Path::kBulk : Path::kVector;
    if (route.path == Path::kBulk || route.path == Path::kVector) {
        if (on_side_) route.end = side_;
        on_side_ = !on_side_;
    }
    return route;
}

// The first kernel of a staged plan runs on the side stream when it packs, on the main stream when it unpacks.
DigestArea Copier::take_digests(const Plan& plan, const Route& route) noexcept {
    if (!plan.digestible || !route.digests()) return {};
    const Stream stream = route.path == Path::kStaged ? (plan.to_a ? main_ : side_) : route.end;
    return digests_.take(*tools_.driver, plan.pair_count, stream);
}

Result Copier::fetch_digests(const DigestArea& area, const Route& route) noexcept {
    return digests_.fetch(*tools_.driver, area, route.end);
}

Result Copier::step(const Plan& plan, const Route& route, unsigned multiprocessors, DevicePointer sums, Cursor& cursor,
                    std::uint64_t& queued) noexcept {
    multiprocessors_ = multiprocessors;
    sums_ = sums;
    if (plan.groups[cursor.group].tile_count == 0 || plan.pair_count == 0) {
        cursor = {cursor.group + 1, 0, 0};
        return kSuccess;
    }
    if (route.shared) return step_shared(plan, route, cursor, queued);
    switch (route.path) {
        case Path::kBulk:
        case Path::kVector:
            return plan.lengths() != nullptr ? step_lengths(plan, route, cursor, queued)
                                             : step_kernel(plan, route, cursor, queued);
        case Path::kStaged:
            return step_staged(plan, cursor, queued);
        default:
            return step_runs(plan, route, cursor, queued);
    }
}

Result Copier::step_runs(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept {
    const bool batched = route.path == Path::kBatch;
    const std::uint32_t end = cursor.group + 1;
    std::size_t count = 0;
    for (Run run; count < kRunsACall && plan.next_run(cursor, end, run); ++count) {
        targets_[count] = plan.to_a ? run.a : run.b;
        sources_[count] = plan.to_a ? run.b : run.a;
        lengths_[count] = run.bytes;
        queued += run.bytes;
    }
    return flush(count, batched, route.end);
}

Result Copier::flush(std::size_t count, bool batched, Stream stream) noexcept {
    const Driver& driver = *tools_.driver;
    if (batched && count > 1) return driver.copy_batch(targets_.data(), sources_.data(), lengths_.data(), count, stream);
    Result result = kSuccess;
    for (std::size_t i = 0; i < count && result == kSuccess; ++i)
        result = driver.cuMemcpyAsync(targets_[i], sources_[i], lengths_[i], stream);
    return result;
}

void Copier::Feed::add(const Run& next) noexcept {
    if (run_.bytes != 0 && run_.a + run_.bytes == next.a && run_.b + run_.bytes == next.b) {
        run_.bytes += next.bytes;
        return;
    }
    put();
    run_ = next;
}

void Copier::Feed::put() noexcept {
    if (run_.bytes == 0) return;
    copier_.targets_[count_] = to_a_ ? run_.a : run_.b;
    copier_.sources_[count_] = to_a_ ? run_.b : run_.a;
    copier_.lengths_[count_++] = run_.bytes;
    if (count_ < kRunsACall) return;
    if (result_ == kSuccess) result_ = copier_.flush(count_, batched_, stream_);
    count_ = 0;
}

Result Copier::Feed::end() noexcept {
    put();
    return result_ == kSuccess && count_ != 0 ? copier_.flush(count_, batched_, stream_) : result_;
}

void Copier::advance(const Plan& plan, const Band& band, Cursor& cursor) noexcept {
    const Group& group = plan.groups[cursor.group];
    cursor.pair = band.pair + band.pairs;
    if (cursor.pair < plan.pair_count) return;
    cursor = {cursor.group, band.last - group.first_tile, 0};
    if (cursor.tile >= group.tile_count) cursor = {cursor.group + 1, 0, 0};
}

}  // namespace cuda_backend
