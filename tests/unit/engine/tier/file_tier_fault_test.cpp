// SPDX-License-Identifier: Apache-2.0
// A tier on devices that lie, fail, hang, or hold something else: the engine goes on without it, and says so.
#include "engine/tier/file_tier.hpp"
#include "tests/unit/engine/tier/fake_device.hpp"
#include "tests/unit/engine/tier/tier_fixture.hpp"

namespace pegaflow {
namespace {

class FileTierFaultTest : public TierFixture {};

TEST_F(FileTierFaultTest, WrongBytesAreAMissOnceAndGoneAfterwards) {
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

TEST_F(FileTierFaultTest, ADeviceThatLiesIsNoticedOnEveryRead) {
    start();
    if (IsSkipped()) return;
    save(0, 20);
    start({{"corrupt", "1"}, {"op", "read"}});
    for (std::uint64_t i = 0; i < 20; ++i) EXPECT_FALSE(hit(i)) << i;
    EXPECT_EQ(stats().digest_mismatches, 20U);
    EXPECT_EQ(stats().quarantined_blocks, 20U);
    EXPECT_EQ(stats().blocks, 0U);
}

TEST_F(FileTierFaultTest, ADeviceThatVanishesLeavesAnEngineThatWorks) {
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

TEST_F(FileTierFaultTest, AfterAFailedWriteThePauseEndsAndBlocksAreStoredAgain) {
    start({{"fail", "0.1:REGION_LOST"}, {"op", "write"}, {"seed", "5"}});
    if (IsSkipped()) return;
    const auto limit = Clock::now() + 30s;
    std::uint64_t next = 0;
    std::uint64_t stored_at_failure = 0;
    while (Clock::now() < limit) {
        save(next++, 1);
        const TierStats now = stats();
        if (now.write_failures == 0) continue;
        if (stored_at_failure == 0) stored_at_failure = now.stored_blocks + 1;
        if (now.stored_blocks > stored_at_failure) break;
        std::this_thread::sleep_for(5ms);
    }
    EXPECT_GT(stats().write_failures, 0U);
    EXPECT_GT(stats().stored_blocks, stored_at_failure);
}

TEST_F(FileTierFaultTest, ADeviceThatHangsHoldsUpNobody) {
    start();
    if (IsSkipped()) return;
    save(0, 10);
    options_.tier.io_time = 100ms;
    options_.tier.prefetch_time = 300ms;
    start({{"hang", "1"}, {"op", "read"}});
    const auto begin = Clock::now();
    EXPECT_EQ(ask(make_hashes(10)).hit_blocks, 0U);
    EXPECT_LT(Clock::now() - begin, 5s);
    EXPECT_GT(stats().read_failures, 0U);
    const auto closing = Clock::now();
    engine_.reset();
    EXPECT_LT(Clock::now() - closing, 5s);
}

// An interposer that delays what has ended long ago cannot cancel it: like a kernel that waits for a device.
TEST_F(FileTierFaultTest, AWriteThatCannotBeCancelledStopsWritingUntilItEnds) {
    options_.tier.io_time = 50ms;
    start({{"delay_us", "400000"}, {"op", "write"}});
    if (IsSkipped()) return;
    const auto hashes = make_hashes(4000);
    bool hung = false;
    const auto limit = Clock::now() + 30s;
    for (std::uint64_t i = 0; i < hashes.size() && stats().stored_blocks == 0 && Clock::now() < limit; ++i) {
        replica_.fill(0, i);
        ASSERT_TRUE(replica_.save(*engine_, {0}, {hashes[i]}));
        const TierDeviceInfo device = engine_->tier_devices()[0];
        if (device.problem.starts_with("hanging: ")) {
            hung = true;
            EXPECT_EQ(device.state, "degraded");
        }
        std::this_thread::sleep_for(5ms);
    }
    EXPECT_TRUE(hung);
    EXPECT_GT(stats().stored_blocks, 0U) << "when it has ended, the path is tried again";
}

TEST_F(FileTierFaultTest, AReadThatCannotBeCancelledMakesMissesUntilItEnds) {
    start();
    if (IsSkipped()) return;
    save(0, 3);
    options_.tier.io_time = 50ms;
    options_.tier.prefetch_time = 200ms;
    start({{"delay_us", "2000000"}, {"op", "read"}});
    const auto hashes = make_hashes(3);
    const auto begin = Clock::now();
    EXPECT_EQ(ask(hashes).hit_blocks, 0U);
    EXPECT_LT(Clock::now() - begin, 10s);
    EXPECT_TRUE(engine_->tier_devices()[0].problem.starts_with("hanging: ")) << engine_->tier_devices()[0].problem;
    EXPECT_FALSE(engine_->stored("replica", hashes[1])) << "nobody is sent there";
    const auto limit = Clock::now() + 30s;
    while (!engine_->stored("replica", hashes[1]) && Clock::now() < limit) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(engine_->stored("replica", hashes[1]));
    EXPECT_EQ(engine_->tier_devices()[0].problem, "");
}

TEST_F(FileTierFaultTest, AnEngineWithoutADeadlineClosesWhenWhatIsLateHasEnded) {
    options_.tier.io_time = 50ms;
    start({{"delay_us", "400000"}, {"op", "write"}});
    if (IsSkipped()) return;
    replica_.fill(0, 0);
    ASSERT_TRUE(replica_.save(*engine_, {0}, {make_hashes(1)[0]}));
    const auto limit = Clock::now() + 10s;
    std::string problem;
    while (problem.empty() && Clock::now() < limit) {
        std::this_thread::sleep_for(1ms);
        problem = engine_->tier_devices()[0].problem;
    }
    ASSERT_NE(problem, "");
    engine_.reset();
    start();
    EXPECT_EQ(engine_->tier_devices()[0].state, "ok") << "nothing was left behind that has it";
}

// What the device still has must stay where it is, also when nobody waits for it any more.
TEST_F(FileTierFaultTest, ATransferThatNeverEndsDoesNotKeepTheEngineFromClosing) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "what is kept on purpose until the process ends, threads included, is a leak or a race to the sanitizers";
#endif
    const auto usual = options_.tier.io_time;
    for (const char* op : {"write", "read"}) {
        options_.tier.io_time = usual;
        start();
        if (IsSkipped()) return;
        save(0, 3);
        options_.tier.io_time = 100ms;
        start({{"delay_us", "4000000"}, {"op", op}});
        if (std::string(op) == "write") {
            replica_.fill(0, 10);
            ASSERT_TRUE(replica_.save(*engine_, {0}, {make_hashes(11)[10]}));
            const auto limit = Clock::now() + 10s;
            while (engine_->tier_devices()[0].problem.empty() && Clock::now() < limit) std::this_thread::sleep_for(1ms);
        } else {
            const auto hashes = make_hashes(3);
            const std::vector<std::string_view> views(hashes.begin(), hashes.end());
            EXPECT_TRUE(engine_->query({.instance_id = "replica", .hashes = views, .request_id = "r"})->loading);
        }
        const auto begin = Clock::now();
        engine_->close(begin + 10ms);
        engine_.reset();
        fabric_.reset();
        EXPECT_LT(Clock::now() - begin, 3500ms) << op << ": before it has ended";
        std::this_thread::sleep_for(4500ms);  // its end finds everything that it needs
        fs::remove_all(path_);
    }
}

TEST_F(FileTierFaultTest, APathThatCannotBeUsedIsReportedAndLeftAsItIs) {
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

TEST_F(FileTierFaultTest, AContainerOfALaterVersionIsLeftAlone) {
    start();
    if (IsSkipped()) return;
    save(0, 3);
    engine_.reset();
    std::vector<char> before(1 << 20);
    {
        std::fstream data(file(), std::ios::in | std::ios::out | std::ios::binary);
        std::vector<std::byte> block(engine::tier::kBlockBytes);
        data.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(block.size()));
        engine::tier::set_version(block, 9);
        data.seekp(0);
        for (int i = 0; i < 2; ++i)  // the copy follows
            data.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(block.size()));
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

TEST_F(FileTierFaultTest, TwoEnginesDoNotShareAContainer) {
    start();
    if (IsSkipped()) return;
    auto second = Engine::create(options_, *fabric_);
    ASSERT_TRUE(second) << second.error().message;
    EXPECT_EQ((*second)->tier_devices()[0].state, "failed");
    EXPECT_NE((*second)->tier_devices()[0].problem.find("in use"), std::string::npos);
}

TEST_F(FileTierFaultTest, ImpossibleOptionsAreRefused) {
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
