// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/write_queue.hpp"

#include <thread>

namespace pegaflow::engine::tier {
namespace {

using namespace std::chrono_literals;
using Clock = WriteQueue::Clock;

class NoPages final : public PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override { ++freed; }
    int freed = 0;
};

class WriteQueueTest : public ::testing::Test {
protected:
    BlockRef block(std::uint64_t bytes) {
        auto* made = new Block(BlockKey(1, 0, "hash"), 0, pages_);
        made->pages.push_back({0, bytes});
        return BlockRef(made);
    }
    NoPages pages_;
    WriteQueue queue_{100};
};

TEST_F(WriteQueueTest, HoldsAsManyBytesAsItMayAndOneBlockOfAnySize) {
    EXPECT_TRUE(queue_.has_room(1000));
    queue_.push(block(60));
    EXPECT_TRUE(queue_.has_room(40));
    EXPECT_FALSE(queue_.has_room(41));
    EXPECT_EQ(queue_.bytes(), 60U);
    BlockRef dropped;
    EXPECT_TRUE(queue_.drop_one(&dropped));
    EXPECT_FALSE(queue_.drop_one(&dropped));
    EXPECT_EQ(queue_.bytes(), 0U);
}

TEST_F(WriteQueueTest, GivesTheBlocksInOrderUpToTheBound) {
    for (const std::uint64_t bytes : {10, 20, 30}) queue_.push(block(bytes));
    const auto taken = queue_.take(35, 1, 1h, true);
    ASSERT_EQ(taken.size(), 2U);
    EXPECT_EQ(taken[0]->footprint(), 10U);
    EXPECT_EQ(queue_.bytes(), 30U);
    EXPECT_EQ(queue_.blocks(), 3U) << "what was taken is not done yet";
    queue_.done(2);
    EXPECT_EQ(queue_.blocks(), 1U);
    EXPECT_EQ(queue_.take(5, 1, 1h, true).size(), 1U) << "one block, even when it is too large";
}

TEST_F(WriteQueueTest, WaitsForEnoughOrLongEnough) {
    const auto begin = Clock::now();
    queue_.push(block(10));
    EXPECT_TRUE(queue_.take(100, 50, 1h, false).empty());
    EXPECT_EQ(queue_.take(100, 50, 30ms, true).size(), 1U);
    EXPECT_GE(Clock::now() - begin, 30ms);
    EXPECT_TRUE(queue_.take(100, 50, 1ms, true).empty()) << "nothing comes: the caller looks after other things";
}

TEST_F(WriteQueueTest, AFlushOrAStopEndsTheWaiting) {
    queue_.push(block(10));
    std::thread flusher([&] { EXPECT_TRUE(queue_.wait_empty(Clock::now() + 10s)); });
    EXPECT_EQ(queue_.take(100, 50, 1h, true).size(), 1U);
    queue_.done(1);
    flusher.join();
    queue_.push(block(10));
    EXPECT_FALSE(queue_.wait_empty(Clock::now() + 5ms));
    queue_.stop();
    EXPECT_FALSE(queue_.has_room(1));
    EXPECT_EQ(queue_.take(100, 50, 1h, true).size(), 1U);
    EXPECT_TRUE(queue_.take(100, 50, 1h, true).empty());
}

}  // namespace
}  // namespace pegaflow::engine::tier
