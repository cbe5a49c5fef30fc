// SPDX-License-Identifier: Apache-2.0
#include "engine/block/index.hpp"

#include <list>
#include <set>
#include <thread>

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
    std::unique_ptr<AdmissionPolicy> admission_ = *make_admission_policy("none");
    BlockIndex index_{*make_eviction_policy("lru", 1000), *admission_, pages_};
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

TEST_F(IndexTest, ManyEvictedAtOnceAreTheOldestButForASmallPartOfTheCache) {
    constexpr int kBlocks = 6400, kEvicted = 1000;
    for (int i = 0; i < kBlocks; ++i) insert(std::to_string(i));
    const std::string hash = "17";
    const std::string_view view = hash;
    std::vector<BlockRef> pinned, victims;
    index_.lookup_prefix(1, 0, {&view, 1}, pinned);
    index_.evict(UINT64_MAX, kEvicted, victims);
    ASSERT_EQ(victims.size(), std::size_t{kEvicted});
    std::set<int> gone;
    for (const BlockRef& victim : victims) gone.insert(std::stoi(std::string(victim->key.hash())));
    EXPECT_EQ(gone.size(), std::size_t{kEvicted}) << "none twice";
    EXPECT_FALSE(gone.contains(17)) << "it is in use";
    EXPECT_LE(*gone.rbegin(), kEvicted + 2 * kBlocks / static_cast<int>(BlockIndex::kShards));
    EXPECT_EQ(index_.resident(), std::uint64_t{kBlocks - kEvicted});
}

TEST_F(IndexTest, EvictsNoMoreThanTheBytesAskedFor) {
    for (int i = 0; i < 100; ++i) insert(std::to_string(i));
    std::vector<BlockRef> victims;
    index_.evict(1, 50, victims);
    ASSERT_EQ(victims.size(), 1U);
    EXPECT_EQ(victims[0]->key.hash(), "0");
    index_.evict(10 * victims[0]->footprint(), 50, victims);
    EXPECT_EQ(victims.size(), 11U);
    victims.clear();
    index_.evict(UINT64_MAX, 1000, victims);
    EXPECT_EQ(victims.size(), 89U);
    index_.evict(UINT64_MAX, 1000, victims);
    EXPECT_EQ(victims.size(), 89U) << "nothing is left";
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

TEST_F(IndexTest, ABlockSaysHowLongItWasResident) {
    index_.set_hundredths(UINT32_MAX - 49);
    insert("old");
    index_.set_hundredths(150);  // two seconds later, past the end of 32 bits
    insert("new");
    EXPECT_DOUBLE_EQ(index_.residence_seconds(*index_.evict_one()), 2.0);
    EXPECT_DOUBLE_EQ(index_.residence_seconds(*index_.evict_one()), 0.0);
}

TEST_F(IndexTest, ABlockGoesBeforeThoseItContinues) {
    std::vector<std::string> hashes;
    for (int i = 0; i < 600; ++i) hashes.push_back("block-" + std::to_string(i));
    for (int i = 599; i >= 0; --i) insert(hashes[i]);
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    for (const std::size_t used : {0, 300}) {  // fresh; then the first half was used
        std::vector<BlockRef> found;
        index_.lookup_prefix(1, 0, std::span(views).first(used), found);
        found.clear();
        for (std::size_t i = 0; i < 150; ++i) ASSERT_EQ(index_.evict_one()->key.hash(), hashes[599 - used / 2 - i]);
    }
}

TEST_F(IndexTest, EraseAllLeavesWhatIsInUseUntilItIsNot) {
    for (int i = 0; i < 100; ++i) insert(std::to_string(i));
    const std::string names[] = {"0", "1"};
    const std::string_view views[] = {names[0], names[1]};
    std::vector<BlockRef> pinned, again;
    index_.lookup_prefix(1, 0, views, pinned);
    int gone = 0;
    const auto count = [&](const BlockRef&) { ++gone; };
    EXPECT_EQ(index_.erase_all(count), 2U);
    EXPECT_EQ(gone, 98);
    EXPECT_EQ(index_.resident(), 2U);
    index_.lookup_prefix(1, 0, views, again);
    EXPECT_EQ(again.size(), 2U) << "still a hit";
    pinned.clear();
    index_.erase_doomed(count);
    EXPECT_EQ(gone, 98);
    again.pop_back();
    EXPECT_EQ(index_.erase_all(count), 1U) << "told twice";
    EXPECT_EQ(gone, 99);
    again.clear();
    index_.erase_doomed(count);
    EXPECT_EQ(gone, 100);
    EXPECT_EQ(index_.resident(), 0U);
    EXPECT_EQ(pages_.freed, 100);
}

TEST_F(IndexTest, AScanDoesNotDriveOutWhatIsUsedOften) {
    for (const char* name : {"lru", "tiny_lfu"}) {
        BlockIndex index(*make_eviction_policy(name, 100), *admission_, pages_);
        const auto use = [&](const std::string& hash) {
            const std::string_view view = hash;
            std::vector<BlockRef> found;
            index.lookup_prefix(1, 0, {&view, 1}, found);
            if (!found.empty()) return true;
            bool admitted = false;
            index.insert_resident(make(pages_, 1, hash), &admitted);
            if (index.resident() > 100) index.evict_one();
            return false;
        };
        for (int round = 0; round < 8; ++round) {
            for (int i = 0; i < 40; ++i) use("hot-" + std::to_string(i));
        }
        for (int i = 0; i < 200; ++i) use("scan-" + std::to_string(i));
        int hits = 0;
        for (int i = 0; i < 40; ++i) hits += use("hot-" + std::to_string(i)) ? 1 : 0;
        EXPECT_EQ(hits, std::string(name) == "lru" ? 0 : 40) << name;
    }
}

TEST_F(IndexTest, ReadersAndWritersAtOnceKeepEveryBlockWhole) {
    constexpr int kHashes = 4000;
    std::vector<std::string> hashes;
    for (int i = 0; i < kHashes; ++i) hashes.push_back("a-hash-of-some-length-" + std::to_string(i));
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < kHashes * 2; ++i) {
                insert(hashes[(i * 7 + t * 13) % kHashes]);
                if (index_.resident() > 1000) (void)index_.evict_one();
            }
        });
        threads.emplace_back([&] {
            for (int round = 0; round < 50; ++round) {
                std::vector<BlockRef> found;
                std::vector<std::uint32_t> positions;
                index_.lookup_each(1, 0, views, found, positions);
                for (std::size_t i = 0; i < found.size(); ++i) wrong += found[i]->key.hash() == hashes[positions[i]] ? 0 : 1;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    while (index_.evict_one()) {
    }
    EXPECT_EQ(index_.resident(), 0U);
}

TEST_F(IndexTest, ClaimsGiveEachLayerToOneSaver) {
    GroupShape shape{{{4, 4096}}};
    const BlockKey key(1, 0, "fill");
    const auto set = [](std::vector<std::uint32_t> numbers) { return LayerSet(numbers); };
    const LayerSet first = set({0, 1});
    const LayerSet all = set({0, 1, 2, 3});
    FillClaim a = index_.claim(key, shape, 0, first, 0, 1);
    FillClaim b = index_.claim(key, shape, 0, all, kNoPage, 1);
    EXPECT_TRUE(a.used_page);
    EXPECT_FALSE(b.used_page);
    EXPECT_EQ(a.layers, first);
    EXPECT_EQ(b.layers, set({2, 3}));
    EXPECT_TRUE(index_.claim(key, shape, 0, all, kNoPage, 1).layers.empty());
    bool admitted = false;
    EXPECT_FALSE(index_.filled(a, 0, &admitted));
    EXPECT_FALSE(index_.contains(1, 0, "fill"));
    index_.unclaim(b, 0);
    FillClaim again = index_.claim(key, shape, 0, all, kNoPage, 1);
    EXPECT_EQ(again.layers, set({2, 3})) << "a failed copy gives its layers back";
    EXPECT_TRUE(index_.filled(again, 0, &admitted));
    EXPECT_TRUE(admitted);
    EXPECT_TRUE(index_.contains(1, 0, "fill"));
}

}  // namespace
}  // namespace pegaflow::engine
