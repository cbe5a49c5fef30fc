// SPDX-License-Identifier: Apache-2.0
// Checks of what batches move: formats, sizes, alignment, ranges, random batches against a model.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "tools/conformance/fixture.hpp"

namespace pegaflow::conformance {
namespace {

// Moves the same bytes between the shadows.
void model(std::uint32_t op, Memory& local, std::uint64_t at_local, Memory& remote, std::uint64_t at_remote,
           std::uint64_t length) {
    Memory& from = op == PEGA_OP_READ ? remote : local;
    Memory& to = op == PEGA_OP_READ ? local : remote;
    const std::uint64_t source = op == PEGA_OP_READ ? at_remote : at_local;
    const std::uint64_t target = op == PEGA_OP_READ ? at_local : at_remote;
    std::copy_n(from.shadow.begin() + static_cast<std::ptrdiff_t>(source), length,
                to.shadow.begin() + static_cast<std::ptrdiff_t>(target));
}

void flat_moves(Fixture& f, std::uint32_t op) {
    Memory local = f.local();
    Memory remote = f.remote();
    const std::vector<std::uint64_t> at_local = {0, f.round(5000), f.round(70000), f.round(300001), f.round(600001)};
    const std::vector<std::uint64_t> at_remote = {f.round(200000), 0, f.round(9000), f.round(500001), f.round(150003)};
    const std::vector<std::uint64_t> lengths = {f.round(4096), 0, f.round(54321), f.round(200003), f.caps.alignment};
    pega_batch batch = f.flat(op, local, remote, at_local, at_remote, lengths);
    const pega_completion end = f.run(f.open_channel(), batch);
    PEGA_EXPECT(end.status == PEGA_OK, fmt::format("status {}", end.status));
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        model(op, local, at_local[i], remote, at_remote[i], lengths[i]);
        total += lengths[i];
    }
    PEGA_EXPECT(end.bytes == total, fmt::format("{} bytes reported, {} moved", end.bytes, total));
    f.expect_same(local, "local");
    f.expect_same(remote, "remote");
}

void flat_write(Fixture& f) { flat_moves(f, PEGA_OP_WRITE); }
void flat_read(Fixture& f) { flat_moves(f, PEGA_OP_READ); }

void empty_batches_complete(Fixture& f) {
    Memory local = f.local(4096);
    Memory remote = f.remote(4096);
    pega_channel* channel = f.open_channel();
    pega_batch none = f.flat(PEGA_OP_WRITE, local, remote, {}, {}, {});
    PEGA_EXPECT(f.run(channel, none).bytes == 0, "an empty flat batch");
    pega_batch no_spans = f.spans(PEGA_OP_WRITE, {}, {}, {});
    PEGA_EXPECT(f.run(channel, no_spans).status == PEGA_OK, "a batch without spans");
    const std::vector<pega_span> list = {{local.region, remote.region, 0, 512, 0, 0, 512, 0, 0, 1, 0}};
    const std::vector<std::uint64_t> index = {0, 1};
    pega_batch no_bytes = f.spans(PEGA_OP_WRITE, list, index, index);
    const pega_completion end = f.run(channel, no_bytes);
    PEGA_EXPECT(end.status == PEGA_OK && end.bytes == 0, "pages of no bytes");
    PEGA_EXPECT(end.landed_spans == 1, fmt::format("{} spans landed, expected 1", end.landed_spans));
    f.expect_same(remote, "remote");
}

void spans_over_regions(Fixture& f, std::uint32_t op) {
    const std::uint64_t page = f.round(4096);
    Memory first = f.local();
    Memory second = f.local();
    Memory third = f.remote();
    Memory fourth = f.remote();
    const std::uint64_t half = Fixture::kBytes / 2;
    const std::vector<std::uint64_t> local_index = {5, 0, 17, 2};
    const std::vector<std::uint64_t> remote_index = {0, page * 8, page * 32, page * 16};  // byte offsets
    std::vector<pega_span> list;
    for (std::uint64_t i = 0; i < 4; ++i) {
        const Memory& from = i % 2 == 0 ? first : second;
        const Memory& to = i / 2 == 0 ? third : fourth;
        list.push_back({from.region, to.region, (i / 2) * page * 20, page, half, i * 2 * page, 1, page, page, 2, 0});
    }
    pega_batch batch = f.spans(op, list, local_index, remote_index);
    const pega_completion end = f.run(f.open_channel(), batch);
    PEGA_EXPECT(end.status == PEGA_OK, fmt::format("status {}", end.status));
    PEGA_EXPECT(end.bytes == 4 * 4 * 2 * page, fmt::format("{} bytes", end.bytes));
    PEGA_EXPECT(end.landed_spans == 4, fmt::format("{} spans landed", end.landed_spans));
    for (std::size_t s = 0; s < list.size(); ++s) {
        Memory& from = s % 2 == 0 ? first : second;
        Memory& to = s / 2 == 0 ? third : fourth;
        for (std::size_t i = 0; i < local_index.size(); ++i) {
            for (std::uint64_t segment = 0; segment < 2; ++segment) {
                model(op, from, list[s].local_base + local_index[i] * page + segment * half, to,
                      list[s].remote_base + remote_index[i] + segment * page, page);
            }
        }
    }
    f.expect_same(first, "first local region");
    f.expect_same(second, "second local region");
    f.expect_same(third, "first remote region");
    f.expect_same(fourth, "second remote region");
}

void spans_write(Fixture& f) { spans_over_regions(f, PEGA_OP_WRITE); }
void spans_read(Fixture& f) { spans_over_regions(f, PEGA_OP_READ); }

void larger_spans_of_a_later_header(Fixture& f) {
    struct Later {
        pega_span span;
        std::uint64_t added[3];
    };
    const std::uint64_t page = f.round(1024);
    Memory local = f.local();
    Memory remote = f.remote();
    const std::vector<Later> list = {
        {{local.region, remote.region, 0, page, 0, 0, page, 0, page, 1, 0}, {~0ULL, ~0ULL, ~0ULL}},
        {{local.region, remote.region, page * 8, page, 0, page * 8, page, 0, page, 1, 0}, {~0ULL, ~0ULL, ~0ULL}}};
    const std::vector<std::uint64_t> index = {1};
    pega_batch batch = f.spans(PEGA_OP_WRITE, {}, index, index);
    batch.spans = &list[0].span;
    batch.span_count = 2;
    batch.span_size = sizeof(Later);
    PEGA_EXPECT(f.run(f.open_channel(), batch).status == PEGA_OK, "spans of a larger size");
    model(PEGA_OP_WRITE, local, page, remote, page, page);
    model(PEGA_OP_WRITE, local, page * 9, remote, page * 9, page);
    f.expect_same(remote, "remote");
}

void refuses_what_is_outside(Fixture& f) {
    Memory local = f.local(65536);
    Memory remote = f.remote(65536);
    pega_channel* channel = f.open_channel();
    const auto refused = [&](pega_batch batch, const char* what) {
        const pega_status status = f.m.channel->submit(channel, &batch);
        PEGA_EXPECT(status == PEGA_INVALID, fmt::format("{}: status {}, expected INVALID", what, status));
    };
    const std::uint64_t page = f.round(4096);
    const std::vector<std::uint64_t> zero = {0};
    const std::vector<std::uint64_t> end = {65536 - page};
    const std::vector<std::uint64_t> too_long = {page * 2};
    const std::vector<std::uint64_t> huge = {UINT64_MAX - page + 1};
    refused(f.flat(PEGA_OP_WRITE, local, remote, end, zero, too_long), "a range beyond the local region");
    refused(f.flat(PEGA_OP_WRITE, local, remote, zero, end, too_long), "a range beyond the remote region");
    refused(f.flat(PEGA_OP_READ, local, remote, huge, zero, too_long), "a range that overflows");
    const std::vector<std::uint64_t> far = {16};
    const std::vector<std::uint64_t> overflow = {UINT64_MAX / 2};
    const std::vector<pega_span> list = {{local.region, remote.region, 0, page, 0, 0, page, 0, page, 1, 0}};
    refused(f.spans(PEGA_OP_WRITE, list, far, zero), "a local index beyond the region");
    refused(f.spans(PEGA_OP_WRITE, list, zero, far), "a remote index beyond the region");
    refused(f.spans(PEGA_OP_WRITE, list, overflow, zero), "an index that overflows");
    const std::vector<pega_span> segments = {{local.region, remote.region, 0, page, 65536, 0, page, page, page, 2, 0}};
    refused(f.spans(PEGA_OP_WRITE, segments, zero, zero), "a segment beyond the region");
    // The whole batch is refused when one element is bad.
    const std::vector<std::uint64_t> good_and_bad = {0, 65536};
    const std::vector<std::uint64_t> starts = {0, 0};
    const std::vector<std::uint64_t> lengths = {page, page};
    refused(f.flat(PEGA_OP_WRITE, local, remote, starts, good_and_bad, lengths), "one bad element of two");
    f.expect_silence();
    f.expect_same(remote, "remote, after refusals");
}

void refuses_nonsense(Fixture& f) {
    Memory local = f.local(4096);
    Memory remote = f.remote(4096);
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> zero = {0};
    const std::vector<std::uint64_t> length = {f.round(512)};
    const pega_batch good = f.flat(PEGA_OP_WRITE, local, remote, zero, zero, length);
    const auto refused = [&](auto change, const char* what) {
        pega_batch batch = good;
        change(batch);
        const pega_status status = f.m.channel->submit(channel, &batch);
        PEGA_EXPECT(status < 0 && status != PEGA_QUEUE_FULL, fmt::format("{}: status {}", what, status));
    };
    refused([](pega_batch& b) { b.op = 77; }, "an unknown operation");
    refused([](pega_batch& b) { b.format = 9; }, "an unknown format");
    refused([](pega_batch& b) { b.size = 8; }, "a short struct");
    refused([](pega_batch& b) { b.local_region = nullptr; }, "no local region");
    refused([](pega_batch& b) { b.lengths = nullptr; }, "no lengths");
    pega_batch_option unknown{sizeof unknown, 0xFFFF, 0, 0, nullptr};
    refused([&](pega_batch& b) { b.options = &unknown; }, "an unknown option");
    PEGA_EXPECT(f.m.channel->submit(channel, nullptr) == PEGA_INVALID, "no batch");
    pega_batch hinted = good;
    unknown.flags = PEGA_OPTION_HINT;
    hinted.options = &unknown;
    hinted.user_data = f.next_user_data();
    PEGA_EXPECT(f.run(channel, hinted).status == PEGA_OK, "an unknown option that is only a hint");
    f.expect_silence();
    pega_region* out = nullptr;
    PEGA_EXPECT(f.m.region->register_memory(f.device, nullptr, &out) == PEGA_INVALID, "registering nothing");
    pega_memory empty{};
    empty.size = sizeof empty;
    PEGA_EXPECT(f.m.region->register_memory(f.device, &empty, &out) < 0, "registering no bytes");
}

void random_batches_match_the_model(Fixture& f) {
    std::mt19937_64 random(f.seed);
    Memory local = f.local();
    Memory remote = f.remote();
    pega_channel* channel = f.open_channel();
    for (int round = 0; round < 60; ++round) {
        const std::uint32_t op = random() % 2 == 0 ? PEGA_OP_READ : PEGA_OP_WRITE;
        const std::uint64_t pages = 1 + random() % 64;
        const std::uint64_t page =
            std::max<std::uint64_t>(f.caps.alignment, f.round(1 + random() % (Fixture::kBytes / 64 - 1)));
        // Distinct places on each side, so that the order within the batch does not matter.
        std::vector<std::uint64_t> from(64);
        std::vector<std::uint64_t> to(64);
        for (std::uint64_t i = 0; i < 64; ++i) from[i] = to[i] = i;
        std::shuffle(from.begin(), from.end(), random);
        std::shuffle(to.begin(), to.end(), random);
        from.resize(pages);
        to.resize(pages);
        const std::uint64_t stride = f.round(Fixture::kBytes / 64);
        const std::vector<pega_span> list = {{local.region, remote.region, 0, stride, 0, 0, stride, 0, page, 1, 0}};
        pega_batch batch = f.spans(op, list, from, to);
        const pega_completion end = f.run(channel, batch);
        PEGA_EXPECT(end.status == PEGA_OK && end.bytes == pages * page,
                    fmt::format("round {}: status {}, {} bytes", round, end.status, end.bytes));
        for (std::uint64_t i = 0; i < pages; ++i) model(op, local, from[i] * stride, remote, to[i] * stride, page);
    }
    f.expect_same(local, "local after random batches");
    f.expect_same(remote, "remote after random batches");
}

void large_batches(Fixture& f) {
    constexpr std::uint64_t kLarge = Fixture::kLongBytes / 2 * 3;
    Memory local = f.local(kLarge);
    Memory remote = f.remote(kLarge);
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> zero = {0};
    const std::vector<std::uint64_t> all = {kLarge};
    pega_batch one = f.flat(PEGA_OP_WRITE, local, remote, zero, zero, all);
    PEGA_EXPECT(f.run(channel, one).bytes == kLarge, "one large range");
    remote.shadow = local.shadow;
    f.expect_same(remote, "one large range");
    // Many more pages than any ring holds, backwards.
    const std::uint64_t page = f.round(512);
    const std::uint64_t count = kLarge / 512;
    if (f.caps.max_descriptors != 0 && f.caps.max_descriptors < count) return;
    std::vector<std::uint64_t> index(count);
    std::vector<std::uint64_t> back(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        index[i] = i;
        back[i] = count - 1 - i;
    }
    const std::vector<pega_span> list = {{local.region, remote.region, 0, 512, 0, 0, 512, 0, page, 1, 0}};
    pega_batch many = f.spans(PEGA_OP_WRITE, list, index, back);
    PEGA_EXPECT(f.run(channel, many).status == PEGA_OK, "a batch of many pages");
    for (std::uint64_t i = 0; i < count; ++i) model(PEGA_OP_WRITE, local, i * 512, remote, back[i] * 512, page);
    f.expect_same(remote, "many pages");
}

}  // namespace

std::vector<Check> batch_checks() {
    return {{"flat_write", flat_write},
            {"flat_read", flat_read},
            {"empty_batches_complete", empty_batches_complete},
            {"spans_write", spans_write},
            {"spans_read", spans_read},
            {"larger_spans_of_a_later_header", larger_spans_of_a_later_header},
            {"refuses_what_is_outside", refuses_what_is_outside},
            {"refuses_nonsense", refuses_nonsense},
            {"random_batches_match_the_model", random_batches_match_the_model},
            {"large_batches", large_batches}};
}

}  // namespace pegaflow::conformance
