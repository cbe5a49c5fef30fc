// SPDX-License-Identifier: Apache-2.0
#include "engine/lane.hpp"

#include "toy_worker.hpp"

namespace pegaflow::engine {
namespace {

class LaneTest : public ::testing::Test {
protected:
    void SetUp() override {
        fabric_ = std::move(*Fabric::open({.backends = {"host"}}));
        device_ = *fabric_->device("host:0");
        source_.assign(kBytes, 7);
        target_.assign(kBytes, 0);
        local_ = *device_->register_address(source_.data(), kBytes);
        remote_ = *device_->register_address(target_.data(), kBytes);
        hold_ = std::make_unique<toy::Hold>(*fabric_);
    }
    // A lane on a channel that takes `depth` batches.
    std::unique_ptr<Lane> lane(std::uint32_t depth, std::uint32_t bound) {
        return std::make_unique<Lane>(*device_->open_channel({}, depth), bound);
    }
    Transfer byte(std::uint64_t at, bool held = true) {
        Transfer transfer;
        transfer.flat(local_, remote_).range(at, at, 1);
        if (held) transfer.wait_event(hold_->event());
        return transfer;
    }

    static constexpr std::size_t kBytes = 64;
    std::vector<std::uint8_t> source_, target_;
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region local_, remote_;
    std::unique_ptr<toy::Hold> hold_;
};

TEST_F(LaneTest, RoomIsGivenWholeOrNotAtAll) {
    const auto l = lane(4, 3);
    EXPECT_TRUE(l->reserve(2));
    EXPECT_EQ(l->reserve(2).error().code, Code::kQueueFull);
    EXPECT_TRUE(l->reserve(1));
    EXPECT_EQ(l->reserve(1).error().code, Code::kQueueFull);
    l->unreserve(3);
    EXPECT_TRUE(l->reserve(9)) << "a request above the bound runs alone";
    EXPECT_EQ(l->reserve(1).error().code, Code::kQueueFull);
    EXPECT_TRUE(l->reserve(2, 9)) << "also when it turns out to be larger";
    EXPECT_EQ(l->reserve(2, 9).error().code, Code::kQueueFull) << "it is not alone any more";
    l->unreserve(11);
}

TEST_F(LaneTest, MoreThanTheChannelTakesWaitsItsTurn) {
    const auto l = lane(1, 8);
    std::vector<Transfer> transfers;
    for (std::uint64_t i = 0; i < 8; ++i) transfers.push_back(byte(i));
    ASSERT_TRUE(l->reserve(8));
    std::mutex mutex;
    std::vector<int> order;
    std::promise<void> all;
    for (int i = 0; i < 8; ++i) {
        ASSERT_TRUE(l->submit(transfers[i], [&, i](pega_status status, std::uint64_t bytes) {
            EXPECT_EQ(status, PEGA_OK);
            EXPECT_EQ(bytes, 1U);
            const std::lock_guard lock(mutex);
            order.push_back(i);
            if (order.size() == 8) all.set_value();
        }));
    }
    EXPECT_EQ(target_[0], 0);
    hold_->release();
    all.get_future().wait();
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(target_[7], 7);
    EXPECT_TRUE(l->reserve(8)) << "all room is free again";
    l->unreserve(8);
    l->close();
}

TEST_F(LaneTest, CancelEndsTheWaitingAtOnceAndTheRunningSoon) {
    const auto l = lane(1, 8);
    Transfer running = byte(0), waiting = byte(1);
    std::promise<pega_status> running_end, waiting_end;
    ASSERT_TRUE(l->reserve(2));
    ASSERT_TRUE(l->submit(running, [&](pega_status status, std::uint64_t) { running_end.set_value(status); }));
    ASSERT_TRUE(l->submit(waiting, [&](pega_status status, std::uint64_t) { waiting_end.set_value(status); }));
    l->cancel(waiting);
    auto ended = waiting_end.get_future();
    ASSERT_EQ(ended.wait_for(std::chrono::seconds(0)), std::future_status::ready);
    EXPECT_EQ(ended.get(), PEGA_CANCELED);
    l->cancel(running);
    EXPECT_EQ(running_end.get_future().get(), PEGA_CANCELED);
    l->cancel(running);
    l->close();
    l->cancel(running);
    EXPECT_EQ(target_[0] + target_[1], 0);
}

TEST_F(LaneTest, ATransferThatCannotBeIsRefusedAndOwnsNothing) {
    const auto l = lane(1, 8);
    Transfer outside;
    outside.flat(local_, remote_).range(kBytes, 0, 1);
    ASSERT_TRUE(l->reserve(1));
    auto owned = std::make_shared<int>(1);
    EXPECT_EQ(l->submit(outside, [owned](pega_status, std::uint64_t) {}).error().code, Code::kInvalid);
    EXPECT_EQ(owned.use_count(), 1) << "the refused transfer keeps nothing alive";
    l->unreserve(1);
}

TEST_F(LaneTest, AClosedLaneRefuses) {
    const auto l = lane(1, 8);
    l->close();
    Transfer transfer = byte(0, false);
    ASSERT_TRUE(l->reserve(1));
    EXPECT_EQ(l->submit(transfer, [](pega_status, std::uint64_t) {}).error().code, Code::kCanceled);
    l->unreserve(1);
}

}  // namespace
}  // namespace pegaflow::engine
