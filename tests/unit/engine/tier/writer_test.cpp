// SPDX-License-Identifier: Apache-2.0
// What is written, what is found again after a stop, a power cut, an error, and what goes when there is no room.
#include "engine/tier/writer.hpp"

#include "tests/unit/base/no_threads.hpp"
#include "tests/unit/engine/tier/fake_device.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint64_t kBlock = 8192 + 4096;

TEST(WriterTest, WhatIsStoredIsFoundByTheNextStart) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(8), host);
    {
        Bench bench(device, host);
        bench.write(0, 200);
        EXPECT_EQ(bench.counters.stored_blocks, 200U);
        EXPECT_EQ(bench.catalog.blocks(), 200U);
        EXPECT_EQ(bench.catalog.live_bytes(), 200 * kBlock);
        EXPECT_EQ(bench.counters.block_bytes, 200 * kBlock);
    }
    Bench again(device, host);
    EXPECT_EQ(again.catalog.blocks(), 200U);
    for (std::uint64_t i = 0; i < 200; ++i) ASSERT_TRUE(again.right(i)) << i;
    EXPECT_FALSE(again.has(200));
    EXPECT_EQ(again.dropped, 0U);
}

TEST(WriterTest, GoesOnInTheOpenSegmentAfterEveryStart) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(8), host);
    for (std::uint64_t round = 0; round < 10; ++round) {
        Bench bench(device, host);
        bench.write(round * 5, 5);
    }
    Bench last(device, host);
    EXPECT_EQ(last.catalog.blocks(), 50U);
    EXPECT_EQ(last.catalog.usage(last.container).free_segments, 7U) << "ten starts share one segment";
    for (std::uint64_t i = 0; i < 50; ++i) ASSERT_TRUE(last.right(i)) << i;
}

TEST(WriterTest, WithoutAThreadWhatIsThereIsFoundAndNothingIsWritten) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(8), host);
    Bench(device, host).write(0, 200);
    {
        const testing::NoThreads none;
        const Bench bench(device, host);
        EXPECT_EQ(bench.catalog.blocks(), 200U) << "all segments were looked at";
        EXPECT_TRUE(bench.writer->paused());
        EXPECT_TRUE(bench.writer->ended());
        EXPECT_NE(bench.writer->problem().find("no more threads"), std::string::npos);
    }
    Bench again(device, host);
    EXPECT_EQ(again.catalog.blocks(), 200U);
    again.write(200, 1);
    EXPECT_EQ(again.counters.stored_blocks, 1U);
}

TEST(WriterTest, TheOldestSegmentGoesWhenThereIsNoRoom) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(4), host);
    Bench bench(device, host);
    bench.write(0, 600);  // nearly twice what fits
    EXPECT_EQ(bench.counters.stored_blocks, 600U);
    EXPECT_GT(bench.counters.evicted_segments, 2U);
    EXPECT_EQ(bench.counters.evicted_blocks + bench.catalog.blocks(), 600U) << "every block is there or was given up";
    EXPECT_FALSE(bench.has(0));
    for (std::uint64_t i = 420; i < 600; ++i) ASSERT_TRUE(bench.right(i)) << i;
    const Usage usage = bench.catalog.usage(bench.container);
    EXPECT_EQ(usage.blocks * kBlock, usage.live_bytes);
    EXPECT_EQ(usage.used_bytes + usage.free_segments * kMinSegmentBytes, usage.capacity_bytes);
    EXPECT_EQ(bench.counters.discarded_bytes, bench.counters.evicted_segments * kMinSegmentBytes);
}

TEST(WriterTest, WhatIsReadOftenIsWrittenAgainInsteadOfGoing) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(4), host);
    Bench bench(device, host, {.linger = std::chrono::seconds(10)});  // each flush is one extent
    bench.write(0, 40);
    for (std::uint64_t round = 0; round < 20; ++round) {
        for (const std::uint64_t hot : {3, 11}) ASSERT_TRUE(bench.right(hot)) << "in round " << round;
        bench.write(100 + round * 40, 40);
    }
    EXPECT_GT(bench.counters.rewritten_blocks, 0U);
    EXPECT_FALSE(bench.has(4)) << "its neighbour was never read";
    const double amplification = static_cast<double>(device.written_bytes) / static_cast<double>(bench.counters.block_bytes);
    EXPECT_LE(amplification, 1.15 + 0.10) << "these blocks are small: tables weigh more than they will";
    EXPECT_EQ(bench.counters.block_bytes + bench.counters.rewritten_bytes + bench.counters.table_bytes, device.written_bytes)
        << "every byte that was written is accounted for";
}

// Cuts the power at many moments of a load. With `any_order` the device does what it is given in any order.
void cut_power(bool any_order) {
#if defined(__SANITIZE_THREAD__)
    constexpr std::uint64_t kStep = 9;  // fewer moments: the threads meet in the same ways at each
#else
    constexpr std::uint64_t kStep = 1;
#endif
    std::uint64_t cuts_with_loss = 0;
    for (std::uint64_t when = 2; when < 160; when += kStep + when / 40) {
        FakeHost host(2 << 20);
        FakeDevice device(small_superblock(4), host);
        device.lose_power_at(when);
        if (any_order) device.work_in_any_order(when);
        std::vector<std::uint64_t> stored;
        {
            WriterOptions options;
            options.extent_bytes = 64 << 10;
            Bench bench(device, host, options);
            bench.write(0, 400);
            for (std::uint64_t i = 0; i < 400; ++i) {
                if (bench.has(i)) stored.push_back(i);
            }
        }
        device.stop_worker();
        device.settle(when);
        device.lose_power_at(UINT64_MAX);
        Bench after(device, host);
        for (const std::uint64_t i : stored) ASSERT_TRUE(after.right(i)) << "block " << i << ", cut at " << when;
        for (std::uint64_t i = 0; i < 400; ++i) {
            if (after.has(i)) {
                ASSERT_TRUE(after.right(i)) << "block " << i << ", cut at " << when;
            }
        }
        cuts_with_loss += after.dropped != 0 ? 1 : 0;
        after.write(1000, 20);  // and it goes on from there
        for (std::uint64_t i = 1000; i < 1020; ++i) ASSERT_TRUE(after.right(i)) << "cut at " << when;
        after.stop();
        device.flush([](const Result<void>& result) { EXPECT_TRUE(result); });
        Bench once_more(device, host);
        EXPECT_EQ(once_more.dropped, 0U) << "a table leaves out what is torn; cut at " << when;
        for (std::uint64_t i = 1000; i < 1020; ++i) ASSERT_TRUE(once_more.right(i)) << "cut at " << when;
    }
    EXPECT_GT(cuts_with_loss, 0U) << "some cuts tore an extent, and that was noticed";
}

TEST(WriterTest, AfterAPowerCutAtAnyMomentEveryStoredBlockIsThereAndNoWrongOne) { cut_power(false); }

TEST(WriterTest, AfterAPowerCutOfADeviceThatWorksInAnyOrderEveryStoredBlockIsThere) { cut_power(true); }

TEST(WriterTest, FewerExtentsAreWrittenAtOnceBesideReadsOrToASlowDevice) {
    constexpr double kNothing = 0, kWhateverItsSpeed = 1e9;  // seconds
    const WriterOptions usual;
    const struct {
        bool reads;
        double ahead_seconds;
        std::uint64_t most;
    } cases[] = {{false, kWhateverItsSpeed, usual.writing},
                 {false, kNothing, usual.writing_beside_reads},
                 {true, kWhateverItsSpeed, usual.writing_beside_reads}};
    for (const auto& [reads, ahead_seconds, most] : cases) {
        FakeHost host(8 << 20);
        FakeDevice device(small_superblock(16), host);
        device.work_in_any_order(1);
        device.reads_go_on = reads;
        WriterOptions options;
        options.extent_bytes = 16 << 10;
        options.flush_bytes = 1 << 20;
        options.ahead_seconds = ahead_seconds;
        Bench bench(device, host, options);
        bench.write(0, 40);  // the device's speed is known now
        device.hold(true);
        for (std::uint64_t i = 40; i < 80; ++i) bench.queue.push(host.sealed_block(bench.scope, i));
        EXPECT_TRUE(device.wait_for_extents(most));
        device.hold(false);
        EXPECT_TRUE(bench.flush());
        for (std::uint64_t i = 0; i < 80; ++i) EXPECT_TRUE(bench.right(i)) << i;
        bench.stop();
        device.stop_worker();
        EXPECT_EQ(device.most_extents, most);
    }
}

TEST(WriterTest, AFailedWriteGivesTheSegmentUpAndThePauseEnds) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(6), host);
    Bench bench(device, host, {}, std::chrono::seconds(2));
    bench.write(0, 10);
    device.fail_writes(1, 1);
    bench.write(10, 10);
    EXPECT_EQ(bench.counters.write_failures, 1U);
    EXPECT_EQ(bench.counters.failed_blocks + bench.shed, 10U);
    EXPECT_GT(bench.unwritten, 0U) << "what failed does not count as written";
    EXPECT_LE(bench.unwritten, bench.counters.failed_blocks * kBlock);
    EXPECT_NE(bench.writer->problem(), "");
    while (bench.writer->paused()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    bench.write(20, 10);
    EXPECT_EQ(bench.writer->problem(), "");
    for (std::uint64_t i = 0; i < 30; ++i) EXPECT_EQ(bench.right(i), i < 10 || i >= 20) << i;
    bench.stop();
    const auto given_up = scan_segment(device.reader(), device.superblock, 0, {.walk_sealed = true});
    ASSERT_TRUE(given_up);
    EXPECT_EQ(given_up->kind, FoundSegment::Kind::kSealed) << "no start has to read all of it";
    EXPECT_TRUE(given_up->problems.empty()) << given_up->problems.front();
    EXPECT_EQ(given_up->records.size(), 10U);
    Bench again(device, host);
    for (std::uint64_t i = 0; i < 30; ++i) EXPECT_EQ(again.right(i), i < 10 || i >= 20) << i;
}

TEST(WriterTest, HoweverOftenWritesFailFewSegmentsLackTheirTables) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(24), host);
    WriterOptions options;
    options.extent_bytes = 32 << 10;
    Bench bench(device, host, options);
    for (std::uint64_t round = 0; round < 8; ++round) {
        device.fail_writes(3 + 2 * round, 2);
        bench.write(round * 20, 20);
        while (bench.writer->paused()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GE(bench.counters.write_failures, 4U);
    bench.write(1000, 1);
    bench.stop();
    device.flush([](const Result<void>& result) { EXPECT_TRUE(result); });
    std::uint64_t open = 0, blocks = 0;
    scan_container(device.reader(), device.superblock, 1, {.walk_sealed = true}, [&](const FoundSegment& found) {
        open += found.kind == FoundSegment::Kind::kOpen && found.extents != 0 ? 1 : 0;
        blocks += found.records.size();
        EXPECT_TRUE(found.problems.empty()) << found.problems.front();
    });
    EXPECT_LE(open, 1U);
    EXPECT_GE(blocks, bench.counters.stored_blocks);
}

TEST(WriterTest, ATableThatCannotBeWrittenDoesNotEndWriting) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(6), host);
    device.unwritable_at = device.superblock.segment_at(1) - 1;
    Bench bench(device, host);
    for (std::uint64_t i = 0; i < 300; ++i) {
        bench.write(i, 1);
        while (bench.writer->paused()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GE(bench.counters.write_failures, 2U);
    EXPECT_LE(bench.counters.write_failures, 6U) << "it was not tried for ever";
    for (std::uint64_t i = 250; i < 300; ++i) EXPECT_TRUE(bench.right(i)) << i;
}

TEST(WriterTest, WhileTheDeviceKeepsSomethingNothingNewIsBegunAndThePagesStay) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(6), host);
    device.work_in_any_order(1);
    Bench bench(device, host);
    bench.write(0, 10);
    const std::uint64_t used = host.pool->used();
    device.hold(true);
    bench.queue.push(host.sealed_block(bench.scope, 10));
    ASSERT_TRUE(device.wait_for_extents(1));
    bench.writer->set_late(true);
    EXPECT_TRUE(bench.writer->paused());
    bench.queue.push(host.sealed_block(bench.scope, 11));
    EXPECT_FALSE(bench.queue.wait_empty(std::chrono::steady_clock::now() + std::chrono::milliseconds(50)));
    EXPECT_GT(host.pool->used(), used) << "the device may still read them";
    device.hold(false);
    bench.writer->set_late(false);
    EXPECT_TRUE(bench.flush());
    for (std::uint64_t i = 0; i < 11; ++i) EXPECT_TRUE(bench.right(i)) << i;
    EXPECT_TRUE(bench.right(11) || bench.counters.failed_blocks == 1) << "unless it was taken before the writer knew";
    EXPECT_FALSE(bench.writer->paused());
    bench.stop();
    device.stop_worker();
}

TEST(WriterTest, AFullFileSystemMakesTheCacheSmallerNotWrong) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(8), host);
    device.space_left = 3;  // segments
    WriterOptions options;
    options.discard = false;  // what is given up stays ours
    Bench bench(device, host, options);
    bench.write(0, 200);
    device.space_left = 0;
    // Nothing new can be set aside: the oldest segments make room. This file system counts every request.
    device.space_left = 1000;
    bench.write(200, 200);
    for (std::uint64_t i = 330; i < 400; ++i) ASSERT_TRUE(bench.right(i)) << i;
}

TEST(WriterTest, WithoutAnySpaceWritingPausesAndNothingIsStored) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(4), host);
    device.space_left = 0;
    Bench bench(device, host);
    bench.write(0, 5);
    EXPECT_EQ(bench.counters.no_space_blocks + bench.shed, 5U);
    EXPECT_EQ(bench.unwritten, bench.counters.no_space_blocks * kBlock);
    EXPECT_NE(bench.writer->problem(), "");
    EXPECT_EQ(bench.catalog.blocks(), 0U);
    EXPECT_EQ(bench.catalog.usage(bench.container).no_space_segments, 4U);
}

TEST(WriterTest, ABlockThatIsTooLargeIsLeftOutAndTheNextOneIsNot) {
    FakeHost host(8 << 20);
    FakeDevice device(small_superblock(4), host);
    Bench bench(device, host);
    bench.queue.push(host.sealed_block(bench.scope, 1, {kMinSegmentBytes}));
    bench.queue.push(host.sealed_block(bench.scope, 2, {bench.writer->largest_block()}));
    ASSERT_TRUE(bench.flush());
    EXPECT_EQ(bench.counters.too_large_blocks, 1U);
    EXPECT_TRUE(bench.right(2));
}

}  // namespace
}  // namespace pegaflow::engine::tier
