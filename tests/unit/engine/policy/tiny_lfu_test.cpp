// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/tiny_lfu.hpp"

namespace pegaflow::engine {
namespace {

class NoPages final : public PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
};

class TinyLfuTest : public ::testing::Test {
protected:
    Block make(std::uint64_t hash) { return Block(BlockKey(1, 0, "x"), hash, pages_); }

    static constexpr std::uint64_t kTurnover = 1000 * kTicksPerInsert;
    static constexpr PolicyTime kTime = {0, kTurnover};
    NoPages pages_;
    std::shared_ptr<TinyLfu::History> history_ = std::make_shared<TinyLfu::History>(1000);
    TinyLfu policy_{history_};
};

TEST_F(TinyLfuTest, EachDoublingOfUsesIsWorthHalfATurnover) {
    Block once = make(1), often = make(2);
    policy_.inserted(once, kTime);
    policy_.inserted(often, kTime);
    EXPECT_EQ(policy_.rank(once, kTime), policy_.rank(often, kTime));
    often.touch(0);
    EXPECT_EQ(policy_.rank(often, kTime) - policy_.rank(once, kTime), kTurnover / 2);
    for (int i = 0; i < 30; ++i) often.touch(0);
    EXPECT_EQ(policy_.rank(often, kTime) - policy_.rank(once, kTime), kTurnover / 2 * 3) << "three doublings at most";
    once.touch(kTurnover * 3);
    EXPECT_GT(policy_.rank(once, kTime), policy_.rank(often, kTime)) << "popularity of old does not keep a block for good";
}

TEST_F(TinyLfuTest, KnowsAnEvictedBlockWhenItComesBack) {
    Block popular = make(7);
    policy_.inserted(popular, kTime);
    for (int i = 0; i < 3; ++i) popular.touch(0);
    policy_.removed(popular, true);
    Block again = make(7), other = make(8);
    policy_.inserted(again, kTime);
    policy_.inserted(other, kTime);
    EXPECT_EQ(again.uses, 5U);
    EXPECT_EQ(other.uses, 1U);
    policy_.removed(other, false);
    Block dropped = make(8);
    policy_.inserted(dropped, kTime);
    EXPECT_EQ(dropped.uses, 1U) << "what was dropped for another reason says nothing";
}

TEST_F(TinyLfuTest, OldPopularityFades) {
    Block there = make(7), gone = make(9);
    for (Block* block : {&there, &gone}) {
        policy_.inserted(*block, kTime);
        for (int i = 0; i < 7; ++i) block->touch(0);
    }
    policy_.removed(gone, true);
    for (std::uint64_t i = 0; i < 8000; ++i) history_->uses_of(1000 + i);
    policy_.rank(there, kTime);
    EXPECT_EQ(there.uses, 4U);
    EXPECT_EQ(history_->uses_of(9), 4U);
}

TEST(EvictionPolicies, AreMadeByName) {
    EXPECT_TRUE(make_eviction_policy("lru", 10));
    EXPECT_TRUE(make_eviction_policy("tiny_lfu", 10));
    EXPECT_NE(make_eviction_policy("best", 10).error().message.find("lru, tiny_lfu"), std::string::npos);
}

}  // namespace
}  // namespace pegaflow::engine
