// SPDX-License-Identifier: Apache-2.0
#include "batch.hpp"

#include <algorithm>
#include <atomic>

#include "common/batch_regions.hpp"
#include "copy.hpp"

namespace host_backend {
namespace {

using pegaflow::backend::span_at;

constexpr std::uint64_t kSumsTogether = 128;

bool usable(const pega_region* region, const pega_device* device, bool written) noexcept {
    return region != nullptr && region->device == device && !(written && (region->flags & PEGA_REGION_READ_ONLY) != 0);
}

}  // namespace

pega_status Batch::check(const pega_batch& from) const noexcept {
    const bool reads = from.op == PEGA_OP_READ;
    const auto both = [&](const pega_region* local, const pega_region* remote) {
        return usable(local, channel->device, reads) && usable(remote, channel->device, !reads);
    };
    return backend_common::check_batch(from, both, [](const pega_region* region) { return region->length; });
}

pega_status Batch::take_options(const pega_batch& from) noexcept {
    has_notify = false;
    wait = record = nullptr;
    digests = nullptr;
    digested = nullptr;
    for (const pega_batch_option* o = from.options; o != nullptr; o = o->next) {
        if (o->kind == PEGA_OPTION_NOTIFY) {
            has_notify = true;
            notify_value = reinterpret_cast<const pega_notify_option*>(o)->value;
        } else if (o->kind == PEGA_OPTION_STREAM) {
            wait = reinterpret_cast<const pega_stream_option*>(o)->wait;
            record = reinterpret_cast<const pega_stream_option*>(o)->record;
        } else if (o->kind == PEGA_OPTION_DIGEST && o->size >= sizeof(pega_digest_option)) {
            digests = reinterpret_cast<const pega_digest_option*>(o)->sums;
            digested = reinterpret_cast<const pega_digest_option*>(o)->computed;
        } else if ((o->flags & PEGA_OPTION_HINT) == 0) {
            return PEGA_UNSUPPORTED;
        }
    }
    return PEGA_OK;
}

// Digests are of whole words: one odd place or length, and nothing is computed.
void Batch::begin_digests() noexcept {
    if (digested == nullptr) return;
    bool words = batch.format == PEGA_FORMAT_SPANS;
    for (std::uint64_t i = 0; i < batch.span_count && words; ++i) {
        const pega_span& s = span_at(batch, i);
        words = (s.remote_base | s.page_bytes | (s.segments > 1 ? s.remote_segment_stride : 0)) % 8 == 0;
    }
    if (!words) {
        digests = nullptr;
        digested = nullptr;
        return;
    }
    std::fill_n(digests, batch.index_count, 0);
}

pega_status Batch::accept(pega_channel* owner, const pega_batch& from) {
    channel = owner;
    if (from.size < sizeof(pega_batch) || (from.op != PEGA_OP_READ && from.op != PEGA_OP_WRITE)) return PEGA_INVALID;
    if (const pega_status taken = take_options(from); taken != PEGA_OK) return taken;
    const pega_status checked = check(from);
    if (checked != PEGA_OK) return checked;
    batch = from;
    batch.options = nullptr;
    begin_digests();
    cursor_span = cursor_page = cursor_offset = 0;
    outstanding = landed = marked = bytes = 0;
    copied = false;
    status = PEGA_OK;
    native_code = 0;
    span_outstanding.assign(span_count(), 0);
    std::uint64_t total = 0;
    for (std::uint64_t i = 0; i < span_count() && total < kStreamingBytes; ++i) total += pages_of(i) * page_bytes(i, 0);
    streaming = total >= kStreamingBytes;
    while (!fully_claimed() &&
           (pages_of(cursor_span) == 0 || (batch.format == PEGA_FORMAT_SPANS && page_bytes(cursor_span, 0) == 0))) {
        ++cursor_span;
    }
    advance_landed();
    marked = landed;
    return PEGA_OK;
}

void Batch::pin_regions(std::int64_t by) noexcept {
    backend_common::for_each_region(batch, [by](pega_region* region) {
        region->in_flight.fetch_add(static_cast<std::uint64_t>(by), std::memory_order_acq_rel);
    });
}

std::uint64_t Batch::pages_of(std::uint64_t span) const noexcept {
    return batch.format == PEGA_FORMAT_FLAT ? batch.flat_count : batch.index_count * span_at(batch, span).segments;
}

std::uint64_t Batch::page_bytes(std::uint64_t span, std::uint64_t page) const noexcept {
    if (batch.format == PEGA_FORMAT_SPANS) return span_at(batch, span).page_bytes;
    return page < batch.flat_count ? batch.lengths[page] : 0;
}

Claim Batch::claim() {
    Claim claim;
    claim.span = cursor_span;
    claim.page = cursor_page;
    const std::uint64_t first = page_bytes(cursor_span, cursor_page);
    if (first > kChunkBytes) {
        claim.count = 1;
        claim.offset = cursor_offset;
        claim.length = claim.bytes = std::min(kChunkBytes, first - cursor_offset);
        cursor_offset += claim.length;
        if (cursor_offset == first) {
            cursor_offset = 0;
            ++cursor_page;
        }
    } else {
        const std::uint64_t pages = pages_of(cursor_span);
        while (cursor_page < pages && claim.count < kChunkPages) {
            const std::uint64_t next = page_bytes(cursor_span, cursor_page);
            if (claim.count != 0 && (next > kChunkBytes || claim.bytes + next > kChunkBytes)) break;
            claim.bytes += next;
            ++claim.count;
            ++cursor_page;
        }
    }
    while (!fully_claimed() &&
           (cursor_page >= pages_of(cursor_span) || (batch.format == PEGA_FORMAT_SPANS && page_bytes(cursor_span, 0) == 0))) {
        ++cursor_span;
        cursor_page = 0;
    }
    ++outstanding;
    ++span_outstanding[claim.span];
    return claim;
}

bool Batch::run(const Claim& claim) const noexcept {
    if (batch.format == PEGA_FORMAT_FLAT) {
        run_flat(claim);
        return !batch.local_region->shared.lost() && !batch.remote_region->shared.lost();
    }
    run_spans(claim);
    const pega_span& s = span_at(batch, claim.span);
    return !s.local_region->shared.lost() && !s.remote_region->shared.lost();
}

void Batch::run_flat(const Claim& claim) const noexcept {
    const bool reads = batch.op == PEGA_OP_READ;
    for (std::uint64_t p = claim.page; p < claim.page + claim.count; ++p) {
        std::uint8_t* const local = batch.local_region->base + batch.local_offsets[p] + claim.offset;
        std::uint8_t* const remote = batch.remote_region->base + batch.remote_offsets[p] + claim.offset;
        const std::uint64_t length = claim.length != 0 ? claim.length : batch.lengths[p];
        if (length != 0) copy(reads ? local : remote, reads ? remote : local, length, streaming);
    }
}

void Batch::run_spans(const Claim& claim) const noexcept {
    if (digested != nullptr) return run_digested(claim);
    const pega_span& s = span_at(batch, claim.span);
    const std::uint64_t length = claim.length != 0 ? claim.length : s.page_bytes;
    for (std::uint64_t p = claim.page; p < claim.page + claim.count; ++p) {
        const Piece piece = piece_of(s, p, claim.offset);
        copy(piece.to, piece.from, length, streaming);
    }
}

// Other workers add to the same sums. An atomic addition waits for all stores before it, and with that for the cache misses of
// the copy: so many come together.
void Batch::run_digested(const Claim& claim) const noexcept {
    const pega_span& s = span_at(batch, claim.span);
    const std::uint64_t length = claim.length != 0 ? claim.length : s.page_bytes;
    const std::uint64_t end = claim.page + claim.count;
    for (std::uint64_t p = claim.page; p < end;) {
        std::uint64_t sums[kSumsTogether] = {};
        const std::uint64_t first = p / s.segments;
        const std::uint64_t stop = std::min(end, (first + kSumsTogether) * s.segments);
        for (; p < stop; ++p) {
            const Piece piece = piece_of(s, p, claim.offset);
            sums[piece.index - first] += copy_digested(piece.to, piece.from, length, piece.place, streaming);
        }
        for (std::uint64_t i = first; i * s.segments < stop; ++i)
            std::atomic_ref(digests[i]).fetch_add(sums[i - first], std::memory_order_relaxed);
    }
}

Batch::Piece Batch::piece_of(const pega_span& s, std::uint64_t number, std::uint64_t offset) const noexcept {
    const std::uint64_t index = number / s.segments;
    const std::uint64_t segment = number % s.segments;
    const std::uint64_t place = s.remote_base + segment * s.remote_segment_stride + offset;
    std::uint8_t* const local = s.local_region->base + s.local_base + batch.local_index[index] * s.local_stride +
                                segment * s.local_segment_stride + offset;
    std::uint8_t* const remote = s.remote_region->base + batch.remote_index[index] * s.remote_stride + place;
    if (batch.op == PEGA_OP_READ) return {local, remote, index, place};
    return {remote, local, index, place};
}

void Batch::advance_landed() noexcept {
    while (landed < span_count() && landed < cursor_span && span_outstanding[landed] == 0) ++landed;
}

bool Batch::finish_claim(const Claim& claim, bool moved) {
    --outstanding;
    --span_outstanding[claim.span];
    if (moved) bytes += claim.bytes;
    if (status == PEGA_OK) advance_landed();
    if (batch.mark_every == 0 || batch.format == PEGA_FORMAT_FLAT || landed < marked + batch.mark_every) return false;
    marked = landed - landed % batch.mark_every;
    return true;
}

}  // namespace host_backend
