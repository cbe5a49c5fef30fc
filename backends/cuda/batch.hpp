// SPDX-License-Identifier: Apache-2.0
// batch.hpp - one accepted batch: which part of its plan is queued, and which is still to be.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "device.hpp"
#include "plan.hpp"

namespace cuda_backend {

struct Batch {
    pega_channel* channel = nullptr;
    pega_batch batch{};
    Event wait = nullptr, record = nullptr;
    bool has_notify = false;
    std::uint32_t notify_value = 0;
    pega_digest_option digest{};  // sums is null when nobody wants them
    Plan plan;
    Route route;

    // Guarded by the device's mutex.
    bool finished_queueing = false, cancel = false;
    Cursor cursor;
    std::uint64_t bytes = 0;  // queued
    Event end = nullptr;
    DigestArea digests;
    bool digests_fetched = false;
    std::deque<std::pair<std::uint64_t, Event>> marks;  // leading spans, and the event behind them
    std::int32_t status = PEGA_OK, native_code = 0;

    std::uint64_t span_count() const noexcept { return batch.format == PEGA_FORMAT_FLAT ? 1 : batch.span_count; }
    bool all_queued() const noexcept { return cursor.group >= plan.groups.size(); }
    // Takes the caller's batch when it is sound. INVALID or UNSUPPORTED otherwise. The context is current.
    pega_status accept(pega_channel* owner, const pega_batch& from);
    void pin_regions(std::int64_t by) noexcept;
    // Queues steps until all is queued, descriptors run out, or `limit` of them are. The context is current.
    void queue_steps(int limit);
    // Around the steps: takes room for digests, queues their way to the host, and hands them to the caller.
    void begin_digests();
    void fetch_digests();
    void end_digests();

private:
    void mark();
};

}  // namespace cuda_backend
