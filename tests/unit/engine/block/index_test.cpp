// SPDX-License-Identifier: Apache-2.0
#include "engine/block/index.hpp"

#include <list>

#include "engine/policy/lru.hpp"

namespace pegaflow::engine {
namespace {

class NoPages final : public PageOwner {
public:
    void free_page(std::uint64_t, std::uint64_t) noexcept override { ++freed; }
    std::atomic<int> freed{0};
};

class IndexTest : public ::testing::Test {
protected:
    static BlockRef make(NoPages& pages, std::uint64_t scope, const std::string& hash) {
        const BlockKey key(scope, 0, hash);
        auto* block = new Block(key, table_hash(scope, 0, hash), pages);
        block->pages.push_back({0, 4096});
        return BlockRef(block);
    }
    bool insert(const std::string& hash) {
        bool admitted = false;
        return index_.insert_resident(make(pages_, 1, hash), &admitted) && admitted;
    }

    NoPages pages_;
    std::unique_ptr<AdmissionPolicy> admission_ = *make_admission_policy("none", 1);
    BlockIndex index_{*make_eviction_policy("lru"), *admission_, pages_};
};

TEST_F(IndexTest, FindsThePrefixAndPinsIt) {
    std::vector<std::string> hashes;
    for (int i = 0; i < 1000; ++i) hashes.push_back("block-" + std::to_string(i));
    for (int i = 0; i < 1000; ++i) {
        if (i == 700) continue;
        EXPECT_TRUE(insert(hashes[i]));
    }
    EXPECT_FALSE(insert(hashes[3])) << "there already";
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    std::vector<BlockRef> found;
    index_.lookup_prefix(1, 0, views, found);
    EXPECT_EQ(found.size(), 700U);
    EXPECT_EQ(found[699]->key.hash(), hashes[699]);
    EXPECT_EQ(found[0]->refs.load(), 2U);
    std::vector<BlockRef> other;
    index_.lookup_prefix(2, 0, views, other);
    EXPECT_TRUE(other.empty()) << "another scope";
    std::vector<std::uint32_t> positions;
    index_.lookup_each(1, 0, views, other, positions);
    EXPECT_EQ(positions.size(), 999U);
}

TEST_F(IndexTest, EvictsExactlyLikeAPlainLru) {
    constexpr std::size_t kCapacity = 200;
    std::list<int> model;  // newest first
    std::uint32_t random = 7;
    for (int step = 0; step < 20000; ++step) {
        random = random * 1664525 + 1013904223;
        const int id = static_cast<int>((random >> 8) % 400);
        const std::string hash = std::to_string(id);
        const std::string_view view = hash;
        std::vector<BlockRef> found;
        index_.lookup_prefix(1, 0, {&view, 1}, found);
        const auto it = std::find(model.begin(), model.end(), id);
        ASSERT_EQ(found.size(), it == model.end() ? 0U : 1U) << step;
        found.clear();
        if (it != model.end()) {
            model.splice(model.begin(), model, it);
            continue;
        }
        if (model.size() == kCapacity) {
            const BlockRef victim = index_.evict_one();
            ASSERT_EQ(victim->key.hash(), std::to_string(model.back())) << step;
            model.pop_back();
        }
        ASSERT_TRUE(insert(hash));
        model.push_front(id);
    }
    EXPECT_EQ(index_.resident(), kCapacity);
}

TEST_F(IndexTest, NeverEvictsWhatIsPinned) {
    for (int i = 0; i < 100; ++i) insert(std::to_string(i));
    const std::string hash = "0";
    const std::string_view view = hash;
    std::vector<BlockRef> pinned;
    index_.lookup_prefix(1, 0, {&view, 1}, pinned);
    int evicted = 0;
    while (index_.evict_one()) ++evicted;
    EXPECT_EQ(evicted, 99);
    EXPECT_TRUE(index_.contains(1, 0, "0"));
    EXPECT_EQ(pages_.freed, 99);
}

TEST_F(IndexTest, ClaimsGiveEachLayerToOneSaver) {
    GroupShape shape{{{4, 4096}}};
    const BlockKey key(1, 0, "fill");
    const std::uint64_t first[] = {0b0011};
    const std::uint64_t all[] = {0b1111};
    FillClaim a = index_.claim(key, shape, 0, first, 0, 1);
    FillClaim b = index_.claim(key, shape, 0, all, kNoPage, 1);
    EXPECT_TRUE(a.used_page);
    EXPECT_FALSE(b.used_page);
    EXPECT_EQ(a.layers[0], 0b0011U);
    EXPECT_EQ(b.layers[0], 0b1100U);
    EXPECT_TRUE(index_.claim(key, shape, 0, all, kNoPage, 1).layers.empty());
    bool admitted = false;
    EXPECT_FALSE(index_.filled(a, 0, &admitted));
    EXPECT_FALSE(index_.contains(1, 0, "fill"));
    index_.unclaim(b, 0);
    FillClaim again = index_.claim(key, shape, 0, all, kNoPage, 1);
    EXPECT_EQ(again.layers[0], 0b1100U) << "a failed copy gives its layers back";
    EXPECT_TRUE(index_.filled(again, 0, &admitted));
    EXPECT_TRUE(admitted);
    EXPECT_TRUE(index_.contains(1, 0, "fill"));
}

}  // namespace
}  // namespace pegaflow::engine
