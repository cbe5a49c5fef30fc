// SPDX-License-Identifier: Apache-2.0
#include "batch.hpp"

#include <algorithm>

#include "link.hpp"

namespace nccl_backend {
namespace {

using pegaflow::backend::in_range;
using pegaflow::backend::side_in_range;
using pegaflow::backend::span_at;

constexpr std::uint64_t kSeparateBytes = 32U << 20;  // of a part whose pages are messages of their own
constexpr std::size_t kSeparatePieces = 32;

std::uint64_t largest(const std::uint64_t* values, std::uint64_t count) noexcept {
    std::uint64_t max = 0;
    for (std::uint64_t i = 0; i < count; ++i) max = std::max(max, values[i]);
    return max;
}

}  // namespace

// A channel joins memory here and memory of its peer; the channel of a device to itself has both sides here.
bool Batch::usable(const pega_region* local, const pega_region* remote, std::uint32_t op) const noexcept {
    if (local == nullptr || remote == nullptr) return false;
    const pega_device* device = channel->device;
    if (local->device != device || remote->device != device || local->imported) return false;
    if (remote->imported ? remote->owner != channel->link->peer() : !channel->link->is_self()) return false;
    const pega_region* written = op == PEGA_OP_READ ? local : remote;
    return (written->flags & PEGA_REGION_READ_ONLY) == 0;
}

pega_status Batch::check_spans(const pega_batch& from) const noexcept {
    if (from.span_count != 0 && (from.spans == nullptr || from.span_size < pegaflow::backend::kFirstSize<pega_span>))
        return PEGA_INVALID;
    if (from.index_count != 0 && (from.local_index == nullptr || from.remote_index == nullptr)) return PEGA_INVALID;
    const std::uint64_t max_local = largest(from.local_index, from.index_count);
    const std::uint64_t max_remote = largest(from.remote_index, from.index_count);
    for (std::uint64_t i = 0; i < from.span_count; ++i) {
        const pega_span& s = span_at(from, i);
        if (!usable(s.local_region, s.remote_region, from.op) || s.segments == 0) return PEGA_INVALID;
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

pega_status Batch::check_flat(const pega_batch& from) const noexcept {
    if (!usable(from.local_region, from.remote_region, from.op)) return PEGA_INVALID;
    if (from.flat_count != 0 && (from.local_offsets == nullptr || from.remote_offsets == nullptr || from.lengths == nullptr))
        return PEGA_INVALID;
    for (std::uint64_t i = 0; i < from.flat_count; ++i) {
        if (!in_range(from.local_offsets[i], from.lengths[i], from.local_region->length) ||
            !in_range(from.remote_offsets[i], from.lengths[i], from.remote_region->length)) {
            return PEGA_INVALID;
        }
    }
    return PEGA_OK;
}

pega_status Batch::check_options(const pega_batch& from) noexcept {
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
    return PEGA_OK;
}

pega_status Batch::accept(pega_channel* owner, const pega_batch& from) {
    channel = owner;
    if (!pegaflow::backend::whole(from) || (from.op != PEGA_OP_READ && from.op != PEGA_OP_WRITE)) return PEGA_INVALID;
    if (from.format != PEGA_FORMAT_SPANS && from.format != PEGA_FORMAT_FLAT) return PEGA_INVALID;
    if (const pega_status options = check_options(from); options != PEGA_OK) return options;
    const pega_status checked = from.format == PEGA_FORMAT_FLAT ? check_flat(from) : check_spans(from);
    if (checked != PEGA_OK) return checked;
    batch = pegaflow::backend::copy_in(from);
    batch.options = nullptr;
    started = cut_up = cancel = recording = false;
    parts = bytes = landed = marked = 0;
    status = PEGA_OK;
    native_code = 0;
    span_ = page_ = offset_ = 0;
    skip_empty();
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
    return batch.format == PEGA_FORMAT_FLAT ? batch.flat_count : batch.index_count * span_at(batch, span).segments;
}

Batch::Page Batch::page_at(std::uint64_t span, std::uint64_t page) const noexcept {
    if (batch.format == PEGA_FORMAT_FLAT)
        return {nullptr, batch.local_offsets[page], batch.remote_offsets[page], batch.lengths[page]};
    const pega_span& s = span_at(batch, span);
    const std::uint64_t index = page / s.segments;
    const std::uint64_t segment = page % s.segments;
    return {&s, s.local_base + batch.local_index[index] * s.local_stride + segment * s.local_segment_stride,
            s.remote_base + batch.remote_index[index] * s.remote_stride + segment * s.remote_segment_stride, s.page_bytes};
}

// Puts the cursor on a page with bytes, or at the end.
void Batch::skip_empty() noexcept {
    while (!at_end()) {
        const std::uint64_t pages = pages_of(span_);
        if (page_ < pages && page_at(span_, page_).length != 0) return;
        if (++page_ < pages && batch.format == PEGA_FORMAT_FLAT) continue;
        ++span_;
        page_ = 0;
    }
}

bool Batch::add_page(const PartLimits& limits, Cut& out) {
    const Page page = page_at(span_, page_);
    Piece piece;
    piece.local = page.span == nullptr ? batch.local_region : page.span->local_region;
    piece.remote = page.span == nullptr ? batch.remote_region : page.span->remote_region;
    piece.local_offset = page.local + offset_;
    piece.remote_offset = page.remote + offset_;
    piece.length = page.length - offset_;
    const bool separate = limits.may_be_separate && piece.length >= limits.direct_bytes &&
                          piece.local->kind == PEGA_MEMORY_GPU && piece.remote->kind == PEGA_MEMORY_GPU;
    if (out.pieces.empty()) out.separate = separate;
    if (out.separate != separate) return false;
    const std::uint64_t most = separate ? kSeparateBytes : limits.packed_bytes;
    if (out.bytes == most) return false;
    piece.length = std::min(piece.length, most - out.bytes);
    Piece* before = out.pieces.empty() ? nullptr : &out.pieces.back();
    if (before != nullptr && before->local == piece.local && before->remote == piece.remote &&
        before->local_offset + before->length == piece.local_offset &&
        before->remote_offset + before->length == piece.remote_offset) {
        before->length += piece.length;
    } else {
        if (out.pieces.size() == (separate ? kSeparatePieces : kMostPieces)) return false;
        if (before == nullptr || before->remote != piece.remote) {
            if (out.regions == kMostRegions) return false;
            ++out.regions;
        }
        out.pieces.push_back(piece);
    }
    out.bytes += piece.length;
    offset_ += piece.length;
    if (offset_ < page.length) return false;
    offset_ = 0;
    ++page_;
    skip_empty();
    return true;
}

bool Batch::next_part(const PartLimits& limits, Cut& out) {
    out.pieces.clear();
    out.bytes = 0;
    out.regions = 0;
    if (at_end()) return false;
    while (!at_end()) {
        const std::uint64_t span = span_;
        if (!add_page(limits, out)) break;
        const bool marks = batch.mark_every != 0 && batch.format == PEGA_FORMAT_SPANS;
        if (marks && span_ / batch.mark_every != span / batch.mark_every) break;
    }
    out.spans_after = span_;
    out.last = at_end();
    return true;
}

}  // namespace nccl_backend
