// SPDX-License-Identifier: Apache-2.0
#include "base/thread.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/unit/base/no_threads.hpp"

namespace {

using namespace std::chrono_literals;
using pegaflow::base::AdaptiveMutex;

TEST(StartThread, RunsOrSaysThatItCannot) {
    int ran = 0;
    auto thread = pegaflow::base::start_thread([&] { ++ran; });
    ASSERT_TRUE(thread) << thread.error().message;
    thread->join();
    EXPECT_EQ(ran, 1);
    const pegaflow::testing::NoThreads none;
    const auto refused = pegaflow::base::start_thread([&] { ++ran; });
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, pegaflow::Code::kNoMemory);
    EXPECT_EQ(ran, 1);
}

TEST(AdaptiveMutex, OneThreadAtATime) {
    constexpr int kThreads = 4, kRounds = 20000;
    AdaptiveMutex mutex;
    long counter = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < kRounds; ++i) {
                const std::lock_guard lock(mutex);
                ++counter;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(counter, long{kThreads} * kRounds);
}

TEST(AdaptiveMutex, ThreadsThatSleepAreAllWoken) {
    constexpr int kThreads = 8;
    AdaptiveMutex mutex;
    int entered = 0;
    std::vector<std::thread> threads;
    mutex.lock();
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&] {
            const std::lock_guard lock(mutex);
            std::this_thread::sleep_for(1ms);
            ++entered;
        });
    }
    std::this_thread::sleep_for(20ms);  // far longer than anyone spins
    mutex.unlock();
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(entered, kThreads);
}

TEST(AdaptiveMutex, TryingDoesNotWait) {
    AdaptiveMutex mutex;
    ASSERT_TRUE(mutex.try_lock());
    std::thread([&] { EXPECT_FALSE(mutex.try_lock()); }).join();
    mutex.unlock();
    EXPECT_TRUE(mutex.try_lock());
    mutex.unlock();
}

}  // namespace
