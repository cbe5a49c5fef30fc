// SPDX-License-Identifier: Apache-2.0
#include "engine/block/small_array.hpp"

#include <numeric>
#include <string>
#include <vector>

namespace pegaflow::engine {
namespace {

TEST(SmallArray, GrowsFromNothingAndKeepsItsElements) {
    SmallArray<std::string> array;
    EXPECT_TRUE(array.empty());
    for (int i = 0; i < 20; ++i) {
        array.push_back("a text that needs memory of its own " + std::to_string(i));
        ASSERT_EQ(array.size(), static_cast<std::size_t>(i + 1));
        for (int k = 0; k <= i; ++k) {
            EXPECT_EQ(array[static_cast<std::size_t>(k)], "a text that needs memory of its own " + std::to_string(k));
        }
    }
    array.clear();
    EXPECT_EQ(array.begin(), array.end());
    array.push_back("again");
    EXPECT_EQ(array[0], "again");
}

TEST(SmallArray, ResizesWithNewElementsEmpty) {
    SmallArray<int> array;
    array.resize(1);
    array[0] = 7;
    array.resize(5);
    EXPECT_EQ(std::accumulate(array.begin(), array.end(), 0), 7);
    array.resize(1);
    array.resize(3);
    EXPECT_EQ(std::accumulate(array.begin(), array.end(), 0), 7) << "what was given up does not come back";
}

TEST(SmallArray, TakesTheElementsOfAnother) {
    const std::vector<std::string> one = {"a text that needs memory of its own"}, three = {"a", "b", "c"};
    for (const auto& values : {one, three, one}) {
        SmallArray<std::string> from;
        from.assign(values);
        SmallArray<std::string> to(std::move(from));
        EXPECT_EQ(std::vector(to.begin(), to.end()), values);
        EXPECT_TRUE(from.empty());
        from.push_back("again");
        to = std::move(from);
        EXPECT_EQ(std::vector(to.begin(), to.end()), std::vector<std::string>{"again"});
    }
}

}  // namespace
}  // namespace pegaflow::engine
