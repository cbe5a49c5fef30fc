// SPDX-License-Identifier: Apache-2.0
// The engine with a tier on real files: what goes down comes up again, over restarts, byte for byte.
#include "engine/tier/file_tier.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/unit/engine/replica.hpp"

namespace pegaflow {
namespace {

namespace fs = std::filesystem;
using testing::make_hashes;
using testing::Replica;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

class FileTierTest : public ::testing::Test {
protected:
    FileTierTest() {
        path_ = fmt::format("{}/pegaflow_tier_{}_{}", ::testing::TempDir(), ::getpid(),
                            ::testing::UnitTest::GetInstance()->current_test_info()->name());
        options_.pool_bytes = 8 << 20;
        options_.tier.paths = {path_};
        options_.tier.capacity_bytes = 32 << 20;
        options_.tier.segment_bytes = 1 << 20;
        options_.tier.prefetch_time = 5s;
    }
    ~FileTierTest() override {
        engine_.reset();
        fabric_.reset();
        std::error_code error;
        fs::remove_all(path_, error);
    }
    void start(std::map<std::string, std::string> faults = {}) {
        engine_.reset();
        fabric_.reset();
        FabricOptions options{.backends = {"host", "nvme"}};
        if (!faults.empty()) {
            options.wrap = {{"fault", "nvme"}};
            options.options["fault"] = std::move(faults);
        }
        auto fabric = Fabric::open(options);
        if (!fabric) GTEST_SKIP() << "the nvme back end cannot be used here: " << fabric.error().message;
        fabric_ = std::move(*fabric);
        auto engine = Engine::create(options_, *fabric_);
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = std::move(*engine);
        ASSERT_TRUE(engine_->register_worker(replica_.registration()));
    }
    // Saves blocks [first, first + count) of an endless series, each with the bytes of its number.
    void save(std::uint64_t first, std::uint64_t count) {
        const auto hashes = make_hashes(first + count);
        for (std::uint64_t i = first; i < first + count; ++i) {
            replica_.fill(0, i);
            const auto saved = replica_.save(*engine_, {0}, {hashes[i]});
            ASSERT_TRUE(saved) << saved.error().message;
            // Faster than the device, some would leave the pool before their turn to be written.
            if (i % 32 == 31) {
                ASSERT_TRUE(engine_->flush_to_tier(Clock::now() + 20s));
            }
        }
        ASSERT_TRUE(engine_->flush_to_tier(Clock::now() + 20s));
    }
    QueryOutcome ask(const std::vector<std::string>& hashes, const std::string& request = "r",
                     std::uint64_t* loading = nullptr) {
        const std::vector<std::string_view> views(hashes.begin(), hashes.end());
        for (;;) {
            const auto found = engine_->query({.instance_id = "replica", .hashes = views, .request_id = request});
            EXPECT_TRUE(found) << found.error().message;
            if (!found || !found->loading) return found ? *found : QueryOutcome{};
            if (loading != nullptr) ++*loading;
            std::this_thread::sleep_for(1ms);
        }
    }
    // Asks for one block, and checks every byte when it is a hit.
    bool hit(std::uint64_t number) {
        const auto found = ask({make_hashes(number + 1)[number]}, fmt::format("r{}", number));
        if (found.hit_blocks == 0) return false;
        replica_.poison(1);
        const auto loaded = replica_.load(*engine_, *found.lease, {1});
        EXPECT_TRUE(loaded) << loaded.error().message;
        EXPECT_EQ(replica_.wrong(1, number), 0U) << "block " << number;
        return true;
    }
    TierStats stats() const { return engine_->stats().tier; }
    fs::path file() const { return path_ + "/" + engine::tier::kContainerFile; }

    std::string path_;
    EngineOptions options_;
    Replica replica_{{.layers = 4, .bytes = 8192}};  // 64 KiB a block
    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
};

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
    start({{"delay_us", "20000"}, {"op", "read"}});
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
    start({{"delay_us", "30000"}, {"op", "read"}});
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
    const auto limit = Clock::now() + 5s;
    while (stats().prefetch_canceled == 0 && Clock::now() < limit) std::this_thread::sleep_for(10ms);
    EXPECT_EQ(stats().prefetch_canceled, 1U);
    std::this_thread::sleep_for(100ms);
    EXPECT_LT(stats().read_blocks, 10U);
    EXPECT_EQ(stats().prefetch_bytes, 0U);
}

TEST_F(FileTierTest, AQueryThatWaitsTooLongGetsWhatIsThere) {
    options_.tier.prefetch_time = 100ms;
    options_.tier.read_bytes_in_flight = 64 << 10;
    options_.tier.threads = 1;
    start({{"delay_us", "30000"}, {"op", "read"}});
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

TEST_F(FileTierTest, WrongBytesAreAMissOnceAndGoneAfterwards) {
    start();
    if (IsSkipped()) return;
    save(0, 10);
    engine_.reset();
    {
        // One byte of every page: the scan at the start drops them all, or the reads do.
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        data.seekg(1 << 20);
        std::vector<char> segment(1 << 20);
        data.read(segment.data(), static_cast<std::streamsize>(segment.size()));
        for (std::size_t i = 8192 + 100; i < 400'000; i += 65'536) segment[i] ^= 1;
        data.seekp(1 << 20);
        data.write(segment.data(), static_cast<std::streamsize>(segment.size()));
    }
    start();
    std::uint64_t hits = 0;
    for (std::uint64_t i = 0; i < 10; ++i) hits += hit(i) ? 1 : 0;
    EXPECT_LT(hits, 10U);
    EXPECT_GT(stats().recovery_dropped + stats().digest_mismatches, 0U);
}

TEST_F(FileTierTest, ADeviceThatLiesIsNoticedOnEveryRead) {
    start();
    if (IsSkipped()) return;
    save(0, 20);
    start({{"corrupt", "1"}, {"op", "read"}});
    for (std::uint64_t i = 0; i < 20; ++i) EXPECT_FALSE(hit(i)) << i;
    EXPECT_EQ(stats().digest_mismatches, 20U);
    EXPECT_EQ(stats().quarantined_blocks, 20U);
    EXPECT_EQ(stats().blocks, 0U);
}

TEST_F(FileTierTest, ADeviceThatVanishesLeavesAnEngineThatWorks) {
    start({{"fail", "1:REGION_LOST"}, {"after", "12"}});
    if (IsSkipped()) return;
    save(0, 100);
    const auto devices = engine_->tier_devices();
    ASSERT_EQ(devices.size(), 1U);
    EXPECT_EQ(devices[0].state, "degraded");
    EXPECT_NE(devices[0].problem, "");
    EXPECT_GT(stats().write_failures, 0U);
    EXPECT_EQ(stats().devices_ok, 0U);
    EXPECT_TRUE(hit(99)) << "the pool goes on";
    engine_->cleanup_memory();
    for (std::uint64_t i = 0; i < 12; ++i) EXPECT_FALSE(hit(i));
    save(200, 5);
    EXPECT_TRUE(hit(203));
}

TEST_F(FileTierTest, ADeviceThatHangsHoldsUpNobody) {
    options_.tier.io_time = 100ms;
    options_.tier.prefetch_time = 300ms;
    start();
    if (IsSkipped()) return;
    save(0, 10);
    start({{"hang", "1"}, {"op", "read"}});
    const auto begin = Clock::now();
    EXPECT_EQ(ask(make_hashes(10)).hit_blocks, 0U);
    EXPECT_LT(Clock::now() - begin, 5s);
    EXPECT_GT(stats().read_failures, 0U);
    const auto closing = Clock::now();
    engine_.reset();
    EXPECT_LT(Clock::now() - closing, 5s);
}

TEST_F(FileTierTest, APathThatCannotBeUsedIsReportedAndLeftAsItIs) {
    fs::create_directories(path_);
    {
        std::ofstream(file()) << "somebody else's bytes";
    }
    start();
    if (IsSkipped()) return;
    EXPECT_EQ(engine_->tier_devices()[0].state, "failed");
    EXPECT_NE(engine_->tier_devices()[0].problem.find("left as it is"), std::string::npos);
    save(0, 3);
    EXPECT_TRUE(hit(1));
    std::ifstream back(file());
    std::string text;
    std::getline(back, text);
    EXPECT_EQ(text, "somebody else's bytes");
}

TEST_F(FileTierTest, AContainerOfALaterVersionIsLeftAlone) {
    start();
    if (IsSkipped()) return;
    save(0, 3);
    engine_.reset();
    std::vector<char> before(1 << 20);
    {
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        data.seekp(8);
        data.put(9);
        data.seekg(0);
        data.read(before.data(), static_cast<std::streamsize>(before.size()));
    }
    start();
    EXPECT_EQ(engine_->tier_devices()[0].state, "failed");
    EXPECT_NE(engine_->tier_devices()[0].problem.find("version 9"), std::string::npos) << engine_->tier_devices()[0].problem;
    std::vector<char> after(1 << 20);
    std::ifstream(file(), std::ios::binary).read(after.data(), static_cast<std::streamsize>(after.size()));
    EXPECT_EQ(before, after);
}

TEST_F(FileTierTest, TwoEnginesDoNotShareAContainer) {
    start();
    if (IsSkipped()) return;
    auto second = Engine::create(options_, *fabric_);
    ASSERT_TRUE(second) << second.error().message;
    EXPECT_EQ((*second)->tier_devices()[0].state, "failed");
    EXPECT_NE((*second)->tier_devices()[0].problem.find("in use"), std::string::npos);
}

TEST_F(FileTierTest, SeveralPathsShareTheLoad) {
    options_.tier.paths = {path_ + "/a", path_ + "/b"};
    fs::create_directories(path_);
    start();
    if (IsSkipped()) return;
    save(0, 250);
    const auto devices = engine_->tier_devices();
    ASSERT_EQ(devices.size(), 2U);
    EXPECT_GT(devices[0].blocks, 0U);
    EXPECT_GT(devices[1].blocks, 0U);
    EXPECT_EQ(devices[0].blocks + devices[1].blocks, 250U);
    start();
    for (std::uint64_t i = 0; i < 250; ++i) ASSERT_TRUE(hit(i)) << i;
}

TEST_F(FileTierTest, TheWriteBudgetIsKept) {
    options_.tier.write_bytes_per_day = 1 << 20;
    start();
    if (IsSkipped()) return;
    save(0, 40);
    EXPECT_EQ(stats().block_bytes, 1U << 20);
    EXPECT_EQ(stats().skipped_budget, 24U);
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

TEST_F(FileTierTest, ImpossibleOptionsAreRefused) {
    start();
    if (IsSkipped()) return;
    engine_.reset();
    EngineOptions bad = options_;
    bad.digests = false;
    EXPECT_EQ(Engine::create(bad, *fabric_).error().code, Code::kInvalid);
    bad = options_;
    bad.tier.segment_bytes = 4096;
    EXPECT_EQ(Engine::create(bad, *fabric_).error().code, Code::kInvalid);
    bad = options_;
    bad.tier.capacity_bytes = 2 << 20;
    auto engine = Engine::create(bad, *fabric_);
    ASSERT_TRUE(engine) << "it may have been enough before";
    EXPECT_EQ((*engine)->tier_devices()[0].state, "failed");
}

}  // namespace
}  // namespace pegaflow
