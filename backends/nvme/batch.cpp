// SPDX-License-Identifier: Apache-2.0
#include "batch.hpp"

#include <algorithm>

#include "device.hpp"
#include "pegaflow/batch_check.hpp"

namespace nvme_backend {
namespace {

using pegaflow::backend::span_at;

// One side is a file, the other one host memory; the side that is written may be.
bool usable(const pega_region* local, const pega_region* remote, const pega_device* device, std::uint32_t op) noexcept {
    if (local == nullptr || remote == nullptr || local->device != device || remote->device != device) return false;
    if (local->is_file() == remote->is_file()) return false;
    return ((op == PEGA_OP_READ ? local : remote)->flags & PEGA_REGION_READ_ONLY) == 0;
}

pega_status check_options(const pega_batch& batch) noexcept {
    for (const pega_batch_option* o = batch.options; o != nullptr; o = o->next) {
        if (o->kind != PEGA_OPTION_DURABLE && (o->flags & PEGA_OPTION_HINT) == 0) return PEGA_UNSUPPORTED;
    }
    return PEGA_OK;
}

}  // namespace

pega_status check(const pega_device& device, const pega_batch& batch) noexcept {
    if (!pegaflow::backend::whole(batch) || (batch.op != PEGA_OP_READ && batch.op != PEGA_OP_WRITE)) return PEGA_INVALID;
    const pega_status options = check_options(batch);
    if (options != PEGA_OK) return options;
    const auto both = [&](const pega_region* local, const pega_region* remote) {
        return usable(local, remote, &device, batch.op);
    };
    return pegaflow::backend::check_batch(batch, both, [](const pega_region* region) { return region->length; });
}

void Batch::accept(pega_channel* owner, const pega_batch& from) {
    channel = owner;
    durable = pegaflow::backend::find_option(from, PEGA_OPTION_DURABLE) != nullptr;
    batch = pegaflow::backend::copy_in(from);
    batch.options = nullptr;
    const pega_region* local = from.format == PEGA_FORMAT_FLAT ? from.local_region
                               : from.span_count != 0          ? span_at(from, 0).local_region
                                                               : nullptr;
    writes_file = local != nullptr && local->is_file() == (from.op == PEGA_OP_READ);
    cancel_requested.store(false, std::memory_order_relaxed);
    cursor = {};
    fed = syncing = false;
    outstanding = landed = marked = bytes = 0;
    first_bad = PEGA_NO_BAD;
    span_outstanding.assign(span_count(), 0);
    written.clear();
    status = PEGA_OK;
    native_code = 0;
    pegaflow::backend::for_each_region(batch, [](pega_region* region) { ++region->in_flight; });
}

void Batch::release_regions() noexcept {
    pegaflow::backend::for_each_region(batch, [](pega_region* region) { --region->in_flight; });
}

std::uint64_t Batch::pages_of(std::uint64_t span) const noexcept {
    if (batch.format == PEGA_FORMAT_FLAT) return batch.flat_count;
    const pega_span& s = span_at(batch, span);
    return s.page_bytes == 0 ? 0 : batch.index_count * s.segments;
}

bool Batch::peek(Cursor& at, Fragment* out) const noexcept {
    const bool flat = batch.format == PEGA_FORMAT_FLAT;
    for (; at.span < span_count(); ++at.span, at.page = 0) {
        const std::uint64_t pages = pages_of(at.span);
        while (flat && at.page < pages && batch.lengths[at.page] == 0) ++at.page;
        if (at.page < pages) break;
    }
    if (at.span >= span_count()) return false;
    const pega_region* local = batch.local_region;
    const pega_region* remote = batch.remote_region;
    std::uint64_t at_local = 0;
    std::uint64_t at_remote = 0;
    std::uint64_t page_bytes = 0;
    if (flat) {
        at_local = batch.local_offsets[at.page];
        at_remote = batch.remote_offsets[at.page];
        page_bytes = batch.lengths[at.page];
    } else {
        const pega_span& s = span_at(batch, at.span);
        const std::uint64_t index = s.segments == 1 ? at.page : at.page / s.segments;
        const std::uint64_t segment = s.segments == 1 ? 0 : at.page % s.segments;
        local = s.local_region;
        remote = s.remote_region;
        at_local = s.local_base + batch.local_index[index] * s.local_stride + segment * s.local_segment_stride;
        at_remote = s.remote_base + batch.remote_index[index] * s.remote_stride + segment * s.remote_segment_stride;
        page_bytes = s.page_bytes;
    }
    const bool local_is_file = local->is_file();
    out->span = at.span;
    out->page = at.page;
    out->host = local_is_file ? remote : local;
    out->memory = out->host->base + (local_is_file ? at_remote : at_local) + at.within;
    out->length = page_bytes - at.within;
    (local_is_file ? local : remote)->locate((local_is_file ? at_local : at_remote) + at.within, out);
    return true;
}

void Batch::advance(Cursor& at, std::uint64_t length) const noexcept {
    at.within += length;
    const std::uint64_t page_bytes =
        batch.format == PEGA_FORMAT_FLAT ? batch.lengths[at.page] : span_at(batch, at.span).page_bytes;
    if (at.within < page_bytes) return;
    at.within = 0;
    ++at.page;
}

void Batch::fail(std::int32_t why, std::int32_t native, std::uint64_t bad) noexcept {
    if (bad < first_bad) first_bad = bad;
    if (status != PEGA_OK) return;
    status = why;
    native_code = native;
}

void Batch::advance_landed() noexcept {
    while (landed < span_count() && (landed < cursor.span || fed) && span_outstanding[landed] == 0) ++landed;
}

bool Batch::land(std::uint64_t first, std::uint64_t last, std::uint64_t moved, bool good) noexcept {
    --outstanding;
    for (std::uint64_t span = first; span <= last; ++span) --span_outstanding[span];
    if (good) bytes += moved;
    if (status != PEGA_OK) return false;
    advance_landed();
    if (batch.mark_every == 0 || batch.format == PEGA_FORMAT_FLAT || landed < marked + batch.mark_every) return false;
    marked = landed - landed % batch.mark_every;
    return true;
}

}  // namespace nvme_backend
