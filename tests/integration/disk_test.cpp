// SPDX-License-Identifier: Apache-2.0
// A server whose cache lies on a disk that is full, becomes read-only, or goes away: it goes on serving, and says what is
// wrong.
#include <fcntl.h>

#include <filesystem>
#include <fstream>

#include "tests/integration/tier_server.hpp"

namespace pegaflow::integration {
namespace {

namespace fs = std::filesystem;

int run(const std::string& command) { return std::system(("{ " + command + "; } >/dev/null 2>&1").c_str()); }

class DiskTest : public ::testing::Test {
protected:
    DiskTest()
        : dir_(fmt::format("{}/pegaflow_disk_{}_{}", ::testing::TempDir(), ::getpid(),
                           ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
        fs::create_directories(disk());
        setup_.log = dir_ + "/log";
    }
    ~DiskTest() override {
        server_.reset();
        // The kernel may still take the ring of the server apart.
        for (int i = 0; mounted_ && i < 100 && run("umount " + disk()) != 0; ++i) std::this_thread::sleep_for(50ms);
        std::error_code error;
        fs::remove_all(dir_, error);
    }
    std::string disk() const { return dir_ + "/disk"; }
    std::string image() const { return dir_ + "/image"; }
    // An ext4 file system of its own, read-only after its first error.
    bool make_disk(std::uint64_t mebibytes) {
        std::ofstream(image()).close();
        fs::resize_file(image(), mebibytes << 20);
        mounted_ = ::getuid() == 0 && run("mkfs.ext4 -q -F " + image()) == 0 &&
                   run(fmt::format("mount -o loop,errors=remount-ro {} {}", image(), disk())) == 0;
        setup_.cache = disk() + "/cache";
        return mounted_;
    }
    // Null when there is no server with a cache here.
    Client* start() {
        server_ = std::make_unique<ServerProcess>(setup_);
        if (server_->metric("pegaflow_ssd_devices_ok") != 1) return nullptr;
        client_ = std::move(*Client::connect({.endpoint = server_->endpoint()}));
        EXPECT_TRUE(client_->register_worker(worker_.registration()));
        return client_.get();
    }
    void save_all(std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = first; i < first + count; ++i) {
            save(*client_, worker_, i);
            if (i % 32 == 31) wait_written();
        }
        wait_written();
    }
    // Until nothing waits to be written: it is stored, or was given up.
    void wait_written() const {
        const auto limit = std::chrono::steady_clock::now() + 30s;
        while (server_->metric("pegaflow_ssd_write_queue_blocks") != 0 && std::chrono::steady_clock::now() < limit)
            std::this_thread::sleep_for(2ms);
    }
    // Saves until the tier says that it does not work.
    void save_until_degraded(std::uint64_t first) {
        const auto limit = std::chrono::steady_clock::now() + 30s;
        std::uint64_t next = first;
        while (server_->metric("pegaflow_ssd_devices_ok") != 0 && std::chrono::steady_clock::now() < limit)
            save(*client_, worker_, next++);
    }
    void expect_degraded(const std::string& why) {
        const std::string health = server_->get("/health");
        EXPECT_NE(health.find("200 OK"), std::string::npos) << health;
        EXPECT_NE(health.find("\"status\":\"degraded\""), std::string::npos) << health;
        EXPECT_NE(health.find(why), std::string::npos) << health;
        EXPECT_EQ(server_->metric("pegaflow_ssd_devices_ok"), 0);
    }
    // Saved and found again without the tier.
    void expect_serving(std::uint64_t number) {
        save(*client_, worker_, number);
        EXPECT_TRUE(hit(*client_, worker_, number));
    }
    std::uint64_t hits(std::uint64_t first, std::uint64_t count) {
        std::uint64_t found = 0;
        for (std::uint64_t i = first; i < first + count; ++i) found += hit(*client_, worker_, i) ? 1 : 0;
        return found;
    }

    const std::string dir_;
    bool mounted_ = false;
    TierSetup setup_;
    Worker worker_{setup_.block_bytes};
    std::unique_ptr<ServerProcess> server_;
    std::unique_ptr<Client> client_;
};

TEST_F(DiskTest, OnADiskThatIsTooSmallTheCacheIsSmaller) {
    if (!make_disk(64)) GTEST_SKIP() << "no file system can be mounted here";
    if (start() == nullptr) GTEST_SKIP() << "the nvme back end cannot be used here";
    save_all(0, 1600);  // 100 MiB
    EXPECT_EQ(server_->metric("pegaflow_ssd_stored_blocks_total"), 1600);
    EXPECT_GT(server_->metric("pegaflow_ssd_evicted_segments_total"), 0);
    EXPECT_NE(server_->get("/health").find("\"status\":\"ok\""), std::string::npos) << server_->get("/health");
    EXPECT_EQ(hits(1000, 600), 600U) << "what was saved last is there";
    EXPECT_EQ(hits(0, 1), 0U) << "what was saved first made room";
}

TEST_F(DiskTest, OnAFullDiskItServesWithoutTheCache) {
    if (!make_disk(64)) GTEST_SKIP() << "no file system can be mounted here";
    if (start() == nullptr) GTEST_SKIP() << "the nvme back end cannot be used here";
    run(fmt::format("dd if=/dev/zero of={}/filler bs=64k", disk()));  // ends with ENOSPC
    save_until_degraded(0);
    expect_degraded("no room");
    EXPECT_EQ(server_->metric("pegaflow_ssd_stored_blocks_total"), 0);
    expect_serving(100'000);
}

TEST_F(DiskTest, OnAReadOnlyDiskItGoesOnReading) {
    if (!make_disk(256)) GTEST_SKIP() << "no file system can be mounted here";
    if (start() == nullptr) GTEST_SKIP() << "the nvme back end cannot be used here";
    save_all(0, 600);
    const double stored = server_->metric("pegaflow_ssd_stored_blocks_total");
    EXPECT_EQ(stored, 600);
    // The kernel makes the file system read-only after an error, which it can be told to see.
    if (run(fmt::format("echo test > /sys/fs/ext4/$(basename $(findmnt -no SOURCE {}))/trigger_fs_error", disk())) != 0)
        GTEST_SKIP() << "this kernel cannot be told of an error of the file system";
    save_until_degraded(10'000);
    expect_degraded("writing: ");
    expect_serving(100'000);
    EXPECT_EQ(hits(0, 600), 600U) << "what was stored can still be read";
    EXPECT_EQ(server_->metric("pegaflow_ssd_digest_mismatches_total"), 0);
}

TEST_F(DiskTest, WhenTheDiskGoesAwayItServesWithoutTheCache) {
    if (!make_disk(256)) GTEST_SKIP() << "no file system can be mounted here";
    if (start() == nullptr) GTEST_SKIP() << "the nvme back end cannot be used here";
    save_all(0, 600);
    fs::resize_file(image(), 0);  // every access of the loop device fails from now on
    EXPECT_EQ(hits(0, 100), 0U) << "what cannot be read is a miss";
    save_until_degraded(10'000);
    expect_degraded("ing: ");
    expect_serving(100'000);
    EXPECT_GT(server_->metric("pegaflow_ssd_read_failures_total"), 0);
    EXPECT_EQ(server_->stop(SIGTERM), 0) << "and it ends as it should";
}

TEST_F(DiskTest, WhenTheBackEndLosesItsDeviceItServesWithoutTheCache) {
    const std::string file = dir_ + "/config.toml";
    std::ofstream(file)
        << "[modules]\nbackends = [\"host\"]\nwrap = [\"fault=nvme\"]\n[module.fault]\nfail = \"1:REGION_LOST\"\n"
           "after = \"400\"\n";
    setup_.cache = dir_ + "/cache";
    setup_.further = {"--config", file};
    if (start() == nullptr) GTEST_SKIP() << "the nvme back end cannot be used here";
    save_until_degraded(0);
    expect_degraded("writing: ");
    EXPECT_GT(server_->metric("pegaflow_ssd_stored_blocks_total"), 0) << "it worked for a while";
    for (std::uint64_t i = 0; i < 300; ++i) save(*client_, worker_, 50'000 + i);  // more than memory holds
    EXPECT_EQ(hits(0, 20), 0U) << "what cannot be read is a miss";
    expect_serving(100'000);
    EXPECT_EQ(server_->stop(SIGTERM), 0);
}

}  // namespace
}  // namespace pegaflow::integration
