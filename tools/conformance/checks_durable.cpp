// SPDX-License-Identifier: Apache-2.0
// Checks of what files promise: durable batches, flushes, ranges given back, sleeping for completions.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/wait.h"
#include "tools/conformance/fixture.hpp"

namespace pegaflow::conformance {
namespace {

const std::vector<std::uint64_t> kZero = {0};

const pega_ext_durable& durable_of(Fixture& f) {
    const auto* table = f.extension<pega_ext_durable>(PEGA_EXT_DURABLE);
    if (table == nullptr) throw Skipped("nothing is durable here");
    return *table;
}

// A file region that a batch of this operation writes, and the other side.
struct Sides {
    Memory file, other;
    std::uint32_t op = PEGA_OP_READ;
};

Sides file_sides(Fixture& f, std::uint64_t bytes) {
    durable_of(f);
    if (f.info.kind != PEGA_MEMORY_FILE) throw Skipped("the device's own memory is no file");
    return {f.local(bytes), f.remote(bytes), PEGA_OP_READ};
}

void durable_batches_move_the_same_bytes(Fixture& f) {
    Sides s = file_sides(f, Fixture::kBytes);
    pega_channel* channel = f.open_channel();
    pega_durable_option option{{sizeof option, PEGA_OPTION_DURABLE, 0, 0, nullptr}};
    const std::vector<std::uint64_t> at = {0, 65536, 200'000, 400'001};
    const std::vector<std::uint64_t> lengths = {4096, 65536, 1000, 50'001};
    // One request, and several.
    for (const std::size_t count : {std::size_t{1}, at.size()}) {
        std::vector<std::uint64_t> where(at.begin(), at.begin() + static_cast<std::ptrdiff_t>(count));
        std::vector<std::uint64_t> sizes(lengths.begin(), lengths.begin() + static_cast<std::ptrdiff_t>(count));
        for (auto* list : {&where, &sizes})
            std::transform(list->begin(), list->end(), list->begin(), [&](auto v) { return f.round(v); });
        pega_batch batch = f.flat(s.op, s.file, s.other, where, where, sizes);
        batch.options = &option.base;
        const pega_completion end = f.run(channel, batch);
        PEGA_EXPECT(end.status == PEGA_OK, fmt::format("status {}", end.status));
        for (std::size_t i = 0; i < count; ++i) {
            const auto from = static_cast<std::ptrdiff_t>(where[i]);
            std::copy_n(s.other.shadow.begin() + from, sizes[i], s.file.shadow.begin() + from);
        }
    }
    f.expect_same(s.file, "the file");
}

void empty_durable_batches_and_flushes(Fixture& f) {
    Sides s = file_sides(f, 65536);
    pega_channel* channel = f.open_channel();
    pega_durable_option option{{sizeof option, PEGA_OPTION_DURABLE, 0, 0, nullptr}};
    pega_batch batch = f.flat(s.op, s.file, s.other, {}, {}, {});
    batch.options = &option.base;
    const pega_completion end = f.run(channel, batch);
    PEGA_EXPECT(end.status == PEGA_OK && end.bytes == 0, fmt::format("status {}, {} bytes", end.status, end.bytes));
    PEGA_EXPECT(durable_of(f).flush(s.file.region) == PEGA_OK, "flush");
    PEGA_EXPECT(durable_of(f).flush(s.other.region) == PEGA_INVALID, "flush of memory");
    PEGA_EXPECT(durable_of(f).flush(nullptr) == PEGA_INVALID, "flush of nothing");
}

void discard_keeps_the_neighbours(Fixture& f) {
    Sides s = file_sides(f, Fixture::kBytes);
    const pega_ext_durable& durable = durable_of(f);
    PEGA_EXPECT(durable.discard(s.file.region, 0, Fixture::kBytes + 1) == PEGA_INVALID, "a range beyond the region");
    PEGA_EXPECT(durable.discard(s.file.region, UINT64_MAX, 2) == PEGA_INVALID, "a range that overflows");
    PEGA_EXPECT(durable.discard(s.file.region, 100, 200) == PEGA_OK, "less than a unit");
    f.expect_same(s.file, "a file of which less than a unit was given back");
    const pega_status status = durable.discard(s.file.region, 262'144, 262'144);
    if (status == PEGA_UNSUPPORTED) throw Skipped("this file system gives nothing back");
    PEGA_EXPECT(status == PEGA_OK, fmt::format("status {}", status));
    const std::vector<std::uint8_t> bytes = f.read_back(s.file);
    PEGA_EXPECT(std::equal(bytes.begin(), bytes.begin() + 262'144, s.file.shadow.begin()), "the bytes before the range");
    PEGA_EXPECT(std::equal(bytes.begin() + 524'288, bytes.end(), s.file.shadow.begin() + 524'288), "the bytes after the range");
}

void wait_sleeps_and_wakes(Fixture& f) {
    const auto* table = f.extension<pega_ext_wait>(PEGA_EXT_WAIT);
    if (table == nullptr) throw Skipped("no wait extension");
    pega_completion record{};
    record.size = sizeof record;
    const std::uint64_t before = f.now();
    PEGA_EXPECT(table->wait(f.device, &record, 1, before + 20'000'000) == 0, "a record that belongs to no batch");
    PEGA_EXPECT(f.now() - before >= 15'000'000, "returned before the deadline with nothing to tell");
    std::thread waker([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        table->interrupt(f.device);
    });
    const std::uint64_t started = f.now();
    table->wait(f.device, &record, 1, started + 20'000'000'000);
    const std::uint64_t took = f.now() - started;
    waker.join();
    PEGA_EXPECT(took < 10'000'000'000, "interrupt did not wake it");
    Memory local = f.local();
    Memory remote = f.remote();
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {Fixture::kBytes};
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
    std::atomic<pega_status> submitted{PEGA_PENDING};
    std::thread submitter([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        submitted = f.m.channel->submit(channel, &batch);
    });
    std::uint32_t got = 0;
    const std::uint64_t limit = f.now() + 20'000'000'000;
    while (got == 0 && f.now() < limit) got = table->wait(f.device, &record, 1, limit);
    submitter.join();
    PEGA_EXPECT(submitted == PEGA_OK, fmt::format("submit: status {}", submitted.load()));
    PEGA_EXPECT(got == 1 && record.user_data == batch.user_data && record.status == PEGA_OK,
                "the end of a batch did not wake it");
}

}  // namespace

std::vector<Check> durable_checks() {
    return {{"durable_batches_move_the_same_bytes", durable_batches_move_the_same_bytes},
            {"empty_durable_batches_and_flushes", empty_durable_batches_and_flushes},
            {"discard_keeps_the_neighbours", discard_keeps_the_neighbours},
            {"wait_sleeps_and_wakes", wait_sleeps_and_wakes}};
}

}  // namespace pegaflow::conformance
