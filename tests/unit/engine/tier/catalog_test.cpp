// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/catalog.hpp"

namespace pegaflow::engine::tier {
namespace {

Superblock four_segments() {
    Superblock out;
    out.segment_bytes = kMinSegmentBytes;
    out.segment_count = 4;
    return out;
}

FoundSegment found(std::uint64_t slot, std::uint64_t sequence, std::vector<const char*> hashes) {
    FoundSegment out;
    out.kind = FoundSegment::Kind::kSealed;
    out.slot = slot;
    out.header.sequence = sequence;
    for (std::size_t i = 0; i < hashes.size(); ++i)
        out.records.push_back({"ns", "fp", 0, hashes[i], (i + 2) * kBlockBytes, {{kBlockBytes, sequence}}});
    return out;
}

class CatalogTest : public ::testing::Test {
protected:
    BlockKey key(const char* hash) { return BlockKey(scopes_.number_of("ns", "fp"), 0, hash); }
    ScopeTable scopes_;
    Catalog catalog_{scopes_};
};

TEST_F(CatalogTest, OfTwoRecordsTheOneOfTheLaterSegmentCountsInWhateverOrderTheyAreFound) {
    for (const bool late_first : {true, false}) {
        ScopeTable scopes;
        Catalog catalog(scopes);
        catalog.add_container(four_segments());
        const auto early = found(1, 5, {"a", "b"});
        const auto late = found(0, 9, {"b"});
        catalog.add_found(0, late_first ? late : early);
        catalog.add_found(0, late_first ? early : late);
        const BlockKey b(scopes.number_of("ns", "fp"), 0, "b");
        const auto location = catalog.pin(b);
        ASSERT_TRUE(location);
        EXPECT_EQ(location->slot, 0U);
        EXPECT_EQ(location->pages[0].digest, 9U);
        catalog.unpin(location);
        EXPECT_EQ(catalog.blocks(), 2U);
        EXPECT_EQ(catalog.usage(0).live_bytes, 2 * kBlockBytes);
        EXPECT_EQ(catalog.oldest(0), 1U);
        EXPECT_EQ(catalog.last_sequence(0), 9U);
    }
}

TEST_F(CatalogTest, APlaceThatIsBeingReadIsNotWrittenAnew) {
    catalog_.add_container(four_segments());
    catalog_.add_found(0, found(0, 1, {"a"}));
    const auto location = catalog_.pin(key("a"));
    ASSERT_TRUE(location);
    EXPECT_EQ(location->offset, kSegmentsAt + 2 * kBlockBytes);
    std::uint64_t blocks = 0;
    EXPECT_FALSE(catalog_.release(0, 0, &blocks));
    EXPECT_EQ(blocks, 1U);
    EXPECT_FALSE(catalog_.contains(key("a")));
    EXPECT_EQ(catalog_.free_segments(0), 3U);
    catalog_.quarantine(*location);  // nothing left to take away
    catalog_.unpin(location);
    EXPECT_EQ(catalog_.free_segments(0), 4U);
}

TEST_F(CatalogTest, WhatCannotBeReadIsNotFoundUntilItCan) {
    catalog_.add_container(four_segments());
    catalog_.add_found(0, found(0, 1, {"a"}));
    catalog_.set_readable(0, false);
    EXPECT_FALSE(catalog_.contains(key("a")));
    EXPECT_FALSE(catalog_.pin(key("a")));
    catalog_.set_readable(0, true);
    EXPECT_TRUE(catalog_.contains(key("a")));
}

TEST_F(CatalogTest, TheHottestRecordsComeFirstAndNotMoreThanAskedFor) {
    catalog_.add_container(four_segments());
    catalog_.add_found(0, found(0, 1, {"a", "b", "c", "d"}));
    const auto read = [&](const char* hash, int times) {
        for (int i = 0; i < times; ++i) catalog_.unpin(catalog_.pin(key(hash)));
    };
    read("b", 1);
    read("d", 3);
    const auto hot = catalog_.hot_records(0, 0, 10 * kBlockBytes);
    ASSERT_EQ(hot.size(), 2U);
    EXPECT_EQ(hot[0].key.hash(), "d");
    EXPECT_EQ(hot[1].key.hash(), "b");
    EXPECT_EQ(catalog_.hot_records(0, 0, kBlockBytes).size(), 1U);
}

TEST_F(CatalogTest, ContainersAreNumberedOneAfterAnother) {
    EXPECT_EQ(catalog_.add_container(four_segments()), 0U);
    EXPECT_EQ(catalog_.add_container(four_segments()), 1U);
    catalog_.add_found(1, found(2, 7, {"x"}));
    const auto location = catalog_.pin(key("x"));
    ASSERT_TRUE(location);
    EXPECT_EQ(location->container, 1U);
    EXPECT_EQ(location->slot, 2U);
    catalog_.unpin(location);
    EXPECT_EQ(catalog_.usage(0).blocks, 0U);
    EXPECT_EQ(catalog_.usage(1).blocks, 1U);
    std::uint64_t sequence = 0;
    EXPECT_EQ(catalog_.begin(1, &sequence), 0U);
    EXPECT_EQ(sequence, 8U);
}

}  // namespace
}  // namespace pegaflow::engine::tier
