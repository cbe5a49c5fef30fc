// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/slab.hpp"

#include <algorithm>
#include <random>

namespace pegaflow::engine {
namespace {

TEST(Slab, GivesDisjointPagesAndTakesThemBack) {
    Slab slab;
    slab.add(0, 1 << 20);
    std::set<std::uint64_t> pages;
    for (std::uint64_t page = slab.allocate(4096); page != Slab::kNone; page = slab.allocate(4096))
        EXPECT_TRUE(pages.insert(page).second);
    EXPECT_EQ(pages.size(), 256U);
    EXPECT_EQ(slab.used(), 1U << 20);
    for (const std::uint64_t page : pages) slab.free(page, 4096);
    EXPECT_EQ(slab.used(), 0U);
    EXPECT_EQ(slab.largest_free(), 1U << 20) << "all chunks went back and joined";
    EXPECT_NE(slab.allocate(1 << 20), Slab::kNone);
}

TEST(Slab, MixedSizesUseNearlyEverything) {
    constexpr std::uint64_t kBytes = std::uint64_t{512} << 20;
    Slab slab;
    slab.add(0, kBytes);
    std::mt19937 random(1);
    const std::uint64_t sizes[] = {4096, 36864, 1151 * 1024 / 4096 * 4096, 2 << 20};
    std::vector<std::pair<std::uint64_t, std::uint64_t>> live;
    for (int i = 0; i < 20000; ++i) {
        const std::uint64_t bytes = sizes[random() % 4];
        const std::uint64_t page = slab.allocate(bytes);
        if (page != Slab::kNone) {
            live.emplace_back(page, bytes);
        } else {
            for (int k = 0; k < 8 && !live.empty(); ++k) {
                std::swap(live[random() % live.size()], live.back());
                slab.free(live.back().first, live.back().second);
                live.pop_back();
            }
        }
    }
    while (true) {
        const std::uint64_t page = slab.allocate(4096);
        if (page == Slab::kNone) break;
        live.emplace_back(page, 4096);
    }
    EXPECT_GE(slab.used(), kBytes * 97 / 100);
    std::sort(live.begin(), live.end());
    for (std::size_t i = 1; i < live.size(); ++i) ASSERT_LE(live[i - 1].first + live[i - 1].second, live[i].first);
    for (const auto& [page, bytes] : live) slab.free(page, bytes);
    EXPECT_EQ(slab.largest_free(), kBytes);
}

}  // namespace
}  // namespace pegaflow::engine
