// SPDX-License-Identifier: Apache-2.0
// batch.hpp - one accepted batch: which copies are queued, which are still to be.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "device.hpp"

namespace cuda_backend {

struct Batch {
    pega_channel* channel = nullptr;
    pega_batch batch{};
    Event wait = nullptr, record = nullptr;
    bool has_notify = false;
    std::uint32_t notify_value = 0;
    std::vector<std::pair<std::uint64_t, std::uint64_t>>
        pairs;  // SPANS: local and remote index, sorted, so that neighbours merge

    // Guarded by the device's mutex.
    bool started = false, finished_queueing = false, cancel = false;
    std::uint64_t cursor_span = 0, cursor_page = 0;  // of the next page; FLAT counts as one span
    std::uint64_t bytes = 0, marked = 0;
    Event end = nullptr;
    std::deque<std::pair<std::uint64_t, Event>> marks;  // leading spans, and the event behind them
    std::int32_t status = PEGA_OK, native_code = 0;

    std::uint64_t span_count() const noexcept { return batch.format == PEGA_FORMAT_FLAT ? 1 : batch.span_count; }
    // Takes the caller's batch when it is sound. INVALID or UNSUPPORTED otherwise.
    pega_status accept(pega_channel* owner, const pega_batch& from);
    void pin_regions(std::int64_t by) noexcept;
    // Queues up to `limit` copies on the channel's stream; neighbours on both sides become one. The context is current.
    void queue_copies(std::uint64_t limit);

private:
    pega_status check(const pega_batch& from) const noexcept;
    struct Page {
        DevicePointer local, remote;
        std::uint64_t length;
    };
    std::uint64_t pages_of(std::uint64_t span) const noexcept;
    Page page(std::uint64_t span, std::uint64_t number) const noexcept;
    void fail(Result result) noexcept;
    void mark_if_due();
};

}  // namespace cuda_backend
