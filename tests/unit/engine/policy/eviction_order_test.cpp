// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/eviction_order.hpp"

#include <random>

#include "engine/policy/lru.hpp"

namespace pegaflow::engine {
namespace {

class NoPages final : public PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
};

class EvictionOrderTest : public ::testing::Test {
protected:
    EvictionOrderTest() { order_.set_policy(std::make_unique<Lru>()); }
    Block& add(std::uint64_t tick) {
        blocks_.push_back(std::make_unique<Block>(BlockKey(1, 0, "x"), blocks_.size(), pages_));
        Block& block = *blocks_.back();
        block.refs = 1;
        block.last_use = tick;
        order_.insert(block, {tick, 1});
        return block;
    }

    NoPages pages_;
    std::vector<std::unique_ptr<Block>> blocks_;
    EvictionOrder order_;
};

TEST_F(EvictionOrderTest, FindsTheLowestAfterUsesThatItWasNotToldOf) {
    std::mt19937 random(3);
    std::uint64_t tick = 1;
    for (int i = 0; i < 500; ++i) add(++tick);
    std::vector<Block*> left;
    for (const auto& block : blocks_) left.push_back(block.get());
    while (!left.empty()) {
        for (int i = 0; i < 7; ++i) left[random() % left.size()]->touch(++tick);
        if (random() % 5 == 0) {
            const std::size_t at = random() % left.size();
            order_.remove(*left[at], false);
            left.erase(left.begin() + static_cast<std::ptrdiff_t>(at));
            continue;
        }
        const auto oldest = std::min_element(
            left.begin(), left.end(), [](const Block* a, const Block* b) { return a->last_use.load() < b->last_use.load(); });
        ASSERT_LE(order_.lowest(), (*oldest)->last_use);
        ASSERT_EQ(order_.victim({tick, 1}), *oldest);
        order_.remove(**oldest, true);
        left.erase(oldest);
    }
    EXPECT_EQ(order_.lowest(), UINT64_MAX);
    EXPECT_EQ(order_.victim({tick, 1}), nullptr);
}

TEST_F(EvictionOrderTest, WhatIsInUseCountsAsUsedNow) {
    Block& held = add(1);
    Block& free = add(2);
    held.refs = 2;
    EXPECT_EQ(order_.victim({10, 1}), &free);
    EXPECT_EQ(held.last_use, 10U);
    order_.remove(free, true);
    EXPECT_EQ(order_.victim({11, 1}), nullptr);
    held.refs = 1;
    EXPECT_EQ(order_.victim({12, 1}), &held);
}

}  // namespace
}  // namespace pegaflow::engine
