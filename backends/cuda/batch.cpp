// SPDX-License-Identifier: Apache-2.0
#include "batch.hpp"

#include <algorithm>

namespace cuda_backend {
namespace {

using pegaflow::backend::in_range;
using pegaflow::backend::side_in_range;
using pegaflow::backend::span_at;

bool usable(const pega_region* region, const pega_device* device, bool written) noexcept {
    return region != nullptr && region->device == device && !(written && (region->flags & PEGA_REGION_READ_ONLY) != 0);
}

}  // namespace

pega_status Batch::check(const pega_batch& from) const noexcept {
    const pega_device* device = channel->device;
    const bool reads = from.op == PEGA_OP_READ;
    if (from.format == PEGA_FORMAT_FLAT) {
        if (!usable(from.local_region, device, reads) || !usable(from.remote_region, device, !reads)) return PEGA_INVALID;
        if (from.flat_count != 0 &&
            (from.local_offsets == nullptr || from.remote_offsets == nullptr || from.lengths == nullptr)) {
            return PEGA_INVALID;
        }
        for (std::uint64_t i = 0; i < from.flat_count; ++i) {
            if (!in_range(from.local_offsets[i], from.lengths[i], from.local_region->length) ||
                !in_range(from.remote_offsets[i], from.lengths[i], from.remote_region->length)) {
                return PEGA_INVALID;
            }
        }
        return PEGA_OK;
    }
    if (from.format != PEGA_FORMAT_SPANS) return PEGA_INVALID;
    if (from.span_count != 0 && (from.spans == nullptr || from.span_size < sizeof(pega_span))) return PEGA_INVALID;
    if (from.index_count != 0 && (from.local_index == nullptr || from.remote_index == nullptr)) return PEGA_INVALID;
    std::uint64_t max_local = 0;
    std::uint64_t max_remote = 0;
    for (std::uint64_t i = 0; i < from.index_count; ++i) {
        max_local = std::max(max_local, from.local_index[i]);
        max_remote = std::max(max_remote, from.remote_index[i]);
    }
    for (std::uint64_t i = 0; i < from.span_count; ++i) {
        const pega_span& s = span_at(from, i);
        if (!usable(s.local_region, device, reads) || !usable(s.remote_region, device, !reads) || s.segments == 0)
            return PEGA_INVALID;
        if (from.index_count == 0) continue;
        if (!side_in_range({s.local_base, s.local_stride, s.local_segment_stride}, max_local, s.segments, s.page_bytes,
                           s.local_region->length) ||
            !side_in_range({s.remote_base, s.remote_stride, s.remote_segment_stride}, max_remote, s.segments, s.page_bytes,
                           s.remote_region->length)) {
            return PEGA_INVALID;
        }
    }
    return PEGA_OK;
}

pega_status Batch::accept(pega_channel* owner, const pega_batch& from) {
    channel = owner;
    if (from.size < sizeof(pega_batch) || (from.op != PEGA_OP_READ && from.op != PEGA_OP_WRITE)) return PEGA_INVALID;
    has_notify = false;
    wait = record = nullptr;
    for (const pega_batch_option* o = from.options; o != nullptr; o = o->next) {
        if (o->kind == PEGA_OPTION_NOTIFY) {
            has_notify = true;
            notify_value = reinterpret_cast<const pega_notify_option*>(o)->value;
        } else if (o->kind == PEGA_OPTION_STREAM) {
            const auto& stream = *reinterpret_cast<const pega_stream_option*>(o);
            wait = stream.wait == nullptr ? nullptr : stream.wait->event;
            record = stream.record == nullptr ? nullptr : stream.record->event;
        } else if ((o->flags & PEGA_OPTION_HINT) == 0) {
            return PEGA_UNSUPPORTED;
        }
    }
    if (const pega_status checked = check(from); checked != PEGA_OK) return checked;
    batch = from;
    batch.options = nullptr;
    pairs.clear();
    if (from.format == PEGA_FORMAT_SPANS) {
        pairs.reserve(from.index_count);
        for (std::uint64_t i = 0; i < from.index_count; ++i) pairs.emplace_back(from.local_index[i], from.remote_index[i]);
        // Two pages of one place land in the caller's order only if nothing is moved: sorting keeps equal places in order.
        if (!std::is_sorted(pairs.begin(), pairs.end()))
            std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    started = finished_queueing = cancel = false;
    cursor_span = cursor_page = bytes = marked = 0;
    end = nullptr;
    status = PEGA_OK;
    native_code = 0;
    return PEGA_OK;
}

void Batch::pin_regions(std::int64_t by) noexcept {
    const auto pin = [by](pega_region* region) {
        region->in_flight.fetch_add(static_cast<std::uint64_t>(by), std::memory_order_acq_rel);
    };
    if (batch.format == PEGA_FORMAT_FLAT) {
        pin(batch.local_region);
        pin(batch.remote_region);
        return;
    }
    for (std::uint64_t i = 0; i < batch.span_count; ++i) {
        pin(span_at(batch, i).local_region);
        pin(span_at(batch, i).remote_region);
    }
}

std::uint64_t Batch::pages_of(std::uint64_t span) const noexcept {
    return batch.format == PEGA_FORMAT_FLAT ? batch.flat_count : pairs.size() * span_at(batch, span).segments;
}

// Pages are numbered segment by segment, so that the pages of neighbouring blocks follow each other.
Batch::Page Batch::page(std::uint64_t span, std::uint64_t number) const noexcept {
    if (batch.format == PEGA_FORMAT_FLAT) {
        return {batch.local_region->base + batch.local_offsets[number],
                batch.remote_region->base + batch.remote_offsets[number], batch.lengths[number]};
    }
    const pega_span& s = span_at(batch, span);
    const std::uint64_t segment = number / pairs.size();
    const auto& [local, remote] = pairs[number % pairs.size()];
    return {s.local_region->base + s.local_base + local * s.local_stride + segment * s.local_segment_stride,
            s.remote_region->base + s.remote_base + remote * s.remote_stride + segment * s.remote_segment_stride, s.page_bytes};
}

void Batch::fail(Result result) noexcept {
    if (status != PEGA_OK) return;
    status = to_status(result);
    native_code = result;
}

void Batch::mark_if_due() {
    if (batch.mark_every == 0 || batch.format == PEGA_FORMAT_FLAT || cursor_span < marked + batch.mark_every ||
        cursor_span >= span_count())
        return;
    pega_device& device = *channel->device;
    Event event = device.take_event();
    if (event == nullptr) return;  // progress is told later, or with the end
    if (device.driver->cuEventRecord(event, channel->stream) != kSuccess) return device.spare_events.push_back(event);
    marked = cursor_span;
    marks.emplace_back(cursor_span, event);
}

void Batch::queue_copies(std::uint64_t limit) {
    const Driver& driver = *channel->device->driver;
    const bool reads = batch.op == PEGA_OP_READ;
    Page run{0, 0, 0};
    const auto flush = [&] {
        if (run.length == 0) return;
        const Result result =
            driver.cuMemcpyAsync(reads ? run.local : run.remote, reads ? run.remote : run.local, run.length, channel->stream);
        if (result != kSuccess) return fail(result);
        bytes += run.length;
        run.length = 0;
    };
    for (std::uint64_t copies = 0; cursor_span < span_count() && copies < limit && status == PEGA_OK;) {
        if (cursor_page >= pages_of(cursor_span)) {
            flush();
            cursor_page = 0;
            ++cursor_span;
            mark_if_due();
            continue;
        }
        const Page next = page(cursor_span, cursor_page++);
        if (run.length != 0 && run.local + run.length == next.local && run.remote + run.length == next.remote) {
            run.length += next.length;
            continue;
        }
        flush();
        run = next;
        ++copies;
    }
    flush();
}

}  // namespace cuda_backend
