// SPDX-License-Identifier: Apache-2.0
#include "server/keyed_tasks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include "tests/unit/base/no_threads.hpp"

namespace pegaflow::server {
namespace {

TEST(KeyedTasksTest, OneKeyInOrderOthersBeside) {
    std::promise<void> go;
    std::shared_future<void> going = go.get_future().share();
    std::vector<int> order;
    std::promise<void> other;
    {
        KeyedTasks tasks;
        tasks.post("stuck", [&] {
            going.wait();
            order.push_back(1);
        });
        for (int i = 2; i <= 20; ++i) tasks.post("stuck", [&order, i] { order.push_back(i); });
        tasks.post("other", [&] { other.set_value(); });
        other.get_future().wait();  // while the first key waits
        EXPECT_TRUE(order.empty());
        go.set_value();
    }
    ASSERT_EQ(order.size(), 20U) << "the end runs what was posted";
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(KeyedTasksTest, RefusesWhenTooManyOfAKeyWait) {
    std::promise<void> go;
    std::shared_future<void> going = go.get_future().share();
    std::atomic<std::size_t> ran{0};
    {
        KeyedTasks tasks;
        tasks.post("stuck", [going] { going.wait(); });
        std::size_t taken = 1;
        while (taken < 2 * KeyedTasks::kMostWaiting && tasks.try_post("stuck", [&] { ++ran; })) ++taken;
        EXPECT_EQ(taken, KeyedTasks::kMostWaiting);
        EXPECT_TRUE(tasks.try_post("other", [&] { ++ran; }));
        tasks.post("stuck", [&] { ++ran; });  // must not be refused
        go.set_value();
    }
    EXPECT_EQ(ran, KeyedTasks::kMostWaiting + 1);
}

TEST(KeyedTasksTest, WithoutThreadsWhatMustNotBeRefusedWaits) {
    std::vector<int> order;
    {
        KeyedTasks tasks;
        {
            const testing::NoThreads none;
            EXPECT_FALSE(tasks.try_post("a", [&] { order.push_back(0); }));
            tasks.post("a", [&] { order.push_back(1); });
            EXPECT_FALSE(tasks.try_post("a", [&] { order.push_back(0); }));
            EXPECT_FALSE(tasks.try_post("b", [&] { order.push_back(0); }));
        }
        EXPECT_TRUE(tasks.try_post("a", [&] { order.push_back(2); }));
    }
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
    {
        const testing::NoThreads none;
        KeyedTasks tasks;
        for (int i = 3; i <= 5; ++i) tasks.post("a", [&order, i] { order.push_back(i); });
        tasks.post("b", [&] { order.push_back(6); });
    }
    EXPECT_EQ(order.size(), 6U) << "the end runs what was posted";
    EXPECT_TRUE(std::ranges::is_sorted(order.begin(), order.begin() + 4));
}

TEST(KeyedTasksTest, ManyKeysFromManyThreads) {
    std::atomic<int> ran{0};
    {
        KeyedTasks tasks;
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&, t] {
                for (int i = 0; i < 500; ++i) tasks.post(std::to_string((i + t) % 50), [&] { ++ran; });
            });
        }
        for (std::thread& thread : threads) thread.join();
    }
    EXPECT_EQ(ran, 2000);
}

}  // namespace
}  // namespace pegaflow::server
