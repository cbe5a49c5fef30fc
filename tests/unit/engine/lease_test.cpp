// SPDX-License-Identifier: Apache-2.0
#include "engine/lease.hpp"

namespace pegaflow::engine {
namespace {

using Clock = LeaseTable::Clock;

constexpr LeaseOwner kA{1, "a"}, kB{2, "b"};

LeaseId make(LeaseTable& table, const LeaseOwner& owner, std::vector<BlockRef> blocks, std::uint32_t shares,
             Clock::time_point expiry) {
    table.add_instance(owner.number);
    const auto lease = table.create(owner, std::move(blocks), shares, expiry);
    EXPECT_TRUE(lease) << lease.error().message;
    return lease.value_or(LeaseId{});
}

TEST(LeaseTable, EachDeviceTakesItsShareOnceAndTheLastOneEndsIt) {
    LeaseTable table;
    const LeaseId id = make(table, kA, {}, 2, Clock::now() + std::chrono::seconds(10));
    EXPECT_EQ(table.peek(id, kB, 0).error().code, Code::kInvalid);
    EXPECT_TRUE(table.consume(id, kA, 0));
    EXPECT_EQ(table.consume(id, kA, 0).error().code, Code::kNotFound);
    EXPECT_TRUE(table.consume(id, kA, 1));
    EXPECT_EQ(table.size(), 0U);
}

TEST(LeaseTable, RenewalMovesTheExpiry) {
    LeaseTable table;
    const auto now = Clock::now();
    const LeaseId id = make(table, kA, {}, 1, now + std::chrono::minutes(1));
    EXPECT_TRUE(table.renew(id, now + std::chrono::minutes(100)));
    EXPECT_TRUE(table.renew(id, now + std::chrono::minutes(100)));
    EXPECT_EQ(table.expire(now + std::chrono::minutes(50)), 0U);
    EXPECT_EQ(table.expire(now + std::chrono::minutes(101)), 1U);
    EXPECT_EQ(table.renew(id, now).error().code, Code::kNotFound);
}

TEST(LeaseTable, AnExpiredLeaseIsUnknown) {
    LeaseTable table;
    const LeaseId id = make(table, kA, {}, 1, Clock::now() - std::chrono::seconds(1));
    EXPECT_EQ(table.peek(id, kA, 0).error().message, "query lease is unknown or expired");
    EXPECT_EQ(table.drop_instance(kA.number), 1U);
}

class CountPages final : public PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override { ++freed; }
    std::atomic<int> freed{0};
};

std::vector<BlockRef> blocks(PageOwner& pages, int count) {
    std::vector<BlockRef> out;
    for (int i = 0; i < count; ++i) {
        out.emplace_back(new Block(BlockKey(1, 0, "hash"), 1, pages));
        out.back()->pages.push_back({0, 4096});
    }
    return out;
}

TEST(LeaseTable, BlocksStayUntilTheLastShareOrTheLastReader) {
    CountPages pages;
    LeaseTable table;
    const auto soon = Clock::now() + std::chrono::hours(1);
    const LeaseId shared = make(table, kA, blocks(pages, 3), 2, soon);
    EXPECT_TRUE(table.consume(shared, kA, 0));
    EXPECT_EQ(pages.freed, 0);
    EXPECT_TRUE(table.consume(shared, kA, 1));
    EXPECT_EQ(pages.freed, 3);
    const LeaseId released = make(table, kA, blocks(pages, 2), 1, soon);
    LeasedBlocks reader = *table.peek(released, kA, 0);
    EXPECT_TRUE(table.release(released));
    EXPECT_EQ(table.release(released).error().code, Code::kNotFound);
    EXPECT_EQ(pages.freed, 3);
    reader.reset();
    EXPECT_EQ(pages.freed, 5);
}

TEST(LeaseTable, SharesOfSeveralLeasesAreTakenTogetherOrNotAtAll) {
    LeaseTable table;
    const auto soon = Clock::now() + std::chrono::hours(1);
    const LeaseId good = make(table, kA, {}, 1, soon);
    const LeaseId foreign = make(table, kB, {}, 1, soon);
    const LeaseId both[] = {good, foreign};
    EXPECT_EQ(table.consume(both, kA, 0).error().code, Code::kInvalid);
    EXPECT_TRUE(table.peek(good, kA, 0)) << "nothing was taken";
    const LeaseId twice[] = {good, good};
    EXPECT_TRUE(table.consume(twice, kA, 0));
    EXPECT_EQ(table.size(), 1U);
}

TEST(LeaseTable, AnInstanceTakesItsLeasesAlong) {
    CountPages pages;
    LeaseTable table;
    const auto soon = Clock::now() + std::chrono::hours(1);
    make(table, kA, blocks(pages, 1), 1, soon);
    make(table, kA, blocks(pages, 1), 1, soon);
    const LeaseId other = make(table, kB, blocks(pages, 1), 1, soon);
    EXPECT_EQ(table.drop_instance(kA.number), 2U);
    EXPECT_EQ(pages.freed, 2);
    EXPECT_TRUE(table.peek(other, kB, 0));
    EXPECT_EQ(table.expire(soon + std::chrono::seconds(1)), 1U) << "a dropped lease leaves nothing in the order of expiry";
}

TEST(LeaseTable, AnInstanceThatHasGoneGetsNoLeaseAndItsNameAnotherOne) {
    CountPages pages;
    LeaseTable table;
    const auto soon = Clock::now() + std::chrono::hours(1);
    const LeaseOwner again{3, kA.name};
    const LeaseId lease = make(table, again, {}, 1, soon);
    make(table, kA, blocks(pages, 1), 1, soon);
    EXPECT_EQ(table.drop_instance(kA.number), 1U);
    EXPECT_EQ(table.create(kA, blocks(pages, 1), 1, soon).error().code, Code::kNotFound) << "a query that was late";
    EXPECT_EQ(pages.freed, 2);
    EXPECT_TRUE(table.peek(lease, again, 0)) << "it is the new one's";
    EXPECT_EQ(table.peek(lease, kA, 0).error().code, Code::kNotFound);
}

TEST(LeaseTable, AnInstanceHasABoundedNumber) {
    LeaseTable table(2);
    const auto soon = Clock::now() + std::chrono::hours(1);
    const LeaseId first = make(table, kA, {}, 1, soon), second = make(table, kA, {}, 1, soon);
    EXPECT_EQ(table.create(kA, {}, 1, soon).error().code, Code::kQueueFull);
    make(table, kB, {}, 1, soon);
    EXPECT_TRUE(table.consume(first, kA, 0));
    const LeaseId third = make(table, kA, {}, 1, soon);
    EXPECT_EQ(table.create(kA, {}, 1, soon).error().code, Code::kQueueFull);
    EXPECT_TRUE(table.release(second));
    EXPECT_TRUE(table.release(third));
    EXPECT_EQ(table.size(), 1U);
}

TEST(LeaseTable, RacingWorkersTakeEachShareOnce) {
    constexpr int kWorkers = 8;
    LeaseTable table;
    for (int round = 0; round < 30; ++round) {
        const LeaseId id = make(table, kA, {}, kWorkers, Clock::now() + std::chrono::hours(1));
        std::atomic<int> taken{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < kWorkers; ++t) {
            threads.emplace_back([&, t] {
                for (int again = 0; again < 3; ++again) taken += table.consume(id, kA, t) ? 1 : 0;
            });
        }
        for (std::thread& thread : threads) thread.join();
        ASSERT_EQ(taken, kWorkers);
    }
    EXPECT_EQ(table.size(), 0U);
}

}  // namespace
}  // namespace pegaflow::engine
