// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/record_index.hpp"

#include <fmt/format.h>

#include <map>
#include <random>

namespace pegaflow::engine::tier {
namespace {

const StoredPage kOnePage[] = {{2 * kBlockBytes, 5}};

TEST(RecordIndexTest, FindsByTheWholeIdentity) {
    RecordIndex index;
    index.resize(2);
    const auto id = index.insert({1, 0, "hash"}, 1, 8192, kOnePage);
    EXPECT_EQ(index.find(1, 0, "hash"), id);
    EXPECT_FALSE(index.find(2, 0, "hash")) << "another namespace or layout";
    EXPECT_FALSE(index.find(1, 1, "hash")) << "another storage group";
    EXPECT_FALSE(index.find(1, 0, "hasj"));
    EXPECT_EQ(index.segment(1).entry(id.record).offset_blocks, 2U);
    EXPECT_EQ(index.segment(1).bytes(id.record), 2 * kBlockBytes);
    EXPECT_EQ(index.live_bytes(), 2 * kBlockBytes);
}

// Most hashes have 32 bytes, and most blocks one page: what is longer lies elsewhere.
TEST(RecordIndexTest, KeepsHashesAndPagesOfEveryLength) {
    RecordIndex index;
    index.resize(1);
    std::vector<std::vector<StoredPage>> pages;
    std::vector<BlockKey> keys;
    for (std::size_t length = 1; length <= kMaxHashBytes; ++length) {
        std::string hash(length, 'x');
        hash.back() = static_cast<char>('a' + length % 26);
        keys.emplace_back(length, static_cast<std::uint32_t>(length % 3), hash);
        pages.emplace_back();
        for (std::size_t i = 0; i < length % 4; ++i)
            pages.back().push_back({static_cast<std::uint32_t>(8 * (length + i)), length << 40 | i});
        const RecordId id = index.insert(keys.back(), 0, length * kBlockBytes, pages.back());
        EXPECT_EQ(id.record, length - 1);
    }
    const SegmentRecords& records = index.segment(0);
    std::uint64_t bytes = 0;
    for (std::uint32_t i = 0; i < records.size(); ++i) {
        EXPECT_EQ(index.find(keys[i].scope, keys[i].group, keys[i].hash()), (RecordId{0, i}));
        EXPECT_TRUE(same_key(records.key(i), keys[i].scope, keys[i].group, keys[i].hash())) << i;
        EXPECT_EQ(records.entry(i).offset_blocks, i + 1);
        EXPECT_TRUE(records.entry(i).live);
        const auto kept = records.pages(i);
        ASSERT_EQ(kept.size(), pages[i].size());
        for (std::size_t p = 0; p < kept.size(); ++p) {
            EXPECT_EQ(kept[p].content, pages[i][p].content) << i;
            EXPECT_EQ(kept[p].digest, pages[i][p].digest) << i;
            bytes += kept[p].bytes();
        }
        EXPECT_FALSE(index.find(keys[i].scope, keys[i].group, keys[i].hash().substr(1)));
    }
    EXPECT_EQ(index.live_bytes(), bytes);
}

TEST(RecordIndexTest, FindsSeveralAsItFindsOne) {
    RecordIndex index;
    index.resize(1);
    std::vector<BlockKey> keys;
    for (int i = 0; i < 40; ++i) keys.emplace_back(1, 0, fmt::format("hash {}", i));
    keys.push_back(keys[2]);
    const auto agrees = [&] {
        std::vector<std::optional<RecordId>> found(keys.size(), RecordId{7, 7});
        index.find(keys, found);
        std::size_t count = 0;
        for (std::size_t i = 0; i < keys.size(); ++i) {
            EXPECT_EQ(found[i], index.find(keys[i].scope, keys[i].group, keys[i].hash())) << i;
            count += found[i] ? 1 : 0;
        }
        return count;
    };
    index.find({}, {});
    EXPECT_EQ(agrees(), 0U);
    for (int i = 0; i < 40; i += 2) index.insert(keys[i], 0, 4096, kOnePage);
    EXPECT_EQ(agrees(), 21U);
    index.clear(0);
    EXPECT_EQ(agrees(), 0U);
}

TEST(RecordIndexTest, TheNewerRecordOfAKeyCounts) {
    RecordIndex index;
    index.resize(2);
    const auto old = index.insert({1, 0, "hash"}, 0, 4096, kOnePage);
    const auto fresh = index.insert({1, 0, "hash"}, 1, 4096, kOnePage);
    EXPECT_EQ(index.find(1, 0, "hash"), fresh);
    EXPECT_FALSE(index.segment(0).entry(old.record).live);
    EXPECT_EQ(index.blocks(), 1U);
    EXPECT_EQ(index.segment(0).live_bytes, 0U);
    index.erase(old);
    EXPECT_EQ(index.find(1, 0, "hash"), fresh) << "the dead one has nothing left to take away";
    index.clear(0);
    EXPECT_EQ(index.find(1, 0, "hash"), fresh);
    index.clear(1);
    EXPECT_FALSE(index.find(1, 0, "hash"));
    EXPECT_EQ(index.live_bytes(), 0U);
}

TEST(RecordIndexTest, AgreesWithAMapUnderRandomUse) {
    RecordIndex index;
    constexpr std::uint32_t kSegments = 9;
    index.resize(kSegments);
    std::map<std::string, RecordId> truth;
    std::mt19937 random(3);
    for (int step = 0; step < 60'000; ++step) {
        const std::string hash = fmt::format("hash-{}", random() % 3000);
        const auto segment = static_cast<std::uint32_t>(random() % kSegments);
        switch (random() % 16) {
            case 0:
                if (truth.contains(hash)) {
                    index.erase(truth[hash]);
                    truth.erase(hash);
                }
                break;
            case 1:
                if (random() % 64 == 0) {
                    index.clear(segment);
                    std::erase_if(truth, [segment](const auto& entry) { return entry.second.segment == segment; });
                }
                break;
            default:
                truth[hash] = index.insert({4, 0, hash}, segment, 4096, kOnePage);
        }
    }
    EXPECT_EQ(index.blocks(), truth.size());
    EXPECT_EQ(index.live_bytes(), truth.size() * 2 * kBlockBytes);
    for (int i = 0; i < 3000; ++i) {
        const std::string hash = fmt::format("hash-{}", i);
        const auto found = index.find(4, 0, hash);
        ASSERT_EQ(found.has_value(), truth.contains(hash)) << hash;
        if (found) {
            EXPECT_EQ(*found, truth[hash]);
        }
    }
}

}  // namespace
}  // namespace pegaflow::engine::tier
