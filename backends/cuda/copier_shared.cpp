// SPDX-License-Identifier: Apache-2.0
// The shared path: kernels and the copy engine take parts of one plan side by side, each as fast as it goes. Beside a busy
// model kernels wait most of the time, and each one holds the model up: little of theirs is queued at a time.
#include <algorithm>

#include "copier.hpp"
#include "pieces.hpp"

namespace cuda_backend {
namespace {

constexpr std::uint64_t kLeastLaunch = 1U << 20;
constexpr std::uint64_t kMostLaunch = 4U << 20;
constexpr std::uint64_t kMostCopies = 256;  // for the copy engine at a time
constexpr std::uint64_t kMostCopied = 8U << 20;

}  // namespace

// Less and less towards the end, so that neither way is left with much when the other has done its part.
Result Copier::step_shared(const Plan& plan, const Route& route, Cursor& cursor, std::uint64_t& queued) noexcept {
    const Driver& driver = *tools_.driver;
    const bool staged = route.path == Path::kStaged;
    const std::uint64_t left = plan.bytes - queued;
    const auto part = [&](std::uint64_t bytes) {
        return staged ? chunk_at(plan, cursor, bytes) : band_at(plan, cursor, bytes);
    };
    Band band;
    Result result = kSuccess;
    if (descriptors_.take(driver).host != nullptr && (staged ? staging_.idle(driver) : kernel_lane_.has_room(driver))) {
        band = part(staged ? chunk_bytes(plan, queued) : std::clamp(left / 4, kLeastLaunch, kMostLaunch));
        result = staged ? queue_staged(plan, band) : launch(plan, route.path, band, 0, route.end);
        if (result == kSuccess && !staged) result = kernel_lane_.mark(driver, route.end);
    } else if (engine_lane_.has_room(driver)) {
        band = part(std::min({kMostCopies * plan.fragment, kMostCopied, std::max(left / 4, plan.fragment)}));
        result = copy_runs(plan, band);
        if (result == kSuccess) result = engine_lane_.mark(driver, engine_);
    } else {
        return kNotReady;
    }
    if (result != kSuccess) return result;
    queued += band.bytes();
    advance(plan, band, cursor);
    return kSuccess;
}

Result Copier::copy_runs(const Plan& plan, const Band& band) noexcept {
    Feed feed(*this, plan.to_a, true, engine_);
    for (std::uint32_t t = band.first; t < band.last; ++t) {
        const Tile& tile = plan.tiles[t];
        for (std::uint64_t i = band.pair; i < band.pair + band.pairs; ++i) {
            const Pair pair = plan.pair(i);
            feed.add({tile.a + pair.a * tile.a_stride, tile.b + pair.b * tile.b_stride, tile.bytes});
        }
    }
    return feed.end();
}

Result Copier::join(const Route& route) noexcept {
    if (!route.shared) return kSuccess;
    const Result result = tools_.driver->cuEventRecord(joined_, engine_);
    return result != kSuccess ? result : tools_.driver->cuStreamWaitEvent(route.end, joined_, 0);
}

}  // namespace cuda_backend
