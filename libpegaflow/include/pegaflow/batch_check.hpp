// SPDX-License-Identifier: Apache-2.0
// batch_check.hpp - for authors of back ends: what every batch's regions and ranges are checked for, and how they are pinned
// while it runs.
//
// Templates over what only the back end knows of its regions: `usable(local, remote)`, whether they may be the two sides of the
// batch, and `length_of(region)`. [data]
#pragma once

#include <algorithm>
#include <cstdint>

#include "pegaflow/backend.hpp"

namespace pegaflow::backend {

inline std::uint64_t largest(const std::uint64_t* values, std::uint64_t count) noexcept {
    std::uint64_t max = 0;
    for (std::uint64_t i = 0; i < count; ++i) max = std::max(max, values[i]);
    return max;
}

template <class Usable, class LengthOf>
pega_status check_spans(const pega_batch& batch, Usable&& usable, LengthOf&& length_of) noexcept {
    if (batch.span_count != 0 && (batch.spans == nullptr || batch.span_size < kFirstSize<pega_span>)) return PEGA_INVALID;
    if (batch.index_count != 0 && (batch.local_index == nullptr || batch.remote_index == nullptr)) return PEGA_INVALID;
    const std::uint64_t max_local = largest(batch.local_index, batch.index_count);
    const std::uint64_t max_remote = largest(batch.remote_index, batch.index_count);
    for (std::uint64_t i = 0; i < batch.span_count; ++i) {
        const pega_span& s = span_at(batch, i);
        if (!usable(s.local_region, s.remote_region) || s.segments == 0) return PEGA_INVALID;
        if (batch.index_count == 0) continue;
        if (!side_in_range({s.local_base, s.local_stride, s.local_segment_stride}, max_local, s.segments, s.page_bytes,
                           length_of(s.local_region)) ||
            !side_in_range({s.remote_base, s.remote_stride, s.remote_segment_stride}, max_remote, s.segments, s.page_bytes,
                           length_of(s.remote_region))) {
            return PEGA_INVALID;
        }
    }
    return PEGA_OK;
}

template <class Usable, class LengthOf>
pega_status check_flat(const pega_batch& batch, Usable&& usable, LengthOf&& length_of) noexcept {
    if (!usable(batch.local_region, batch.remote_region)) return PEGA_INVALID;
    if (batch.flat_count == 0) return PEGA_OK;
    if (batch.local_offsets == nullptr || batch.remote_offsets == nullptr || batch.lengths == nullptr) return PEGA_INVALID;
    const std::uint64_t local = length_of(batch.local_region);
    const std::uint64_t remote = length_of(batch.remote_region);
    for (std::uint64_t i = 0; i < batch.flat_count; ++i) {
        if (!in_range(batch.local_offsets[i], batch.lengths[i], local) ||
            !in_range(batch.remote_offsets[i], batch.lengths[i], remote)) {
            return PEGA_INVALID;
        }
    }
    return PEGA_OK;
}

// INVALID for a batch that is not sound in its format, too. The caller has looked at its size and operation.
template <class Usable, class LengthOf>
pega_status check_batch(const pega_batch& batch, Usable&& usable, LengthOf&& length_of) noexcept {
    if (batch.format == PEGA_FORMAT_FLAT) return check_flat(batch, usable, length_of);
    return batch.format == PEGA_FORMAT_SPANS ? check_spans(batch, usable, length_of) : PEGA_INVALID;
}

// Calls `visit` for both regions of a flat batch, or of each span.
template <class Visit>
void for_each_region(const pega_batch& batch, Visit&& visit) {
    if (batch.format == PEGA_FORMAT_FLAT) {
        visit(batch.local_region);
        visit(batch.remote_region);
        return;
    }
    for (std::uint64_t i = 0; i < batch.span_count; ++i) {
        const pega_span& span = span_at(batch, i);
        visit(span.local_region);
        visit(span.remote_region);
    }
}

}  // namespace pegaflow::backend
