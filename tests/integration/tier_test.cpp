// SPDX-License-Identifier: Apache-2.0
// A server process with an SSD tier that is stopped, or killed, and started again: every stored block is a hit, byte for byte.
// PEGAFLOW_RESTART_GB makes it that many GB of blocks instead of some MiB, PEGAFLOW_RESTART_BLOCK says how large one is
// (default 2 MiB), and PEGAFLOW_RESTART_DIR where they are.
#include <filesystem>

#include "tests/integration/tier_server.hpp"

namespace pegaflow::integration {
namespace {

namespace fs = std::filesystem;

class TierServerTest : public ::testing::Test {
protected:
    TierServerTest() {
        const char* place = std::getenv("PEGAFLOW_RESTART_DIR");
        dir_ = fmt::format("{}/pegaflow_tier_server_{}", place != nullptr ? place : ::testing::TempDir(), ::getpid());
        fs::create_directories(dir_);
        setup_.cache = dir_ + "/cache";
        setup_.log = dir_ + "/log";
    }
    ~TierServerTest() override {
        std::error_code error;
        fs::remove_all(dir_, error);
    }
    // Few small blocks, or as many GB as were asked for; more than the pool holds.
    void choose_size() {
        const char* wanted = std::getenv("PEGAFLOW_RESTART_GB");
        if (wanted == nullptr) return;
        const std::uint64_t bytes = std::strtoull(wanted, nullptr, 10) * 1'000'000'000;
        const char* block = std::getenv("PEGAFLOW_RESTART_BLOCK");
        setup_.block_bytes = block != nullptr ? std::strtoull(block, nullptr, 10) : 2 << 20;
        ASSERT_GT(setup_.block_bytes, 0U) << "PEGAFLOW_RESTART_BLOCK is \"" << block << "\", expected bytes";
        setup_.pool = "1gb";
        setup_.segment = "64mb";
        setup_.capacity = fmt::format("{}mb", bytes / 1'000'000 * 105 / 100 + 1024);
        blocks_ = bytes / setup_.block_bytes + 1;
    }
    void fill(ServerProcess& server, Worker& worker) {
        auto client = Client::connect({.endpoint = server.endpoint()});
        ASSERT_TRUE(client);
        ASSERT_TRUE((*client)->register_worker(worker.registration()));
        for (std::uint64_t i = 0; i < blocks_; ++i) {
            save(**client, worker, i);
            if (i % 32 == 31) wait_stored(server, static_cast<double>(i + 1));
            if (HasFatalFailure()) return;
        }
        wait_stored(server, static_cast<double>(blocks_));
    }
    void restart_keeps_blocks(int signal) {
        choose_size();
        if (HasFatalFailure()) return;
        Worker worker(setup_.block_bytes);
        {
            ServerProcess server(setup_);
            if (server.metric("pegaflow_ssd_devices_ok") != 1) GTEST_SKIP() << "the nvme back end cannot be used here";
            fill(server, worker);
            if (HasFatalFailure()) return;
            const int status = server.stop(signal);
            if (signal == SIGTERM) {
                EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
            }
        }
        const auto begin = std::chrono::steady_clock::now();
        ServerProcess server(setup_);
        const std::chrono::duration<double> until_serving = std::chrono::steady_clock::now() - begin;
        EXPECT_EQ(server.metric("pegaflow_ssd_recovered_blocks"), blocks_);
        auto client = Client::connect({.endpoint = server.endpoint()});
        ASSERT_TRUE(client);
        ASSERT_TRUE((*client)->register_worker(worker.registration()));
        std::uint64_t hits = 0;
        for (std::uint64_t i = 0; i < blocks_; ++i) hits += hit(**client, worker, i) ? 1 : 0;
        EXPECT_EQ(hits, blocks_);
        EXPECT_EQ(server.metric("pegaflow_ssd_digest_mismatches_total"), 0);
        report(server, hits, until_serving.count());
    }
    void report(const ServerProcess& server, std::uint64_t hits, double until_serving) {
        const std::string health = server.get("/health");
        const std::size_t at = health.find("\"recovery_seconds\":");
        ASSERT_NE(at, std::string::npos) << health;
        const double recovery = std::strtod(health.c_str() + at + std::strlen("\"recovery_seconds\":"), nullptr);
        fmt::print("{} blocks of {} bytes: {} hits, recovered in {:.3f} s, serving after {:.3f} s\n", blocks_,
                   setup_.block_bytes, hits, recovery, until_serving);
        RecordProperty("blocks", std::to_string(blocks_));
        RecordProperty("block_bytes", std::to_string(setup_.block_bytes));
        RecordProperty("hits", std::to_string(hits));
        RecordProperty("recovery_seconds", fmt::format("{:.4f}", recovery));
        RecordProperty("seconds_until_serving", fmt::format("{:.4f}", until_serving));
    }

    std::string dir_;
    TierSetup setup_;
    std::uint64_t blocks_ = 400;  // the pool holds 256
};

TEST_F(TierServerTest, StoppedByASignalAndStartedAgainItHasEveryBlock) { restart_keeps_blocks(SIGTERM); }

TEST_F(TierServerTest, KilledAndStartedAgainItHasEveryBlock) { restart_keeps_blocks(SIGKILL); }

TEST_F(TierServerTest, APathThatCannotBeUsedMakesItDegradedNotDead) {
    setup_.cache = "/proc/no/such/place";
    ServerProcess server(setup_);
    const std::string health = server.get("/health");
    EXPECT_NE(health.find("200 OK"), std::string::npos) << health;
    EXPECT_NE(health.find("\"degraded\""), std::string::npos) << health;
    EXPECT_EQ(server.metric("pegaflow_ssd_devices_ok"), 0);
    Worker worker(setup_.block_bytes);
    auto client = Client::connect({.endpoint = server.endpoint()});
    ASSERT_TRUE(client);
    ASSERT_TRUE((*client)->register_worker(worker.registration()));
    save(**client, worker, 1);
    EXPECT_TRUE(hit(**client, worker, 1));
}

}  // namespace
}  // namespace pegaflow::integration
