// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "device.hpp"

namespace cuda_backend {
namespace {

using pegaflow::backend::in_range;
using pegaflow::backend::side_in_range;
using pegaflow::backend::span_at;

constexpr std::uint64_t kWord = 8;                // of a digest
constexpr std::uint64_t kFurthest = kWord << 32;  // place in a page that the kernels can count
constexpr unsigned kSortBits = 11;                // a pass
constexpr unsigned kMostShift = 20;
constexpr std::uint64_t kCounted = 4096;     // pairs at most that are looked at for runs,
constexpr std::uint64_t kCountedParts = 16;  // in so many places

bool usable(const pega_region* region, const pega_device* device, bool written) noexcept {
    return region != nullptr && region->device == device && !(written && (region->flags & PEGA_REGION_READ_ONLY) != 0);
}

bool continues(const Tile& first, const Tile& second) noexcept {
    return first.a_stride == second.a_stride && first.b_stride == second.b_stride && first.a + first.bytes == second.a &&
           first.b + first.bytes == second.b && first.place + first.bytes == second.place;
}

// Pairs and, unless it is empty, what goes along with each of them.
struct Sorted {
    std::vector<Pair>& pairs;
    std::vector<std::uint32_t>& along;
};

// Least significant digit first, eleven bits a pass, on index b minus its least value.
// Bits below `shift` do not count.
void radix_sort(Sorted list, Sorted scratch, std::uint64_t least, std::uint64_t greatest, unsigned shift) {
    const std::size_t count = list.pairs.size();
    scratch.pairs.resize(count);
    scratch.along.resize(list.along.size());
    for (; shift < 64 && ((greatest - least) >> shift) != 0; shift += kSortBits) {
        std::array<std::uint32_t, (1U << kSortBits) + 1> starts{};
        const auto digit = [&](const Pair& p) { return ((p.b - least) >> shift) & ((1U << kSortBits) - 1); };
        for (const Pair& p : list.pairs) ++starts[digit(p) + 1];
        for (std::size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t to = starts[digit(list.pairs[i])]++;
            scratch.pairs[to] = list.pairs[i];
            if (!list.along.empty()) scratch.along[to] = list.along[i];
        }
        list.pairs.swap(scratch.pairs);
        list.along.swap(scratch.along);
    }
}

}  // namespace

void Plan::orient(const pega_region* local, const pega_region* remote, bool reads) noexcept {
    const bool local_is_a = local->kind == PEGA_MEMORY_GPU || remote->kind != PEGA_MEMORY_GPU;
    const bool host = (local_is_a ? remote : local)->kind == PEGA_MEMORY_HOST;
    const bool no_gpu = local->kind != PEGA_MEMORY_GPU && remote->kind != PEGA_MEMORY_GPU;
    if (!oriented_) {
        oriented_ = true;
        a_is_local_ = local_is_a;
        b_is_host = host;
        to_a = reads == local_is_a;
        mixed = no_gpu;
    } else if (local_is_a != a_is_local_ || host != b_is_host) {
        mixed = true;
    }
}

pega_status Plan::build(const pega_batch& batch, const pega_device* device, bool digests) {
    tiles.clear();
    groups.clear();
    sorted_.clear();
    lengths_ = nullptr;
    oriented_ = mixed = false;
    aligned = true;
    digestible = digests && batch.format == PEGA_FORMAT_SPANS;
    origin_.clear();
    bytes = fragment = page_run = pair_count = 0;
    if (batch.format == PEGA_FORMAT_FLAT) return build_flat(batch, device);
    if (batch.format == PEGA_FORMAT_SPANS) return build_spans(batch, device);
    return PEGA_INVALID;
}

pega_status Plan::build_flat(const pega_batch& batch, const pega_device* device) {
    const bool reads = batch.op == PEGA_OP_READ;
    const pega_region* local = batch.local_region;
    const pega_region* remote = batch.remote_region;
    if (!usable(local, device, reads) || !usable(remote, device, !reads)) return PEGA_INVALID;
    pair_count = batch.flat_count;
    groups.push_back({0, 0, 1, 0, false});
    if (pair_count == 0) return PEGA_OK;
    if (batch.local_offsets == nullptr || batch.remote_offsets == nullptr || batch.lengths == nullptr) return PEGA_INVALID;
    bool uniform = true;
    std::uint64_t bits = 0;
    for (std::uint64_t i = 0; i < pair_count; ++i) {
        const std::uint64_t length = batch.lengths[i];
        if (!in_range(batch.local_offsets[i], length, local->length) ||
            !in_range(batch.remote_offsets[i], length, remote->length))
            return PEGA_INVALID;
        uniform = uniform && length == batch.lengths[0];
        bits |= batch.local_offsets[i] | batch.remote_offsets[i] | length;
        bytes += length;
    }
    if (bytes == 0) return PEGA_OK;  // without tiles there is nothing to divide into chunks
    orient(local, remote, reads);
    const pega_region* a = a_is_local_ ? local : remote;
    const pega_region* b = a_is_local_ ? remote : local;
    a_index_ = a_is_local_ ? batch.local_offsets : batch.remote_offsets;
    b_index_ = a_is_local_ ? batch.remote_offsets : batch.local_offsets;
    if (!uniform) lengths_ = batch.lengths;
    aligned = ((a->base | b->base | bits) & 15) == 0;
    tiles.push_back({a->base, 1, b->base, 1, batch.lengths[0], 0});
    const Indices indices = look_at_indices(batch);
    narrow_down(indices);
    if (uniform) sort_pairs(indices, batch.lengths[0], false);
    groups[0] = {0, 1, 1, bytes / pair_count, uniform};
    measure();
    return PEGA_OK;
}

Plan::Indices Plan::look_at_indices(const pega_batch& batch) const noexcept {
    Indices out;
    const std::uint64_t count = batch.format == PEGA_FORMAT_FLAT ? batch.flat_count : batch.index_count;
    if (count == 0) return out;
    out.min_b = UINT64_MAX;
    std::uint64_t before = 0;
    std::uint64_t descents = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t a = a_index_[i];
        const std::uint64_t b = b_index_[i];
        out.max_a = std::max(out.max_a, a);
        out.max_b = std::max(out.max_b, b);
        out.min_b = std::min(out.min_b, b);
        out.bits |= a | b;
        descents += b < before ? 1 : 0;
        before = b;
    }
    out.ascending = descents == 0;
    return out;
}

pega_status Plan::build_spans(const pega_batch& batch, const pega_device* device) {
    const bool reads = batch.op == PEGA_OP_READ;
    if (batch.span_count != 0 && (batch.spans == nullptr || batch.span_size < pegaflow::backend::kFirstSize<pega_span>))
        return PEGA_INVALID;
    if (batch.index_count != 0 && (batch.local_index == nullptr || batch.remote_index == nullptr)) return PEGA_INVALID;
    pair_count = batch.index_count;
    for (std::uint64_t i = 0; i < batch.span_count; ++i) {
        const pega_span& s = span_at(batch, i);
        if (!usable(s.local_region, device, reads) || !usable(s.remote_region, device, !reads) || s.segments == 0)
            return PEGA_INVALID;
        orient(s.local_region, s.remote_region, reads);
    }
    if (mixed) {
        a_is_local_ = true;
        to_a = reads;
    }
    digestible = digestible && !mixed && a_is_local_;
    a_index_ = a_is_local_ ? batch.local_index : batch.remote_index;
    b_index_ = a_is_local_ ? batch.remote_index : batch.local_index;
    const Indices indices = look_at_indices(batch);
    narrow_down(indices);
    for (std::uint64_t i = 0; i < batch.span_count; ++i) {
        if (const pega_status added = add_span(batch, span_at(batch, i), device, indices); added != PEGA_OK) return added;
        if (batch.mark_every != 0 && (i + 1) % batch.mark_every == 0) close_group(i + 1);
    }
    close_group(batch.span_count);
    for (const Tile& tile : tiles) bytes += tile.bytes * pair_count;
    if (!tiles.empty() && pair_count != 0) {
        const Group& first = groups.front();
        const std::uint64_t stride = tiles.front().b_stride;
        sort_pairs(indices, stride == 0 ? 0 : (first.dense ? first.block_bytes : tiles.front().bytes) / stride, digestible);
    }
    digestible = digestible && aligned;
    measure();
    return PEGA_OK;
}

pega_status Plan::add_span(const pega_batch& batch, const pega_span& s, const pega_device*, const Indices& indices) {
    if (batch.index_count == 0) return PEGA_OK;
    const pega_region* a = a_is_local_ ? s.local_region : s.remote_region;
    const pega_region* b = a_is_local_ ? s.remote_region : s.local_region;
    const pegaflow::backend::SpanSide local{s.local_base, s.local_stride, s.local_segment_stride};
    const pegaflow::backend::SpanSide remote{s.remote_base, s.remote_stride, s.remote_segment_stride};
    const pegaflow::backend::SpanSide& side_a = a_is_local_ ? local : remote;
    const pegaflow::backend::SpanSide& side_b = a_is_local_ ? remote : local;
    if (!side_in_range(side_a, indices.max_a, s.segments, s.page_bytes, a->length) ||
        !side_in_range(side_b, indices.max_b, s.segments, s.page_bytes, b->length)) {
        return PEGA_INVALID;
    }
    if (s.page_bytes == 0) return PEGA_OK;
    const bool strides = ((side_a.stride | side_b.stride) & 15) == 0 || (indices.bits & 15) == 0;
    for (std::uint32_t g = 0; g < s.segments; ++g) {
        const std::uint64_t in_page = side_b.base + g * side_b.segment_stride;
        const Tile tile{a->base + side_a.base + g * side_a.segment_stride,
                        side_a.stride,
                        b->base + in_page,
                        side_b.stride,
                        s.page_bytes,
                        in_page};
        digestible = digestible && in_page % kWord == 0 && in_page + s.page_bytes <= kFurthest;
        aligned = aligned && strides && ((tile.a | tile.b | tile.bytes) & 15) == 0;
        const std::uint32_t open = groups.empty() ? 0 : groups.back().first_tile + groups.back().tile_count;
        if (tiles.size() > open && continues(tiles.back(), tile)) {
            tiles.back().bytes += tile.bytes;
        } else {
            tiles.push_back(tile);
        }
    }
    return PEGA_OK;
}

void Plan::close_group(std::uint64_t spans_after) {
    Group group;
    group.first_tile = groups.empty() ? 0 : groups.back().first_tile + groups.back().tile_count;
    group.tile_count = static_cast<std::uint32_t>(tiles.size()) - group.first_tile;
    group.spans_after = spans_after;
    if (!groups.empty() && groups.back().spans_after == spans_after) return;
    const auto first = tiles.begin() + group.first_tile;
    const auto by_b = [](const Tile& x, const Tile& y) { return x.b < y.b; };
    if (!std::is_sorted(first, tiles.end(), by_b)) std::sort(first, tiles.end(), by_b);
    group.dense = group.tile_count != 0;
    for (auto tile = first; tile != tiles.end(); ++tile) {
        if (tile->b != first->b + group.block_bytes || tile->b_stride != first->b_stride) group.dense = false;
        group.block_bytes += tile->bytes;
    }
    groups.push_back(group);
}

void Plan::narrow_down(const Indices& indices) noexcept {
    // Strides are multiplied by what indices are divided by: not so far that they overflow.
    index_shift = indices.bits == 0 ? 0 : std::min(static_cast<unsigned>(std::countr_zero(indices.bits)), kMostShift);
    const std::uint64_t greatest = std::max(indices.max_a, indices.max_b) >> index_shift;
    index_bytes = greatest <= UINT16_MAX ? 2 : greatest <= UINT32_MAX ? 4 : 8;
}

// Pairs in the order of side B make pages that follow each other one run there. Where pages lie scattered hardly any follow,
// and sorting would be for nothing.
void Plan::sort_pairs(const Indices& indices, std::uint64_t step, bool keep_origin) {
    if (indices.ascending || pair_count < 2 || mixed) return;
    std::uint64_t wanted = 0;
    if (__builtin_mul_overflow(pair_count + pair_count / 4, step, &wanted) || indices.max_b - indices.min_b > wanted) return;
    sorted_.reserve(pair_count);
    for (std::uint64_t i = 0; i < pair_count; ++i) sorted_.push_back({a_index_[i], b_index_[i]});
    if (keep_origin) {
        origin_.resize(pair_count);
        std::iota(origin_.begin(), origin_.end(), 0);
    }
    const auto equal_bits = static_cast<unsigned>(std::countr_zero(indices.bits));
    radix_sort({sorted_, origin_}, {scratch_, origin_scratch_}, indices.min_b, indices.max_b, equal_bits);
}

// How often a pair does not continue the one before, on side B and on either side; of many pairs, parts that are spread evenly
// tell.
Plan::Breaks Plan::count_breaks(const Tile& tile, std::uint64_t page) const noexcept {
    const std::uint64_t parts = pair_count <= kCounted ? 1 : kCountedParts;
    const std::uint64_t part = pair_count <= kCounted ? pair_count : kCounted / kCountedParts;
    std::uint64_t looked_at = 0;
    Breaks out;
    for (std::uint64_t k = 0; k < parts; ++k) {
        const std::uint64_t first = k * (pair_count / parts);
        Pair before = pair(first);
        for (std::uint64_t i = first + 1; i < first + part; ++i, ++looked_at) {
            const Pair now = pair(i);
            const std::uint64_t length = lengths_ != nullptr ? lengths_[i - 1] : page;
            const bool b_breaks = (now.b - before.b) * tile.b_stride != length;
            const bool a_breaks = (now.a - before.a) * tile.a_stride != length;
            out.pages += b_breaks ? 1 : 0;
            out.runs += a_breaks || b_breaks ? 1 : 0;
            before = now;
        }
    }
    if (looked_at == 0) return out;
    out.pages = out.pages * (pair_count - 1) / looked_at;
    out.runs = out.runs * (pair_count - 1) / looked_at;
    return out;
}

void Plan::measure() {
    if (bytes == 0) return;
    if (tiles.size() == 1) {
        const Breaks breaks = count_breaks(tiles.front(), tiles.front().bytes);
        fragment = bytes / (breaks.runs + 1);
        page_run = bytes / (breaks.pages + 1);
        return;
    }
    fragment = bytes / (tiles.size() * pair_count);
    const Group& group = groups.front();
    if (group.tile_count == 0) return;
    const Tile& tile = tiles[group.first_tile];
    const std::uint64_t page = group.dense ? group.block_bytes : tile.bytes;
    page_run = page * pair_count / (count_breaks(tile, page).pages + 1);
}

bool Plan::next_run(Cursor& cursor, std::uint32_t end, Run& out) const noexcept {
    while (cursor.group < end) {
        const Group& group = groups[cursor.group];
        if (cursor.tile >= group.tile_count) {
            cursor = {cursor.group + 1, 0, 0};
            continue;
        }
        if (cursor.pair >= pair_count) {
            ++cursor.tile;
            cursor.pair = 0;
            continue;
        }
        const Tile& tile = tiles[group.first_tile + cursor.tile];
        const Pair first = pair(cursor.pair);
        out = {tile.a + first.a * tile.a_stride, tile.b + first.b * tile.b_stride, length_of(tile, cursor.pair)};
        for (++cursor.pair; cursor.pair < pair_count; ++cursor.pair) {
            const Pair next = pair(cursor.pair);
            if (tile.a + next.a * tile.a_stride != out.a + out.bytes || tile.b + next.b * tile.b_stride != out.b + out.bytes)
                break;
            out.bytes += length_of(tile, cursor.pair);
        }
        if (out.bytes != 0) return true;
    }
    return false;
}

}  // namespace cuda_backend
