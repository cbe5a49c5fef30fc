// SPDX-License-Identifier: Apache-2.0
#include "fake_fabric.hpp"

namespace pegaflow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// About this many polls keep a batch in flight for some milliseconds.
constexpr const char* kSlow = "20000";

TEST(Channel, RefusesATransferThatIsInFlight) {
    FakeFabric f;
    Transfer transfer;
    transfer.flat(f.local, f.remote).range(0, 0, 64).priority(FakeFabric::kHeld);
    auto first = f.channel.submit(transfer);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->wait_for(milliseconds(1)).error().code, Code::kDeadlineExceeded);
    auto second = f.channel.submit(transfer);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Code::kInvalid);
    EXPECT_THAT(second.error().message, ::testing::HasSubstr("in flight"));
    f.let_go();
    EXPECT_EQ(*first->wait(), 64U);
    EXPECT_TRUE(f.channel.submit(transfer)->wait());
}

TEST(Channel, RefusesMixedFormatsAndUnequalIndices) {
    FakeFabric f;
    const std::vector<std::uint64_t> two = {0, 1};
    const std::vector<std::uint64_t> one = {0};
    Transfer transfer;
    transfer.flat(f.local, f.remote).range(0, 0, 1).span({f.local.handle(), f.remote.handle(), 0, 1, 0, 0, 1, 0, 1, 1, 0});
    EXPECT_EQ(f.channel.submit(transfer).error().code, Code::kInvalid);
    transfer.clear().indices(two, one).span({f.local.handle(), f.remote.handle(), 0, 1, 0, 0, 1, 0, 1, 1, 0});
    auto unequal = f.channel.submit(transfer);
    EXPECT_THAT(unequal.error().message, ::testing::HasSubstr("2 local, 1 remote"));
    EXPECT_TRUE(f.channel.submit(transfer.clear().indices(one, one))->wait());  // usable again after refusals
}

TEST(Channel, CloseTellsOfWorkInFlightAndEndsWhenItHasEnded) {
    FakeFabric f;
    Transfer transfer;
    std::atomic<int> ends{0};
    transfer.flat(f.local, f.remote).range(0, 0, 64).priority(FakeFabric::kHeld).on_done([&](const pega_completion&) {
        ++ends;
    });
    auto completion = f.channel.submit(transfer);
    ASSERT_TRUE(completion);
    EXPECT_EQ(f.channel.close(milliseconds(0)).error().code, Code::kRetry);
    EXPECT_EQ(ends.load(), 0);
    f.let_go();
    while (!f.channel.close(milliseconds(10))) {
    }
    EXPECT_TRUE(completion->wait());
    EXPECT_EQ(ends.load(), 1);
    EXPECT_EQ(f.channel.state(), PEGA_CANCELED);
    EXPECT_EQ(f.channel.submit(transfer).error().code, Code::kCanceled);
    EXPECT_TRUE(f.channel.close(milliseconds(0)));
}

TEST(Channel, EverythingWaitsForHardwareWhenDropped) {
    FakeFabric f("polls", kSlow);
    std::atomic<int> ends{0};
    {
        // Transfer, regions and channel go out of scope at once, in the worst order, while the batch runs.
        Region local = *f.device->allocate(PEGA_MEMORY_HOST, 4096);
        Region remote = *f.device->allocate(PEGA_MEMORY_HOST, 4096);
        Channel channel = *f.device->open_channel();
        auto transfer = std::make_unique<Transfer>();
        transfer->flat(local, remote).range(0, 0, 4096).on_done([&](const pega_completion& r) {
            ends += r.status == PEGA_OK ? 1 : 100;
        });
        ASSERT_TRUE(channel.submit(*transfer));
        {
            const Region early = std::move(remote);
        }
        transfer.reset();
        EXPECT_EQ(ends.load(), 1);
    }
    EXPECT_EQ(ends.load(), 1);
}

TEST(Channel, ClearWaitsForTheBatchBeforeItForgetsTheArrays) {
    FakeFabric f("polls", kSlow);
    Transfer transfer;
    std::atomic<int> ends{0};
    transfer.flat(f.local, f.remote).range(0, 0, 64).on_done([&](const pega_completion&) { ++ends; });
    ASSERT_TRUE(f.channel.submit(transfer));
    transfer.clear();
    EXPECT_EQ(ends.load(), 1);
}

TEST(Channel, ACallbackMaySubmitAgainOrDestroyTheTransfer) {
    FakeFabric f;
    Transfer again;
    std::atomic<int> rounds{0};
    std::function<void(const pega_completion&)> next = [&](const pega_completion&) {
        if (++rounds == 5) return;
        again.clear().flat(f.local, f.remote).range(0, 0, 8).on_done(next);
        EXPECT_TRUE(f.channel.submit(again));
    };
    again.flat(f.local, f.remote).range(0, 0, 8).on_done(next);
    ASSERT_TRUE(f.channel.submit(again));
    while (rounds.load() < 5) std::this_thread::yield();

    auto* doomed = new Transfer;
    std::atomic<bool> gone{false};
    doomed->flat(f.local, f.remote).range(0, 0, 8).on_done([&, doomed](const pega_completion&) {
        delete doomed;
        gone = true;
    });
    auto completion = f.channel.submit(*doomed);
    ASSERT_TRUE(completion);
    EXPECT_EQ(*completion->wait(), 8U);
    EXPECT_TRUE(gone.load());
}

TEST(Channel, SubmitWaitRespectsTheDeadline) {
    FakeFabric quick("depth", "1");
    Transfer second;
    // Room comes: the queue of depth one is emptied by the progress thread again and again.
    for (int i = 0; i < 200; ++i) {
        second.clear().flat(quick.local, quick.remote).range(0, 0, 8);
        ASSERT_TRUE(quick.channel.submit_wait(second));
    }
    // Room never comes in time: the answer is the deadline, and nothing started.
    FakeFabric full("depth", "1");
    Transfer first;
    first.flat(full.local, full.remote).range(0, 0, 8).priority(FakeFabric::kHeld);
    auto held = full.channel.submit(first);
    ASSERT_TRUE(held);
    Transfer late;
    late.flat(full.local, full.remote).range(0, 0, 8).deadline(std::chrono::steady_clock::now() + milliseconds(3));
    auto answer = full.channel.submit_wait(late);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, Code::kDeadlineExceeded);
    full.let_go();
    EXPECT_TRUE(held->wait());
}

TEST(Channel, CancelIsUnsupportedWhereTheBackEndCannot) {
    FakeFabric f;
    Transfer transfer;
    transfer.flat(f.local, f.remote).range(0, 0, 8);
    ASSERT_TRUE(f.channel.submit(transfer)->wait());
    EXPECT_EQ(f.channel.cancel(transfer).error().code, Code::kUnsupported);
}

TEST(Channel, AFailureCarriesItsCodeAndTheBackEndsWords) {
    FakeFabric f;
    Transfer transfer;
    transfer.flat(f.local, f.remote).range(0, 0, 8).priority(99);  // the fake fails these
    auto outcome = f.channel.submit(transfer)->wait();
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, Code::kRetryOtherPath);
    EXPECT_EQ(outcome.error().native_code, 5);
    EXPECT_THAT(outcome.error().message, ::testing::HasSubstr("the fake gave up"));
}

}  // namespace
}  // namespace pegaflow
