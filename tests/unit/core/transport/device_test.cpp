// SPDX-License-Identifier: Apache-2.0
#include <coroutine>

#include "fake_fabric.hpp"

namespace pegaflow {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Device, AsksAgainForALongAddress) {
    FakeFabric f;
    auto address = f.device->address();
    ASSERT_TRUE(address) << address.error().message;
    EXPECT_EQ(address->size(), 300U);
    EXPECT_EQ(address->back(), std::byte{7});
}

TEST(Device, ErrorsNameTheDevice) {
    FakeFabric f;
    auto gpu = f.device->allocate(PEGA_MEMORY_GPU, 10);
    ASSERT_FALSE(gpu);
    EXPECT_EQ(gpu.error().code, Code::kUnsupported);
    EXPECT_THAT(gpu.error().message, ::testing::HasSubstr("fake:0"));
    EXPECT_EQ(f.device->import_region({}).error().code, Code::kCorrupt);
    EXPECT_EQ(f.local.export_descriptor().error().code, Code::kUnsupported);
}

TEST(Device, ABackEndThatReportsAnEndTwiceHarmsNobody) {
    ::testing::internal::CaptureStderr();
    {
        FakeFabric f("twice", "1");
        Transfer transfer;
        std::atomic<int> ends{0};
        for (int i = 0; i < 50; ++i) {
            transfer.clear().flat(f.local, f.remote).range(0, 0, 8).on_done([&](const pega_completion&) { ++ends; });
            auto completion = f.channel.submit(transfer);
            ASSERT_TRUE(completion);
            ASSERT_EQ(*completion->wait(), 8U);
        }
        EXPECT_EQ(ends.load(), 50);
    }
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::HasSubstr("not in flight"));
}

TEST(Device, WakesUpFromSleepForEveryBatch) {
    FakeFabric f;
    Transfer transfer;
    int slow = 0;
    for (int i = 0; i < 20; ++i) {
        std::this_thread::sleep_for(milliseconds(2));  // long enough for the progress thread to fall asleep
        const auto start = std::chrono::steady_clock::now();
        transfer.clear().flat(f.local, f.remote).range(0, 0, 8);
        ASSERT_TRUE(f.channel.submit(transfer)->wait());
        slow += std::chrono::steady_clock::now() - start >= milliseconds(900) ? 1 : 0;
    }
    EXPECT_LT(slow, 5) << "its sleep ends by itself after a second; a lost wake-up would cost that each time";
}

TEST(Device, NotificationsWakeThoseWhoWaitAndNobodyElse) {
    FakeFabric f;
    std::thread waiter([&] { EXPECT_TRUE(f.device->wait_notify(5, 3, seconds(10))); });
    std::this_thread::sleep_for(milliseconds(2));
    Transfer transfer;
    for (int i = 0; i < 3; ++i) {
        transfer.clear().flat(f.local, f.remote).range(0, 0, 1).notify(5);
        ASSERT_TRUE(f.channel.submit(transfer)->wait());
    }
    waiter.join();
    auto late = f.device->wait_notify(5, 1, milliseconds(1));
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Code::kDeadlineExceeded);
    EXPECT_THAT(late.error().message, ::testing::HasSubstr("arrived 0 times, expected 1"));
}

struct Detached {
    struct promise_type {
        Detached get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

Detached add_bytes(Completion completion, std::atomic<std::uint64_t>& sum, std::atomic<int>& ended) {
    auto bytes = co_await completion;
    if (bytes) sum += *bytes;
    ++ended;
}

TEST(Completion, SeveralCoroutinesAndThreadsMayWaitForOne) {
    FakeFabric f("polls", "5000");
    Transfer transfer;
    transfer.flat(f.local, f.remote).range(0, 0, 100);
    auto completion = f.channel.submit(transfer);
    ASSERT_TRUE(completion);
    std::atomic<std::uint64_t> sum{0};
    std::atomic<int> ended{0};
    add_bytes(*completion, sum, ended);
    add_bytes(*completion, sum, ended);
    std::thread other([&] { EXPECT_EQ(*completion->wait(), 100U); });
    EXPECT_EQ(*completion->wait(), 100U);
    other.join();
    while (ended.load() < 2) std::this_thread::yield();
    add_bytes(*completion, sum, ended);  // an ended one resumes at once
    EXPECT_EQ(sum.load(), 300U);
    EXPECT_EQ(ended.load(), 3);
}

// Ends that come before, while and after somebody begins to wait for them.
TEST(Completion, NoEndIsMissedHoweverItIsWaitedFor) {
    FakeFabric f("polls", "3");
    Transfer transfer;
    std::atomic<std::uint64_t> sum{0};
    std::atomic<int> ended{0};
    int awaited = 0;
    for (int round = 0; round < 3000; ++round) {
        transfer.clear().flat(f.local, f.remote).range(0, 0, 100);
        auto completion = f.channel.submit(transfer);
        ASSERT_TRUE(completion) << completion.error().message;
        if (round % 2 == 0) {
            add_bytes(*completion, sum, ended);
            ++awaited;
        }
        Result<std::uint64_t> bytes = fail(Code::kDeadlineExceeded, "");
        for (int look = 0; !bytes && look < 100'000; ++look) bytes = completion->wait_for(std::chrono::nanoseconds(1));
        ASSERT_TRUE(bytes) << "round " << round;
        EXPECT_EQ(*bytes, 100U);
        if (round % 3 != 0) continue;  // the next submission meets a coroutine that may be about to resume
        while (ended.load() < awaited) std::this_thread::yield();
    }
    while (ended.load() < awaited) std::this_thread::yield();
    EXPECT_EQ(sum.load(), 100U * static_cast<unsigned>(awaited));
}

TEST(Completion, AnEmptyOneAnswers) {
    const Completion none;
    EXPECT_TRUE(none.done());
    EXPECT_EQ(none.wait().error().code, Code::kInvalid);
}

}  // namespace
}  // namespace pegaflow
