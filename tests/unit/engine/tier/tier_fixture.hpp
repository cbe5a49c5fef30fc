// SPDX-License-Identifier: Apache-2.0
// tier_fixture.hpp - an engine with a tier on real files, a replica that saves into it, and queries that check every byte.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "engine/tier/file_tier.hpp"
#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/unit/engine/replica.hpp"

namespace pegaflow {

namespace fs = std::filesystem;
using testing::make_hashes;
using testing::Replica;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

class TierFixture : public ::testing::Test {
protected:
    TierFixture() {
        path_ = fmt::format("{}/pegaflow_tier_{}_{}", ::testing::TempDir(), ::getpid(),
                            ::testing::UnitTest::GetInstance()->current_test_info()->name());
        options_.pool_bytes = 8 << 20;
        options_.tier.paths = {path_};
        options_.tier.capacity_bytes = 32 << 20;
        options_.tier.segment_bytes = 1 << 20;
        options_.tier.prefetch_time = 5s;
    }
    ~TierFixture() override {
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

}  // namespace pegaflow
