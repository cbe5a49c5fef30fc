// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/shape.hpp"

#include <algorithm>

namespace pegaflow::soak {
namespace {

constexpr std::uint64_t kLeastFragment = 16;
constexpr std::uint64_t kMostFragment = 4U << 20;

// What sizes and places are multiples of: 1 is what no kernel likes, 16 what the fast ones need.
std::uint64_t choose_unit(Random& random) {
    static constexpr std::uint64_t kUnits[] = {1, 16, 16, 512, 4096};
    return random.pick(kUnits);
}

std::uint64_t choose_fragment(Random& random, std::uint64_t unit, std::uint64_t most) {
    const std::uint64_t wanted = random.spread(kLeastFragment, std::min(kMostFragment, most));
    return std::max(wanted / unit * unit, std::min(unit, most));
}

std::uint64_t choose_gap(Random& random, std::uint64_t unit) { return random.chance(50) ? 0 : unit * random.below(4); }

// A multiple of `unit` that leaves room.
std::uint64_t choose_start(Random& random, std::uint64_t unit, std::uint64_t slack) {
    return random.below(slack / unit + 1) * unit;
}

// Any number up to `most`, and that often enough for large batches.
std::uint64_t choose_count(Random& random, std::uint64_t most) { return random.chance(25) ? most : random.spread(1, most); }

// `count` distinct places below `places`: consecutive or scattered, in order or not.
std::vector<std::uint64_t> distinct(Random& random, std::uint64_t count, std::uint64_t places) {
    std::vector<std::uint64_t> out(count);
    const bool consecutive = random.chance(40);
    const std::uint64_t first = random.below(places - count + 1);
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t begin = i * places / count;
        out[i] = consecutive ? first + i : begin + random.below((i + 1) * places / count - begin);
    }
    if (random.chance(50)) random.shuffle(out);
    return out;
}

// As distinct, but where there are fewer places, and sometimes otherwise, places come again: sources may.
std::vector<std::uint64_t> any(Random& random, std::uint64_t count, std::uint64_t places) {
    if (count <= places && random.chance(85)) return distinct(random, count, places);
    std::vector<std::uint64_t> out(count);
    for (std::uint64_t& place : out) place = random.below(places);
    return out;
}

void finish_flat(Random& random, const Ends& ends, Transfer& transfer, Shape& out) {
    if (random.chance(30)) random.shuffle(out.pieces);
    const Region& source = ends.sources[out.pieces.empty() ? 0 : out.pieces.front().source]->region();
    const Region& target = ends.target->region();
    transfer.flat(ends.read ? target : source, ends.read ? source : target);
    for (const Piece& p : out.pieces) transfer.range(ends.read ? p.to : p.from, ends.read ? p.from : p.to, p.length);
}

// Ranges of one length at slots of both sides.
void equal_ranges(Random& random, const Ends& ends, std::uint64_t most, Transfer& transfer, Shape& out) {
    out.format = "equal ranges";
    const auto source = static_cast<std::uint32_t>(random.below(ends.sources.size()));
    const std::uint64_t room = ends.sources[source]->length();
    const std::uint64_t unit = choose_unit(random);
    const std::uint64_t length = choose_fragment(random, unit, std::min(room, ends.length));
    const std::uint64_t step_to = std::min(length + choose_gap(random, unit), ends.length);
    const std::uint64_t step_from = std::min(length + choose_gap(random, unit), room);
    const std::uint64_t slots_to = ends.length / step_to;
    const std::uint64_t slots_from = room / step_from;
    const std::uint64_t start_to = ends.first + choose_start(random, unit, ends.length - slots_to * step_to);
    const std::uint64_t start_from = choose_start(random, unit, room - slots_from * step_from);
    const std::uint64_t count = choose_count(random, std::min(most, slots_to));
    const auto to = distinct(random, count, slots_to);
    const auto from = any(random, count, slots_from);
    for (std::uint64_t i = 0; i < count; ++i)
        out.pieces.push_back({source, start_from + from[i] * step_from, start_to + to[i] * step_to, length});
    finish_flat(random, ends, transfer, out);
}

// Ranges of any lengths, zero among them, one after the other with gaps.
void unequal_ranges(Random& random, const Ends& ends, std::uint64_t most, Transfer& transfer, Shape& out) {
    out.format = "unequal ranges";
    const auto source = static_cast<std::uint32_t>(random.below(ends.sources.size()));
    const std::uint64_t room = ends.sources[source]->length();
    const std::uint64_t unit = choose_unit(random);
    const std::uint64_t longest = choose_fragment(random, unit, std::min(room, ends.length));
    const std::uint64_t count = choose_count(random, most);
    const std::uint64_t end = ends.first + ends.length;
    std::uint64_t to = ends.first;
    for (std::uint64_t i = 0; i < count; ++i) {
        to += choose_gap(random, unit);
        if (to >= end) break;
        const std::uint64_t length = std::min(random.below(longest / unit + 1) * unit, (end - to) / unit * unit);
        out.pieces.push_back({source, choose_start(random, unit, room - length), to, length});
        to += length;
    }
    finish_flat(random, ends, transfer, out);
}

// How pages of `segments` by `spans` lie on one side.
struct Layout {
    std::uint64_t base = 0, span_step = 0, segment = 0, stride = 0, scale = 1;
    std::uint64_t places = 0;  // 0: there is no room
};

struct Pages {
    std::uint64_t spans = 1, segments = 1, page = 0, unit = 1;
};

Layout choose_layout(Random& random, const Pages& pages, std::uint64_t first, std::uint64_t length) {
    Layout out;
    std::uint64_t block = pages.page + choose_gap(random, pages.unit);
    if (pages.spans * pages.segments * block > length) block = pages.page;
    const std::uint64_t area = pages.spans * pages.segments * block;
    out.places = length / area;
    if (out.places == 0) return out;
    out.base = first + choose_start(random, pages.unit, length - out.places * area);
    if (random.chance(50)) {  // layer after layer
        out.stride = block;
        out.segment = out.places * block;
        out.span_step = pages.segments * out.segment;
        if (random.chance(25)) std::swap(out.stride, out.scale);  // indices that are byte offsets
    } else {                                                      // page after page
        out.stride = area;
        out.segment = block;
        out.span_step = pages.segments * block;
    }
    return out;
}

void add_span(const Ends& ends, const Buffer& source, const Layout& from, const Layout& to, std::uint64_t number,
              const Pages& pages, std::uint64_t page, Transfer& transfer) {
    const Layout& local = ends.read ? to : from;
    const Layout& remote = ends.read ? from : to;
    const Region& local_region = (ends.read ? *ends.target : source).region();
    const Region& remote_region = (ends.read ? source : *ends.target).region();
    transfer.span({local_region.handle(), remote_region.handle(), local.base + number * local.span_step, local.stride,
                   local.segment, remote.base + number * remote.span_step, remote.stride, remote.segment, page,
                   static_cast<std::uint32_t>(pages.segments), 0});
}

void spans(Random& random, const Ends& ends, std::uint64_t most, Transfer& transfer, Shape& out) {
    out.format = "spans";
    std::vector<std::uint32_t> sources(1, static_cast<std::uint32_t>(random.below(ends.sources.size())));
    while (random.chance(25)) sources.push_back(static_cast<std::uint32_t>(random.below(ends.sources.size())));
    std::uint64_t room = UINT64_MAX;
    for (const std::uint32_t source : sources) room = std::min(room, ends.sources[source]->length());
    Pages pages{random.spread(1, 8), random.spread(1, 4), 0, choose_unit(random)};
    pages.page = choose_fragment(random, pages.unit, std::min(room, ends.length) / (pages.spans * pages.segments));
    const Layout from = choose_layout(random, pages, 0, room);
    const Layout to = choose_layout(random, pages, ends.first, ends.length);
    const std::uint64_t blocks = pages.spans * pages.segments;
    const std::uint64_t count = choose_count(random, std::clamp<std::uint64_t>(most / blocks, 1, to.places));
    auto to_index = distinct(random, count, to.places);
    auto from_index = any(random, count, from.places);
    for (std::uint64_t& index : to_index) index *= to.scale;
    for (std::uint64_t& index : from_index) index *= from.scale;
    transfer.indices(ends.read ? to_index : from_index, ends.read ? from_index : to_index);
    const bool shorter = random.chance(20) && pages.page > pages.unit;
    for (std::uint64_t s = 0; s < pages.spans; ++s) {
        const std::uint32_t source = random.pick(sources);
        const std::uint64_t page = shorter ? (1 + random.below(pages.page / pages.unit)) * pages.unit : pages.page;
        add_span(ends, *ends.sources[source], from, to, s, pages, page, transfer);
        for (std::uint64_t i = 0; i < count; ++i) {
            for (std::uint64_t g = 0; g < pages.segments; ++g) {
                out.pieces.push_back({source, from.base + s * from.span_step + from_index[i] * from.stride + g * from.segment,
                                      to.base + s * to.span_step + to_index[i] * to.stride + g * to.segment, page});
            }
        }
    }
    out.spans = static_cast<std::uint32_t>(pages.spans);
    if (random.chance(40)) out.mark_every = static_cast<std::uint32_t>(1 + random.below(pages.spans));
    if (out.mark_every != 0) transfer.mark_every(out.mark_every);
}

}  // namespace

void choose_shape(Random& random, const Ends& ends, std::uint64_t most_pieces, Transfer& transfer, Shape& out) {
    out.pieces.clear();
    out.spans = 1;
    out.mark_every = 0;
    if (ends.read) transfer.read();
    if (random.chance(1)) {
        out.format = "nothing";
        return finish_flat(random, ends, transfer, out);
    }
    switch (random.below(4)) {
        case 0:
            return equal_ranges(random, ends, most_pieces, transfer, out);
        case 1:
            return unequal_ranges(random, ends, most_pieces, transfer, out);
        default:
            return spans(random, ends, most_pieces, transfer, out);
    }
}

}  // namespace pegaflow::soak
