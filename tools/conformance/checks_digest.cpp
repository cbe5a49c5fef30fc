// SPDX-License-Identifier: Apache-2.0
// Checks of digests: where a device computes them they are those of what was moved, and asking for them changes nothing else.
#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <numeric>
#include <random>

#include "pegaflow/abi/ext/digest.h"
#include "pegaflow/digest.hpp"
#include "tools/conformance/events.hpp"

namespace pegaflow::conformance {
namespace {

constexpr std::uint64_t kUntouched = 0x5A5A5A5A5A5A5A5A;

// Pages of `spans` times `segments` fragments, with gaps in between: on the remote side fragment after fragment, on the local
// side span after span.
struct Shape {
    std::uint64_t fragment = 0;
    std::uint32_t segments = 1;
    std::uint32_t spans = 1;
    std::uint64_t pages = 1;
    std::uint64_t gap = 64;    // after each fragment
    std::uint64_t first = 64;  // place of the first fragment

    std::uint64_t step() const { return fragment + gap; }
    std::uint64_t page() const { return first + spans * segments * step(); }
    std::uint64_t place(std::uint64_t span, std::uint64_t segment) const {
        return first + (span * segments + segment) * step();
    }
    std::uint64_t local(std::uint64_t span, std::uint64_t index, std::uint64_t segment) const {
        return ((span * segments + segment) * pages + index) * step();
    }
};

// A batch of such pages in a shuffled order, that asks for digests.
class Digested {
public:
    Digested(Fixture& f, std::uint32_t op, const Shape& shape)
        : shape_(shape),
          op_(op),
          local_(f.local(shape.local(shape.spans, 0, 0))),
          remote_(f.remote(shape.page() * shape.pages)),
          local_index_(shape.pages),
          remote_index_(shape.pages),
          sums_(shape.pages, kUntouched) {
        std::mt19937_64 random(f.seed + shape.fragment);
        std::iota(local_index_.begin(), local_index_.end(), 0);
        std::shuffle(local_index_.begin(), local_index_.end(), random);
        for (std::uint64_t i = 0; i < shape.pages; ++i) remote_index_[i] = i * shape.page();  // byte offsets
        std::shuffle(remote_index_.begin(), remote_index_.end(), random);
        for (std::uint32_t s = 0; s < shape.spans; ++s) {
            list_.push_back({local_.region, remote_.region, shape.local(s, 0, 0), shape.step(), shape.pages * shape.step(),
                             shape.place(s, 0), 1, shape.step(), shape.fragment, shape.segments, 0});
        }
        batch = f.spans(op, list_, local_index_, remote_index_);
        option_ = {{sizeof option_, PEGA_OPTION_DIGEST, PEGA_OPTION_HINT, 0, nullptr}, sums_.data(), &computed_};
        batch.options = &option_.base;
    }
    Digested(const Digested&) = delete;
    Digested& operator=(const Digested&) = delete;

    // The bytes are where they should be, and the digests, if any, are theirs.
    void expect_moved(Fixture& f, const pega_completion& end) {
        const std::string what =
            fmt::format("{} pages of {} x {} x {} bytes", shape_.pages, shape_.spans, shape_.segments, shape_.fragment);
        PEGA_EXPECT(end.status == PEGA_OK, fmt::format("{}: status {}", what, end.status));
        std::vector<std::uint64_t> expected(shape_.pages, 0);
        each_fragment([&](std::uint64_t i, std::uint64_t at_local, std::uint64_t at_remote, std::uint64_t place) {
            Memory& from = op_ == PEGA_OP_READ ? remote_ : local_;
            Memory& to = op_ == PEGA_OP_READ ? local_ : remote_;
            const auto source = from.shadow.begin() + static_cast<std::ptrdiff_t>(op_ == PEGA_OP_READ ? at_remote : at_local);
            const auto target = to.shadow.begin() + static_cast<std::ptrdiff_t>(op_ == PEGA_OP_READ ? at_local : at_remote);
            std::copy_n(source, shape_.fragment, target);
            expected[i] += digest_part(&*source, shape_.fragment, place);
        });
        f.expect_same(local_, what + ", local");
        f.expect_same(remote_, what + ", remote");
        PEGA_EXPECT(computed_ <= 1, fmt::format("{}: `computed` became {}", what, computed_));
        if (computed_ == 0) return;
        for (std::uint64_t i = 0; i < shape_.pages; ++i) {
            PEGA_EXPECT(sums_[i] == expected[i],
                        fmt::format("{}: the digest of page {} is {:#x}, expected {:#x}", what, i, sums_[i], expected[i]));
        }
    }
    void expect_nothing_computed(const char* what) const { PEGA_EXPECT(computed_ == 0, std::string(what) + " has digests"); }
    pega_digest_option& option() { return option_; }

    pega_batch batch{};

private:
    template <class Visit>
    void each_fragment(Visit visit) const {
        for (std::uint64_t s = 0; s < shape_.spans; ++s) {
            for (std::uint64_t i = 0; i < shape_.pages; ++i) {
                for (std::uint64_t g = 0; g < shape_.segments; ++g) {
                    const std::uint64_t place = shape_.place(s, g);
                    visit(i, shape_.local(s, local_index_[i], g), remote_index_[i] + place, place);
                }
            }
        }
    }

    const Shape shape_;
    const std::uint32_t op_;
    Memory local_, remote_;
    std::vector<std::uint64_t> local_index_, remote_index_, sums_;
    std::vector<pega_span> list_;
    pega_digest_option option_{};
    std::uint32_t computed_ = 0;
};

// The smallest fragment that the device moves and that is whole words.
std::uint64_t unit_of(const Fixture& f) { return std::max<std::uint64_t>(8, f.caps.alignment); }

Shape shape_of(const Fixture& f, std::uint64_t fragment, std::uint32_t segments, std::uint32_t spans, std::uint64_t pages) {
    const std::uint64_t unit = unit_of(f);
    return {(fragment + unit - 1) / unit * unit, segments, spans, pages, unit, unit};
}

void digests_are_of_what_was_moved(Fixture& f) {
    pega_channel* channel = f.open_channel();
    constexpr std::uint64_t kMiB = 1 << 20;
    const std::vector<Shape> shapes = {
        shape_of(f, 8, 1, 1, 100),       shape_of(f, 8, 2, 3, 9),
        shape_of(f, 248, 2, 3, 50),      shape_of(f, 1032, 3, 5, 21),
        shape_of(f, 16384, 2, 4, 16),    shape_of(f, 65544, 2, 2, 5),
        shape_of(f, kMiB + 24, 1, 2, 2), shape_of(f, 3 * kMiB - 8, 1, 1, 2),
        shape_of(f, 2048, 1, 61, 20),
    };
    for (const std::uint32_t op : {PEGA_OP_WRITE, PEGA_OP_READ}) {
        for (const Shape& shape : shapes) {
            if (op == PEGA_OP_READ && shape.fragment > kMiB) continue;  // large ones take their time under sanitizers
            Digested d(f, op, shape);
            d.expect_moved(f, f.run(channel, d.batch));
        }
    }
}

void digests_of_several_batches(Fixture& f) {
    pega_channel* channel = f.open_channel();
    std::list<Digested> batches;
    for (std::uint64_t i = 0; i < 8; ++i)
        batches.emplace_back(f, i % 2 == 0 ? PEGA_OP_WRITE : PEGA_OP_READ, shape_of(f, 8 + 1000 * i, 2, 3, 5 + i));
    for (Digested& d : batches) {
        const pega_status status = f.m.channel->submit(channel, &d.batch);
        PEGA_EXPECT(status == PEGA_OK, fmt::format("status {} with fewer than 8 batches in flight", status));
    }
    const auto ended = f.wait(batches.size());
    for (Digested& d : batches) {
        PEGA_EXPECT(ended.contains(d.batch.user_data), "a batch did not end");
        d.expect_moved(f, ended.at(d.batch.user_data));
    }
}

void odd_places_and_lengths_have_no_digests(Fixture& f) {
    if (f.caps.alignment > 4) throw Skipped("this back end moves whole words only");
    pega_channel* channel = f.open_channel();
    const Shape even{1024, 2, 2, 3, 64, 64};
    Shape odd_length = even, odd_first = even, odd_step = even;
    odd_length.fragment = 1020;
    odd_first.first = 60;
    odd_step.gap = 60;
    for (const std::uint32_t op : {PEGA_OP_WRITE, PEGA_OP_READ}) {
        for (const Shape& shape : {odd_length, odd_first, odd_step}) {
            Digested d(f, op, shape);
            d.expect_moved(f, f.run(channel, d.batch));
            d.expect_nothing_computed("a page with odd places");
        }
    }
}

void cancelled_batches_have_no_digests(Fixture& f) {
    const auto* cancel = &f.claimed<pega_ext_cancel>(PEGA_CAP_CANCEL, PEGA_EXT_CANCEL);
    const pega_ext_stream* stream = &stream_of(f);
    pega_event* event = held_event(f);
    pega_channel* channel = f.open_channel();
    Digested d(f, PEGA_OP_WRITE, shape_of(f, 4096, 1, 1, 4));
    pega_stream_option hold = stream_option(event, nullptr);
    hold.base.next = &d.option().base;
    d.batch.options = &hold.base;
    PEGA_EXPECT(f.m.channel->submit(channel, &d.batch) == PEGA_OK, "submit");
    PEGA_EXPECT(cancel->cancel(channel, d.batch.user_data) == PEGA_OK, "cancel");
    stream->signal(event, nullptr);
    const auto ended = f.wait(1);
    if (ended.begin()->second.status != PEGA_OK) d.expect_nothing_computed("a batch that was cancelled");
    stream->destroy(event);
}

}  // namespace

std::vector<Check> digest_checks() {
    return {{"digests_are_of_what_was_moved", digests_are_of_what_was_moved},
            {"digests_of_several_batches", digests_of_several_batches},
            {"odd_places_and_lengths_have_no_digests", odd_places_and_lengths_have_no_digests},
            {"cancelled_batches_have_no_digests", cancelled_batches_have_no_digests}};
}

}  // namespace pegaflow::conformance
