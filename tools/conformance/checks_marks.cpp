// SPDX-License-Identifier: Apache-2.0
// Checks of marks: what they say has landed is there when they are seen, and they come as often as was asked.
#include <fmt/format.h>

#include <algorithm>

#include "tools/conformance/fixture.hpp"

namespace pegaflow::conformance {
namespace {

constexpr std::uint64_t kSpans = 13;  // no multiple of how often marks are asked for
constexpr std::uint64_t kPages = 4;

// A batch of spans whose pages lie in reverse order on the remote side, and what is known of its marks.
class Marked {
public:
    Marked(Fixture& f, std::uint32_t op)
        : page_(f.round(Fixture::kBytes / (kSpans * kPages))),
          local_(f.local(kSpans * kPages * page_)),
          remote_(f.remote(kSpans * kPages * page_)),
          from_(op == PEGA_OP_READ ? remote_ : local_),
          to_(op == PEGA_OP_READ ? local_ : remote_),
          bytes_(f.bytes_of(to_)) {
        for (std::uint64_t s = 0; s < kSpans; ++s) {
            list_.push_back({local_.region, remote_.region, s * kPages * page_, page_, 0, (kSpans - 1 - s) * kPages * page_,
                             page_, 0, page_, 1, 0});
        }
        batch_ = f.spans(op, list_, local_index_, remote_index_);
    }
    bool addressable() const { return bytes_ != nullptr; }

    void run(Fixture& f, std::uint32_t every) {
        batch_.mark_every = every;
        batch_.user_data = f.next_user_data();
        std::uint64_t marks = 0, landed = 0;
        const pega_completion end = f.run(f.open_channel(), batch_, [&](const pega_completion& mark) {
            const std::string what =
                fmt::format("mark_every {}: a mark of {} spans after {}", every, mark.landed_spans, landed);
            PEGA_EXPECT(mark.user_data == batch_.user_data && mark.status == PEGA_OK, what);
            PEGA_EXPECT(mark.landed_spans > landed && mark.landed_spans <= kSpans, what);
            PEGA_EXPECT(mark.landed_spans / every > landed / every || mark.landed_spans == kSpans, what);
            for (; landed < mark.landed_spans; ++landed) expect_landed(landed, what);
            ++marks;
        });
        PEGA_EXPECT(end.status == PEGA_OK && end.landed_spans == kSpans,
                    fmt::format("status {}, {} spans landed", end.status, end.landed_spans));
        PEGA_EXPECT(marks != 0,
                    fmt::format("no mark in {} spans with mark_every {}, although marks are offered", kSpans, every));
        for (std::uint64_t s = 0; s < kSpans; ++s) {
            for (std::uint64_t i = 0; i < kPages; ++i)
                std::copy_n(from_.shadow.begin() + at(from_, s, i), page_, to_.shadow.begin() + at(to_, s, i));
        }
        f.expect_same(to_, "after the end");
    }

private:
    std::ptrdiff_t at(const Memory& side, std::uint64_t span, std::uint64_t i) const {
        const std::uint64_t place =
            &side == &local_ ? span * kPages + local_index_[i] : (kSpans - 1 - span) * kPages + remote_index_[i];
        return static_cast<std::ptrdiff_t>(place * page_);
    }
    void expect_landed(std::uint64_t span, const std::string& what) const {
        for (std::uint64_t i = 0; i < kPages; ++i) {
            const auto source = from_.shadow.begin() + at(from_, span, i);
            PEGA_EXPECT(std::equal(source, source + static_cast<std::ptrdiff_t>(page_), bytes_ + at(to_, span, i)),
                        fmt::format("{}: the bytes of span {} are not there", what, span));
        }
    }

    const std::uint64_t page_;
    Memory local_, remote_;
    Memory &from_, &to_;
    const std::uint8_t* bytes_;
    const std::vector<std::uint64_t> local_index_ = {0, 1, 2, 3}, remote_index_ = {3, 2, 1, 0};
    std::vector<pega_span> list_;
    pega_batch batch_{};
};

void marks_follow_the_bytes(Fixture& f) {
    if (!f.has(PEGA_CAP_MARKS)) throw Skipped("marks before the end are not offered");
    bool seen = false;
    for (const std::uint32_t op : {PEGA_OP_READ, PEGA_OP_WRITE}) {
        for (const std::uint32_t every : {1U, 2U, 3U}) {
            Marked marked(f, op);
            if (!marked.addressable()) continue;
            marked.run(f, every);
            seen = true;
        }
    }
    if (!seen) throw Skipped("processors address neither side of a transfer here");
}

}  // namespace

std::vector<Check> mark_checks() { return {{"marks_follow_the_bytes", marks_follow_the_bytes}}; }

}  // namespace pegaflow::conformance
