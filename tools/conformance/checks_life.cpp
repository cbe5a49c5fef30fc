// SPDX-License-Identifier: Apache-2.0
// Checks of how batches live and end: cancel, deadline, close, events, many submitters, nothing after the end.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#include "tools/conformance/events.hpp"

namespace pegaflow::conformance {
namespace {

const std::vector<std::uint64_t> kZero = {0};

void exactly_one_end_each(Fixture& f) {
    Memory local = f.local();
    Memory remote = f.remote();
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {f.round(2048)};
    // Batches may run side by side: each has a place of its own.
    std::vector<std::uint64_t> places(500);
    for (std::size_t i = 0; i < places.size(); ++i) places[i] = i * 2048;
    std::set<std::uint64_t> submitted;
    std::map<std::uint64_t, pega_completion> ended;
    while (submitted.size() < places.size()) {
        pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
        batch.remote_offsets = &places[submitted.size()];
        const pega_status status = f.m.channel->submit(channel, &batch);
        if (status == PEGA_OK) {
            submitted.insert(batch.user_data);
            continue;
        }
        PEGA_EXPECT(status == PEGA_QUEUE_FULL, fmt::format("status {}", status));
        for (const auto& [id, record] : f.wait(1)) PEGA_EXPECT(ended.emplace(id, record).second, "a batch that ended twice");
    }
    for (const auto& [id, record] : f.wait(submitted.size() - ended.size()))
        PEGA_EXPECT(ended.emplace(id, record).second, "a batch that ended twice");
    for (const auto& [id, record] : ended)
        PEGA_EXPECT(submitted.contains(id) && record.status == PEGA_OK, "an end of a batch that was not submitted");
    f.expect_silence();
}

void events_hold_back_and_record(Fixture& f) {
    pega_event* wait = held_event(f);
    pega_event* record = held_event(f);
    const pega_ext_stream& stream = stream_of(f);
    Memory local = f.local(8192);
    Memory remote = f.remote(8192);
    const std::vector<std::uint64_t> length = {f.round(4096)};
    pega_stream_option option = stream_option(wait, record);
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
    batch.options = &option.base;
    pega_channel* channel = f.open_channel();
    PEGA_EXPECT(f.m.channel->submit(channel, &batch) == PEGA_OK, "submit");
    f.expect_silence(0.01);
    f.expect_same(remote, "remote, before the event");
    PEGA_EXPECT(stream.query(record) == PEGA_PENDING, "the recorded event is early");
    stream.signal(wait, nullptr);
    f.wait(1);
    PEGA_EXPECT(stream.query(record) == PEGA_OK, "the recorded event did not happen");
    std::copy_n(local.shadow.begin(), length[0], remote.shadow.begin());
    f.expect_same(remote, "remote, after the event");
    stream.destroy(wait);
    stream.destroy(record);
}

void recorded_events_happen(Fixture& f) {
    const pega_ext_stream& stream = stream_of(f);
    pega_event* event = nullptr;
    PEGA_EXPECT(stream.create(f.device, 0, &event) == PEGA_OK, "create an event");
    Memory local = f.local();
    Memory remote = f.remote();
    const std::vector<std::uint64_t> length = {Fixture::kBytes};
    pega_stream_option option = stream_option(nullptr, event);
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
    batch.options = &option.base;
    PEGA_EXPECT(f.run(f.open_channel(), batch).status == PEGA_OK, "status");
    PEGA_EXPECT(stream.query(event) == PEGA_OK,
                "the event recorded after the last byte has not happened at the end of the batch");
    stream.destroy(event);
}

// The terminal completion promised that no access happens any more: what is written now stays.
void expect_untouched(Fixture& f, Memory& target) {
    auto* bytes = const_cast<std::uint8_t*>(f.bytes_of(target));
    if (bytes == nullptr) return;
    const std::size_t size = target.shadow.size();
    std::memset(bytes, 0x5A, size);
    f.expect_silence(0.002);
    PEGA_EXPECT(bytes[0] == 0x5A && std::memcmp(bytes, bytes + 1, size - 1) == 0, "a write after the end");
}

void nothing_after_the_end(Fixture& f) {
    Memory local = f.local();
    Memory remote = f.remote();
    if (f.bytes_of(local) == nullptr && f.bytes_of(remote) == nullptr)
        throw Skipped("processors address neither side of a transfer here");
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {Fixture::kBytes};
    for (int round = 0; round < 6; ++round) {
        const std::uint32_t op = round % 2 == 0 ? PEGA_OP_READ : PEGA_OP_WRITE;
        pega_batch batch = f.flat(op, local, remote, kZero, kZero, length);
        PEGA_EXPECT(f.run(channel, batch).status == PEGA_OK, "status");
        expect_untouched(f, op == PEGA_OP_READ ? local : remote);
    }
    f.expect_silence();
}

void cancel_ends_once_and_quiesces(Fixture& f) {
    const auto* table = &f.claimed<pega_ext_cancel>(PEGA_CAP_CANCEL, PEGA_EXT_CANCEL);
    constexpr std::uint64_t kLarge = Fixture::kLongBytes;
    Memory local = f.local(kLarge);
    Memory remote = f.remote(kLarge);
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {kLarge};
    for (int round = 0; round < 8; ++round) {
        const std::uint32_t op = round / 2 % 2 == 0 ? PEGA_OP_WRITE : PEGA_OP_READ;
        pega_batch batch = f.flat(op, local, remote, kZero, kZero, length);
        PEGA_EXPECT(f.m.channel->submit(channel, &batch) == PEGA_OK, "submit");
        if (round % 2 == 1) std::this_thread::sleep_for(std::chrono::microseconds(200 * round));
        table->cancel(channel, batch.user_data);
        table->cancel(channel, batch.user_data);
        const pega_completion end = f.wait(1).at(batch.user_data);
        PEGA_EXPECT(end.status == PEGA_OK || end.status == PEGA_CANCELED, fmt::format("status {}", end.status));
        PEGA_EXPECT(end.status == PEGA_CANCELED || end.bytes == kLarge, "OK without all bytes");
        expect_untouched(f, op == PEGA_OP_READ ? local : remote);
    }
    PEGA_EXPECT(table->cancel(channel, 0xDEAD0000DEADULL) == PEGA_INVALID, "cancelling what is not in flight");
    f.expect_silence();
}

void a_held_batch_can_be_cancelled(Fixture& f) {
    const auto* table = &f.claimed<pega_ext_cancel>(PEGA_CAP_CANCEL, PEGA_EXT_CANCEL);
    pega_event* event = held_event(f);
    Memory local = f.local(8192);
    Memory remote = f.remote(8192);
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {f.round(4096)};
    pega_stream_option option = stream_option(event, nullptr);
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
    batch.options = &option.base;
    PEGA_EXPECT(f.m.channel->submit(channel, &batch) == PEGA_OK, "submit");
    PEGA_EXPECT(table->cancel(channel, batch.user_data) == PEGA_OK, "cancel");
    PEGA_EXPECT(f.wait(1).at(batch.user_data).status == PEGA_CANCELED, "status");
    f.expect_same(remote, "remote of a cancelled batch that never began");
    stream_of(f).destroy(event);
}

void a_deadline_ends_a_held_batch(Fixture& f) {
    pega_event* event = held_event(f);
    Memory local = f.local(8192);
    Memory remote = f.remote(8192);
    const std::vector<std::uint64_t> length = {f.round(4096)};
    pega_stream_option option = stream_option(event, nullptr);
    pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
    batch.options = &option.base;
    batch.deadline_ns = f.now() + 20'000'000;
    const pega_completion end = f.run(f.open_channel(), batch);
    PEGA_EXPECT(end.status == PEGA_CANCELED, fmt::format("status {}", end.status));
    f.expect_same(remote, "remote");
    stream_of(f).destroy(event);
}

void close_with_work_in_flight(Fixture& f) {
    constexpr std::uint64_t kLarge = Fixture::kLongBytes / 2;
    Memory local = f.local(kLarge);
    Memory remote = f.remote(kLarge);
    const std::vector<std::uint64_t> length = {kLarge / 4};
    const std::vector<std::uint64_t> places = {0, kLarge / 4, kLarge / 2, kLarge / 4 * 3};
    for (int round = 0; round < 5; ++round) {
        pega_channel* channel = f.open_channel();
        std::size_t accepted = 0;
        for (int i = 0; i < 4; ++i) {
            pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
            batch.remote_offsets = &places[static_cast<std::size_t>(i)];
            accepted += f.m.channel->submit(channel, &batch) == PEGA_OK ? 1 : 0;
        }
        f.close_channel(channel);
        PEGA_EXPECT(f.wait(accepted).size() == accepted, "every accepted batch ends, also when its channel is closed");
    }
    f.expect_silence();
}

void closing_a_device_ends_everything(Fixture& f) {
    Memory local = f.local(Fixture::kLongBytes / 8);
    Memory remote = f.remote(Fixture::kLongBytes / 8);
    const std::vector<std::uint64_t> length = {Fixture::kLongBytes / 32};
    const std::vector<std::uint64_t> places = {0, length[0], 2 * length[0], 3 * length[0]};
    for (std::size_t i = 0; i < places.size(); i += 2) {
        pega_channel* channel = f.open_channel();
        for (const std::size_t k : {i, i + 1}) {
            pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
            batch.local_offsets = batch.remote_offsets = &places[k];
            PEGA_EXPECT(f.m.channel->submit(channel, &batch) == PEGA_OK, "submit");
        }
    }
    // Its channels are closed then, its regions unregistered, its batches over.
    f.forget(local);
    f.forget(remote);
    f.close_device();
    if (remote.host.empty()) return;
    std::fill(remote.host.begin(), remote.host.end(), std::uint8_t{0x5A});
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    PEGA_EXPECT(std::count(remote.host.begin(), remote.host.end(), 0x5A) == static_cast<std::ptrdiff_t>(remote.host.size()),
                "a write after the device was closed");
}

void many_submitters(Fixture& f) {
    constexpr int kThreads = 4;
    constexpr int kEach = 200;
    Memory local = f.local();
    Memory remote = f.remote();
    const std::vector<std::uint64_t> length = {f.round(1024)};
    std::vector<pega_channel*> channels;
    std::vector<std::vector<std::uint64_t>> at(kThreads);  // each batch has a place of its own
    for (std::uint64_t t = 0; t < kThreads; ++t) {
        channels.push_back(f.open_channel());
        for (std::uint64_t i = 0; i < kEach; ++i) at[t].push_back((t * kEach + i) * 1024);
    }
    std::atomic<int> failed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < kEach;) {
                pega_batch batch{};
                batch.size = sizeof batch;
                batch.op = PEGA_OP_WRITE;
                batch.format = PEGA_FORMAT_FLAT;
                batch.user_data = (static_cast<std::uint64_t>(t) + 1) << 32 | static_cast<std::uint64_t>(i);
                batch.local_region = local.region;
                batch.remote_region = remote.region;
                batch.local_offsets = batch.remote_offsets = &at[t][static_cast<std::size_t>(i)];
                batch.lengths = length.data();
                batch.flat_count = 1;
                const pega_status status = f.m.channel->submit(channels[static_cast<std::size_t>(t)], &batch);
                if (status == PEGA_OK) {
                    ++i;
                } else if (status != PEGA_QUEUE_FULL) {
                    ++failed;
                    return;
                } else {
                    std::this_thread::yield();
                }
            }
        });
    }
    const auto ended = f.wait(kThreads * kEach);
    for (std::thread& thread : threads) thread.join();
    PEGA_EXPECT(failed == 0, "a submit failed");
    for (const auto& places : at) {
        for (const std::uint64_t place : places) {
            const auto offset = static_cast<std::ptrdiff_t>(place);
            std::copy_n(local.shadow.begin() + offset, length[0], remote.shadow.begin() + offset);
        }
    }
    f.expect_same(remote, "remote");
}

void arm_and_sleep(Fixture& f) {
    Memory local = f.local();
    Memory remote = f.remote();
    pega_channel* channel = f.open_channel();
    const std::vector<std::uint64_t> length = {Fixture::kBytes};
    const int fd = f.m.completion->wait_fd(f.device);
    PEGA_EXPECT(fd >= 0, "no descriptor to sleep on");
    for (int round = 0; round < 50; ++round) {
        pega_batch batch = f.flat(PEGA_OP_WRITE, local, remote, kZero, kZero, length);
        PEGA_EXPECT(f.m.channel->submit(channel, &batch) == PEGA_OK, "submit");
        for (bool ended = false; !ended;) {
            pega_completion record{};
            record.size = sizeof record;
            ended = f.m.completion->poll(f.device, &record, 1) == 1 && (record.flags & PEGA_COMPLETION_TERMINAL) != 0;
            if (ended || f.m.completion->arm(f.device) != PEGA_OK) continue;
            pollfd sleeping{fd, POLLIN, 0};
            PEGA_EXPECT(::poll(&sleeping, 1, 10'000) == 1, "slept ten seconds although work was to come");
        }
    }
}

}  // namespace

std::vector<Check> life_checks() {
    return {{"exactly_one_end_each", exactly_one_end_each},
            {"events_hold_back_and_record", events_hold_back_and_record},
            {"recorded_events_happen", recorded_events_happen},
            {"nothing_after_the_end", nothing_after_the_end},
            {"cancel_ends_once_and_quiesces", cancel_ends_once_and_quiesces},
            {"a_held_batch_can_be_cancelled", a_held_batch_can_be_cancelled},
            {"a_deadline_ends_a_held_batch", a_deadline_ends_a_held_batch},
            {"close_with_work_in_flight", close_with_work_in_flight},
            {"closing_a_device_ends_everything", closing_a_device_ends_everything},
            {"many_submitters", many_submitters},
            {"arm_and_sleep", arm_and_sleep}};
}

}  // namespace pegaflow::conformance
