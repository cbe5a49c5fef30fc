// SPDX-License-Identifier: Apache-2.0
// batch.hpp - one accepted batch, and how it is cut into parts.
#pragma once

#include <cstdint>
#include <vector>

#include "device.hpp"
#include "mover.hpp"

namespace nccl_backend {

// Consecutive bytes on both sides.
struct Piece {
    pega_region* local = nullptr;
    pega_region* remote = nullptr;
    std::uint64_t local_offset = 0, remote_offset = 0;
    std::uint64_t length = 0;
};

struct PartLimits {
    std::uint64_t packed_bytes = 0;  // of a part that is one message
    std::uint64_t direct_bytes = 0;  // pages from here on are messages of their own
    bool may_be_separate = false;
};

// What moves together: announced, checked, posted and ended as one.
struct Cut {
    std::vector<Piece> pieces;
    std::uint64_t bytes = 0;
    std::uint32_t regions = 0;      // runs of pieces in one remote region
    std::uint64_t spans_after = 0;  // leading spans that have landed when this part and all before have
    bool separate = false;
    bool last = false;
};

struct Batch {
    pega_channel* channel = nullptr;
    pega_batch batch{};
    cuda_backend::Event wait = nullptr, record = nullptr;
    bool has_notify = false;
    std::uint32_t notify_value = 0;
    std::uint64_t number = 0;  // unique on its link

    // Guarded by the device's mutex.
    bool started = false, cut_up = false, cancel = false, recording = false;
    std::uint64_t parts = 0;  // that have not ended
    std::uint64_t bytes = 0, landed = 0, marked = 0;
    std::int32_t status = PEGA_OK, native_code = 0;

    std::uint64_t span_count() const noexcept { return batch.format == PEGA_FORMAT_FLAT ? 1 : batch.span_count; }
    // Takes the caller's batch when it is sound. INVALID or UNSUPPORTED otherwise.
    pega_status accept(pega_channel* owner, const pega_batch& from);
    void pin_regions(std::int64_t by) noexcept;
    // The next part; false when there is none any more. [data] but for growing the vector
    bool next_part(const PartLimits& limits, Cut& out);

private:
    struct Page {
        const pega_span* span = nullptr;
        std::uint64_t local = 0, remote = 0, length = 0;
    };
    pega_status check_options(const pega_batch& from) noexcept;
    pega_status check_spans(const pega_batch& from) const noexcept;
    pega_status check_flat(const pega_batch& from) const noexcept;
    bool usable(const pega_region* local, const pega_region* remote, std::uint32_t op) const noexcept;
    std::uint64_t pages_of(std::uint64_t span) const noexcept;
    Page page_at(std::uint64_t span, std::uint64_t page) const noexcept;
    void skip_empty() noexcept;
    bool at_end() const noexcept { return span_ >= span_count(); }
    // Adds what fits of the page at the cursor; false when the part is full.
    bool add_page(const PartLimits& limits, Cut& out);

    std::uint64_t span_ = 0, page_ = 0, offset_ = 0;  // the cursor
};

}  // namespace nccl_backend
