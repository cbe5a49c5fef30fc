// SPDX-License-Identifier: Apache-2.0
// batch.hpp - one accepted batch: what of it is claimed, what has landed.
#pragma once

#include <cstdint>
#include <vector>

#include "device.hpp"

namespace host_backend {

constexpr std::uint64_t kChunkBytes = 1 << 20;      // one claim of a worker
constexpr std::uint64_t kChunkPages = 4096;         // likewise, for tiny pages
constexpr std::uint64_t kStreamingBytes = 8 << 20;  // batches from this size on pass by the caches

// A piece of work: pages [page, page + count) of a span (or elements of a flat batch), or a byte range of one page.
struct Claim {
    std::uint64_t span = 0;
    std::uint64_t page = 0;
    std::uint64_t count = 0;
    std::uint64_t offset = 0;  // within the page, when count is 1
    std::uint64_t length = 0;  // 0 = whole pages
    std::uint64_t bytes = 0;
};

struct Batch {
    pega_channel* channel = nullptr;
    pega_batch batch{};
    bool has_notify = false;
    std::uint32_t notify_value = 0;
    pega_event* wait = nullptr;
    pega_event* record = nullptr;
    std::uint64_t* digests = nullptr;  // one an index, added to by all workers; null when nobody asked for what can be computed
    std::uint32_t* digested = nullptr;  // set at the end
    bool streaming = false;
    bool in_use = false;

    // Guarded by the device's mutex.
    std::uint64_t cursor_span = 0, cursor_page = 0, cursor_offset = 0;
    std::uint64_t outstanding = 0;                // claims being copied
    std::vector<std::uint32_t> span_outstanding;  // the same for each span
    std::uint64_t landed = 0, marked = 0, bytes = 0;
    bool copied = false;  // all bytes are there; only the notification is left
    std::int32_t status = PEGA_OK;
    std::int32_t native_code = 0;

    std::uint64_t span_count() const noexcept { return batch.format == PEGA_FORMAT_FLAT ? 1 : batch.span_count; }
    bool fully_claimed() const noexcept { return cursor_span >= span_count(); }

    // Takes the caller's batch when it is sound. INVALID or UNSUPPORTED otherwise, with nothing changed. [data]
    pega_status accept(pega_channel* owner, const pega_batch& from);
    void pin_regions(std::int64_t by) noexcept;
    // Claims the next piece; fully_claimed() is false. The mutex is held.
    Claim claim();
    // Copies a piece; the mutex is not held. False when it was not, because memory of others that it is in is gone. [data]
    bool run(const Claim& claim) const noexcept;
    // Accounts for a piece that was copied, or not. Returns true when a mark is due. The mutex is held.
    bool finish_claim(const Claim& claim, bool moved);

private:
    // One fragment of a span: where it goes, where it lies, and where in which page.
    struct Piece {
        std::uint8_t* to;
        const std::uint8_t* from;
        std::uint64_t index;
        std::uint64_t place;
    };
    pega_status check(const pega_batch& from) const noexcept;
    // Takes the options. UNSUPPORTED for one that is neither known nor a hint.
    pega_status take_options(const pega_batch& from) noexcept;
    void begin_digests() noexcept;
    void run_flat(const Claim& claim) const noexcept;
    void run_spans(const Claim& claim) const noexcept;
    void run_digested(const Claim& claim) const noexcept;
    Piece piece_of(const pega_span& span, std::uint64_t number, std::uint64_t offset) const noexcept;
    std::uint64_t pages_of(std::uint64_t span) const noexcept;
    std::uint64_t page_bytes(std::uint64_t span, std::uint64_t page) const noexcept;
    void advance_landed() noexcept;
};

}  // namespace host_backend
