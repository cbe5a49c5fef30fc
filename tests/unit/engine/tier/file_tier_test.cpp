// SPDX-License-Identifier: Apache-2.0
// The engine with a tier on real files: what goes down comes up again, over restarts, byte for byte.
#include "engine/tier/file_tier.hpp"

#include <numeric>

#include "tests/unit/engine/tier/tier_fixture.hpp"

namespace pegaflow {
namespace {

class FileTierTest : public TierFixture {};

TEST_F(FileTierTest, BlocksThatLeftThePoolComeBack) {
    start();
    if (IsSkipped()) return;
    save(0, 300);  // the pool holds less than half of them
    EXPECT_EQ(stats().stored_blocks, 300U);
    EXPECT_LT(engine_->stats().resident_blocks, 130U);
    for (std::uint64_t i = 0; i < 300; ++i) ASSERT_TRUE(hit(i)) << i;
    EXPECT_GT(stats().hits, 170U);
    EXPECT_EQ(stats().digest_mismatches, 0U);
    EXPECT_EQ(stats().block_bytes, 300U * (64 << 10));
    const EngineStats all = engine_->stats();
    EXPECT_EQ(all.evictions_offered, all.evictions) << "the tier has them all";
    EXPECT_EQ(all.tier.writes_in_flight, 0U);
    EXPECT_EQ(all.tier.prefetch_reading_blocks, 0U);
    for (const Distribution* rates : {&all.tier.write_rates, &all.tier.read_rates}) {
        EXPECT_GT(std::accumulate(rates->counts.begin(), rates->counts.end(), std::uint64_t{0}), 0U);
        EXPECT_GT(rates->sum, 0);
    }
}

TEST_F(FileTierTest, ARestartKeepsEveryStoredBlock) {
    start();
    if (IsSkipped()) return;
    save(0, 100);
    start();
    EXPECT_EQ(stats().recovered_blocks, 100U);
    for (std::uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(hit(i)) << i;
    EXPECT_EQ(stats().stored_blocks, 0U) << "what comes from the tier is not written again";
    save(100, 10);
    start();
    for (std::uint64_t i = 100; i < 110; ++i) ASSERT_TRUE(hit(i)) << i;
}

TEST_F(FileTierTest, CloseStoresWhatWasSavedBefore) {
    start();
    if (IsSkipped()) return;
    replica_.fill(0, 0);
    ASSERT_TRUE(replica_.save(*engine_, {0}, {make_hashes(1)[0]}));
    start();  // no flush
    EXPECT_TRUE(hit(0));
}

TEST_F(FileTierTest, APrefixComesPartlyFromThePoolAndPartlyFromTheTier) {
    start();
    if (IsSkipped()) return;
    save(0, 20);
    engine_->cleanup_memory();
    ASSERT_TRUE(hit(3));
    ASSERT_TRUE(hit(7));
    std::uint64_t loading = 0;
    auto hashes = make_hashes(30);
    const auto found = ask(hashes, "prefix", &loading);
    EXPECT_EQ(found.hit_blocks, 20U);
    EXPECT_GT(loading, 0U);
    std::vector<std::uint32_t> targets;
    for (std::uint32_t i = 0; i < 20; ++i) targets.push_back(i);
    ASSERT_TRUE(replica_.load(*engine_, *found.lease, targets));
    for (std::uint32_t i = 0; i < 20; ++i) EXPECT_EQ(replica_.wrong(i, i), 0U) << i;
    EXPECT_EQ(ask(hashes, "again").hit_blocks, 20U);
    const auto miss = engine_->query({.instance_id = "replica", .hashes = {}, .request_id = "x"});
    EXPECT_FALSE(miss->loading);
}

// Each slice is a region of its own: a page must go through the one it lies in, also while the pool still grows.
TEST_F(FileTierTest, PagesInEverySliceOfThePoolAreStoredAndComeBack) {
    options_.pool_slice_bytes = 3 * (64 << 10);
    start();
    if (IsSkipped()) return;
    const auto wait_grown = [&] {
        const auto limit = Clock::now() + 20s;
        while (engine_->stats().pool_ready_bytes != options_.pool_bytes && Clock::now() < limit)
            std::this_thread::sleep_for(1ms);
        ASSERT_EQ(engine_->stats().pool_ready_bytes, options_.pool_bytes);
    };
    wait_grown();
    save(0, 300);
    EXPECT_EQ(stats().stored_blocks, 300U);
    EXPECT_GT(engine_->stats().pool_used_bytes, options_.pool_bytes / 2) << "or most slices had no page";
    for (std::uint64_t i = 0; i < 300; ++i) ASSERT_TRUE(hit(i)) << i;
    EXPECT_GT(stats().read_blocks, 170U);
    start();
    for (std::uint64_t i = 0; i < 150; ++i) ASSERT_TRUE(hit(i)) << i;
    wait_grown();
    for (std::uint64_t i = 150; i < 300; ++i) ASSERT_TRUE(hit(i)) << i;
    EXPECT_EQ(stats().read_blocks, 300U);
    EXPECT_EQ(stats().digest_mismatches, 0U);
    EXPECT_EQ(stats().read_failures, 0U);
}

// A reader keeps the block that a clean-up could not take: it goes when the reader does, and the tier still has it.
TEST_F(FileTierTest, ABlockThatACleanUpHadToLeaveComesBackFromTheTier) {
    start();
    if (IsSkipped()) return;
    save(0, 3);
    const auto held = ask(make_hashes(3), "holder");
    ASSERT_EQ(held.hit_blocks, 3U);
    EXPECT_EQ(engine_->cleanup_memory().still_referenced_blocks, 3U);
    ASSERT_TRUE(engine_->release(*held.lease));
    const auto limit = Clock::now() + 5s;
    while (engine_->stats().resident_blocks != 0 && Clock::now() < limit) std::this_thread::sleep_for(1ms);
    ASSERT_EQ(engine_->stats().resident_blocks, 0U);
    for (std::uint64_t i = 0; i < 3; ++i) EXPECT_TRUE(hit(i)) << i;
    EXPECT_EQ(stats().read_blocks, 3U);
    EXPECT_EQ(engine_->stats().resident_blocks, 3U);
}

TEST_F(FileTierTest, OtherLayoutsAndNamespacesDoNotSeeTheBlocks) {
    start();
    if (IsSkipped()) return;
    save(0, 5);
    start();
    Replica other({.instance = "other", .name_space = "someone else", .layers = 4, .bytes = 8192});
    Replica wider({.instance = "wider", .layers = 5, .bytes = 8192});
    ASSERT_TRUE(engine_->register_worker(other.registration()));
    ASSERT_TRUE(engine_->register_worker(wider.registration()));
    for (const char* instance : {"other", "wider"}) {
        const auto hash = make_hashes(1)[0];
        const std::string_view view = hash;
        const auto found = engine_->query({.instance_id = instance, .hashes = {&view, 1}, .request_id = "r"});
        ASSERT_TRUE(found);
        EXPECT_FALSE(found->loading) << instance;
        EXPECT_EQ(found->hit_blocks, 0U) << instance;
    }
    EXPECT_TRUE(hit(0));
}

TEST_F(FileTierTest, QueriesForTheSameBlocksReadThemOnce) {
    options_.tier.threads = 1;
    options_.tier.prefetch_bytes = 4 << 20;
    start({{"delay_us", "1000000"}, {"op", "read"}});  // all have asked before the first has come
    if (IsSkipped()) return;
    save(0, 10);
    engine_->cleanup_memory();
    const auto hashes = make_hashes(10);
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    for (int i = 0; i < 4; ++i) {
        const std::string request = fmt::format("r{}", i);
        EXPECT_TRUE(engine_->query({.instance_id = "replica", .hashes = views, .request_id = request})->loading);
    }
    for (int i = 0; i < 4; ++i) EXPECT_EQ(ask(hashes, fmt::format("r{}", i)).hit_blocks, 10U);
    EXPECT_EQ(stats().read_blocks, 10U);
    EXPECT_EQ(stats().prefetch_joined, 30U);
}

TEST_F(FileTierTest, AQueryThatGoesAwayTakesItsReadsAlong) {
    options_.tier.idle_time = 50ms;
    options_.tier.read_bytes_in_flight = 64 << 10;  // one at a time
    options_.tier.threads = 1;
    start({{"delay_us", "200000"}, {"op", "read"}});  // 20 reads take 4 s
    if (IsSkipped()) return;
    save(0, 60);
    engine_->cleanup_memory();
    const auto hashes = make_hashes(60);
    const std::vector<std::string_view> views(hashes.begin(), hashes.end());
    EXPECT_TRUE(
        engine_
            ->query(
                {.instance_id = "replica", .hashes = views.empty() ? views : std::span(views).first(20), .request_id = "gone"})
            ->loading);
    const auto limit = Clock::now() + 20s;
    while (stats().prefetch_canceled == 0 && Clock::now() < limit) std::this_thread::sleep_for(10ms);
    EXPECT_EQ(stats().prefetch_canceled, 1U);
    EXPECT_EQ(stats().prefetch_stale, 1U);
    while (stats().prefetch_bytes != 0 && Clock::now() < limit) std::this_thread::sleep_for(5ms);
    EXPECT_EQ(stats().prefetch_bytes, 0U);
    EXPECT_LT(stats().read_blocks, 20U);
}

TEST_F(FileTierTest, AQueryThatWaitsTooLongGetsWhatIsThere) {
    options_.tier.prefetch_time = 1500ms;
    options_.tier.read_bytes_in_flight = 64 << 10;
    options_.tier.threads = 1;
    start({{"delay_us", "300000"}, {"op", "read"}});
    if (IsSkipped()) return;
    save(0, 20);
    engine_->cleanup_memory();
    const auto found = ask(make_hashes(20));
    EXPECT_GT(found.hit_blocks, 0U) << "the front of the prefix was read first";
    EXPECT_LT(found.hit_blocks, 20U);
    EXPECT_EQ(stats().prefetch_expired, 1U);
}

TEST_F(FileTierTest, AFullQueueWaitsItsTurnInsteadOfBecomingAMiss) {
    options_.tier.prefetch_bytes = 10 * (64 << 10);
    start();
    if (IsSkipped()) return;
    save(0, 60);
    engine_->cleanup_memory();
    const auto all = make_hashes(60);
    for (std::size_t r = 0; r < 6; ++r) {
        const std::vector<std::string_view> views(all.begin() + static_cast<std::ptrdiff_t>(r * 10),
                                                  all.begin() + static_cast<std::ptrdiff_t>(r * 10 + 10));
        const std::string request = fmt::format("r{}", r);
        EXPECT_TRUE(engine_->query({.instance_id = "replica", .hashes = views, .request_id = request})->loading);
    }
    for (std::size_t r = 0; r < 6; ++r) {
        const std::vector<std::string> mine(all.begin() + static_cast<std::ptrdiff_t>(r * 10),
                                            all.begin() + static_cast<std::ptrdiff_t>(r * 10 + 10));
        EXPECT_EQ(ask(mine, fmt::format("r{}", r)).hit_blocks, 10U) << r;
    }
}

TEST_F(FileTierTest, ATierThatIsSlowerThanComputingIsAMiss) {
    options_.tier.prefill_tokens_per_second = 1e12;
    start();
    if (IsSkipped()) return;
    save(0, 10);
    engine_->cleanup_memory();
    EXPECT_EQ(ask(make_hashes(10)).hit_blocks, 0U);
    EXPECT_EQ(stats().prefetch_too_slow, 1U);
    EXPECT_EQ(stats().read_blocks, 0U);
}

TEST_F(FileTierTest, SeveralPathsShareTheLoad) {
    options_.tier.paths = {path_ + "/a", path_ + "/b"};
    options_.tier.capacity_bytes = 64 << 20;  // either could take all: how they share is a matter of speed
    fs::create_directories(path_);
    start();
    if (IsSkipped()) return;
    std::uint64_t saved = 0;
    std::vector<TierDeviceInfo> devices;
    do {  // until both have had their turn
        save(saved, 50);
        saved += 50;
        devices = engine_->tier_devices();
        ASSERT_EQ(devices.size(), 2U);
    } while (saved < 400 && (devices[0].blocks == 0 || devices[1].blocks == 0));
    EXPECT_GT(devices[0].blocks, 0U);
    EXPECT_GT(devices[1].blocks, 0U);
    EXPECT_EQ(devices[0].blocks + devices[1].blocks, saved);
    start();
    for (std::uint64_t i = 0; i < saved; ++i) ASSERT_TRUE(hit(i)) << i;
}

TEST_F(FileTierTest, TheWriteBudgetIsKept) {
    options_.tier.write_bytes_per_day = 1 << 20;
    start();
    if (IsSkipped()) return;
    save(0, 40);
    EXPECT_EQ(stats().block_bytes, 1U << 20);
    EXPECT_EQ(stats().skipped_budget, 24U);
    start();
    save(100, 10);
    EXPECT_EQ(stats().block_bytes, 0U) << "a start does not fill the bucket";
    EXPECT_EQ(stats().skipped_budget, 10U);
}

TEST_F(FileTierTest, NoRestartForgetsBytesThatWereWritten) {
    std::uint64_t written = 0;
    for (std::uint64_t round = 0; round < 4; ++round) {
        start();
        if (IsSkipped()) return;
        EXPECT_GE(stats().lifetime_written_bytes, written);
        save(round * 40, 40);
        const TierStats now = stats();
        const std::uint64_t later = stats().lifetime_written_bytes;
        EXPECT_GE(later, written + now.block_bytes + now.table_bytes);
        written = later;
    }
    EXPECT_GE(written, 160U * (64 << 10));
}

TEST_F(FileTierTest, StorageGroupsAreFoundAllOrNothing) {
    replica_ = Replica({.layers = 2, .bytes = 8192, .recurrent_layers = 1});
    start();
    if (IsSkipped()) return;
    const auto hashes = make_hashes(4);
    for (std::uint32_t i = 0; i < 4; ++i) {
        replica_.fill(i, i);
        ASSERT_TRUE(replica_.save(*engine_, {i}, {hashes[i]}, 1));
    }
    ASSERT_TRUE(engine_->flush_to_tier(Clock::now() + 20s));
    engine_->cleanup_memory();
    const auto want = [&](std::vector<std::string> names, const char* request) {
        const std::vector<std::string_view> views(names.begin(), names.end());
        for (;;) {
            const auto found = engine_->query(
                {.instance_id = "replica", .hashes = views, .request_id = request, .group = 1, .whole_prefix_only = true});
            if (!found->loading) return *found;
            std::this_thread::sleep_for(1ms);
        }
    };
    const auto part = want({hashes[0], "nowhere"}, "part");
    EXPECT_FALSE(part.lease);
    const auto whole = want({hashes[0], hashes[2]}, "whole");
    EXPECT_EQ(whole.hit_blocks, 2U);
    ASSERT_TRUE(whole.lease);
    ASSERT_TRUE(replica_.load(*engine_, *whole.lease, {10, 11}, 1));
    EXPECT_EQ(replica_.wrong(10, 0, 1), 0U);
    EXPECT_EQ(replica_.wrong(11, 2, 1), 0U);
}

}  // namespace
}  // namespace pegaflow
