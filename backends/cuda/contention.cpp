// SPDX-License-Identifier: Apache-2.0
#include "contention.hpp"

#include <algorithm>

namespace cuda_backend {
namespace {

constexpr double kUndisturbed = 0.75;             // both directions at once, slow processors and noise stay above
constexpr std::uint64_t kBatches = 4;             // after which the share is computed,
constexpr double kEnoughNs = 500e3;               // or after so much work
constexpr std::uint64_t kTryAgainNs = 500000000;  // between batches that find out whether the kernels still wait

}  // namespace

void Contention::begin(bool to_gpu, std::uint64_t now_ns) noexcept {
    Direction& d = directions_[to_gpu];
    if (d.in_flight++ != 0) d.busy_ns += static_cast<double>(now_ns - d.seen_ns);
    d.seen_ns = now_ns;
}

void Contention::end(bool to_gpu, std::uint64_t now_ns, double expected_ns) noexcept {
    Direction& d = directions_[to_gpu];
    d.busy_ns += static_cast<double>(now_ns - d.seen_ns);
    d.seen_ns = now_ns;
    --d.in_flight;
    d.expected_ns += expected_ns;
    if (expected_ns > 0 && ++d.batches < kBatches && d.expected_ns < kEnoughNs) return;
    if (expected_ns > 0) {
        // Good news is believed at once; one slow batch is no news.
        const double now = std::min(1.0, d.expected_ns / std::max(d.busy_ns, 1.0));
        const double before = d.share.load(std::memory_order_relaxed);
        d.share.store(now > before ? now : (3 * before + now) / 4, std::memory_order_relaxed);
    }
    d.busy_ns = d.expected_ns = 0;
    d.batches = 0;
}

bool Contention::crowded(bool to_gpu, std::uint64_t now_ns) noexcept {
    Direction& d = directions_[to_gpu];
    if (d.share.load(std::memory_order_relaxed) >= kUndisturbed) return false;
    std::uint64_t due = d.try_at_ns.load(std::memory_order_relaxed);
    return now_ns < due || !d.try_at_ns.compare_exchange_strong(due, now_ns + kTryAgainNs, std::memory_order_relaxed);
}

}  // namespace cuda_backend
