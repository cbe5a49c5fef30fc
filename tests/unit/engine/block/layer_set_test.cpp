// SPDX-License-Identifier: Apache-2.0
#include "engine/block/layer_set.hpp"

#include <set>

namespace pegaflow::engine {
namespace {

TEST(LayerSet, IsASetOfNumbersBelowAndAbove64) {
    const std::vector<std::uint32_t> numbers = {0, 5, 63, 64, 130};
    LayerSet set(numbers);
    EXPECT_EQ(set.size(), 5U);
    for (std::uint32_t i = 0; i < 200; ++i) EXPECT_EQ(set.has(i), std::ranges::find(numbers, i) != numbers.end()) << i;
    EXPECT_FALSE(set.empty());
    set -= set;
    EXPECT_TRUE(set.empty());
    EXPECT_EQ(set, LayerSet()) << "words of zeros make no difference";
}

TEST(LayerSet, HasAnOrderThatKnowsEqualSets) {
    const auto set = [](std::vector<std::uint32_t> numbers) { return LayerSet(numbers); };
    LayerSet shrunk = set({3, 200});
    shrunk -= set({200});
    EXPECT_TRUE((shrunk <=> set({3})) == 0) << "words of zeros make no difference";
    const LayerSet sets[] = {set({}), set({0}), set({1}), set({0, 1}), set({0, 70}), set({70}), set({140}), set({70, 140})};
    for (const LayerSet& a : sets) {
        for (const LayerSet& b : sets) {
            EXPECT_EQ((a <=> b) == 0, a == b);
            EXPECT_EQ(a<b, b> a);
        }
    }
}

TEST(LayerSet, JoinsAndTakesAwayAsSetsDo) {
    for (std::uint32_t seed = 1; seed <= 50; ++seed) {
        std::set<std::uint32_t> a, b;
        std::uint32_t state = seed * 2654435761U;
        for (int i = 0; i < 40; ++i) {
            state = state * 1664525U + 1013904223U;
            (state & 0x100 ? a : b).insert((state >> 16) % (seed % 2 == 0 ? 64 : 170));
        }
        const auto make = [](const std::set<std::uint32_t>& from) {
            return LayerSet(std::vector<std::uint32_t>(from.begin(), from.end()));
        };
        LayerSet joined = make(a);
        joined |= make(b);
        std::set<std::uint32_t> both = a;
        both.insert(b.begin(), b.end());
        EXPECT_EQ(joined, make(both));
        EXPECT_EQ(joined.size(), both.size());
        joined -= make(a);
        std::set<std::uint32_t> only_b;
        for (const std::uint32_t n : b)
            if (!a.contains(n)) only_b.insert(n);
        EXPECT_EQ(joined, make(only_b));
        EXPECT_EQ(joined == make(b), only_b == b);
    }
}

}  // namespace
}  // namespace pegaflow::engine
