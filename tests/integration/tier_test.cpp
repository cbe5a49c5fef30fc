// SPDX-License-Identifier: Apache-2.0
// A server process with an SSD tier that is stopped, or killed, and started again: every stored block is a hit, byte for byte.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "pegaflow/client.hpp"

namespace pegaflow {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::uint32_t kSlots = 8;
constexpr std::uint64_t kBytes = 64 << 10;

// `pegaflow serve` with a pool that is much smaller than the cache.
class ServerProcess {
public:
    ServerProcess(const std::string& cache, const std::string& log) {
        int out[2];
        EXPECT_EQ(::pipe(out), 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(out[1], STDOUT_FILENO);
            const int error = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
            ::dup2(error, STDERR_FILENO);
            ::close(out[0]);
            ::close(out[1]);
            ::execl(PEGAFLOW_PROGRAM, "pegaflow", "serve", "--server-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                    "--pool-size", "16mb", "--ssd-paths", cache.c_str(), "--ssd-capacity", "256mb", "--ssd-segment-size", "4mb",
                    "--modules-backends", "host", nullptr);
            ::_exit(127);
        }
        ::close(out[1]);
        char line[256] = {};
        for (std::size_t i = 0; i + 1 < sizeof line && ::read(out[0], &line[i], 1) == 1 && line[i] != '\n'; ++i) {
        }
        output_ = out[0];  // open as long as the process: it says when it stops
        std::sscanf(line, "pegaflow %*s serving: grpc port %d admin port %d", &port_, &admin_);
        EXPECT_NE(admin_, 0) << line;
    }
    ~ServerProcess() {
        stop(SIGKILL);
        ::close(output_);
    }
    int stop(int signal) {
        if (pid_ <= 0) return 0;
        ::kill(pid_, signal);
        int status = 0;
        ::waitpid(pid_, &status, 0);
        pid_ = 0;
        return status;
    }
    std::string endpoint() const { return fmt::format("127.0.0.1:{}", port_); }
    std::string get(const std::string& path) const {
        boost::asio::ip::tcp::iostream stream("127.0.0.1", std::to_string(admin_));
        stream << "GET " << path << " HTTP/1.0\r\n\r\n" << std::flush;
        std::ostringstream text;
        text << stream.rdbuf();
        return text.str();
    }
    double metric(const std::string& name) const {
        std::istringstream lines(get("/metrics"));
        for (std::string line; std::getline(lines, line);) {
            if (line.starts_with(name + " ")) return std::strtod(line.c_str() + name.size(), nullptr);
        }
        return -1;
    }

private:
    pid_t pid_ = 0;
    int port_ = 0, admin_ = 0, output_ = -1;
};

class Worker {
public:
    Worker() : name_(fmt::format("pegaflow_tier_{}", ::getpid())) {
        const int fd = ::shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(::ftruncate(fd, kSlots * kBytes), 0);
        data_ = static_cast<std::uint8_t*>(::mmap(nullptr, kSlots * kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        ::close(fd);
    }
    ~Worker() {
        ::munmap(data_, kSlots * kBytes);
        ::shm_unlink(("/" + name_).c_str());
    }
    WorkerRegistration registration() const {
        WorkerRegistration worker;
        worker.instance_id = "w";
        worker.name_space = "test";
        LayerRegistration layer;
        layer.name = "layer";
        layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_SHM, "", name_, nullptr, 0, kSlots * kBytes};
        layer.num_blocks = kSlots;
        layer.bytes_per_block = kBytes;
        worker.layers.push_back(layer);
        return worker;
    }
    static std::uint8_t pattern(std::uint64_t number, std::uint64_t at) {
        return static_cast<std::uint8_t>((number * 2654435761 + at * 40503) >> 7);
    }
    void fill(std::uint32_t slot, std::uint64_t number) {
        for (std::uint64_t i = 0; i < kBytes; ++i) data_[slot * kBytes + i] = pattern(number, i);
    }
    std::uint64_t wrong(std::uint32_t slot, std::uint64_t number) const {
        std::uint64_t count = 0;
        for (std::uint64_t i = 0; i < kBytes; ++i) count += data_[slot * kBytes + i] != pattern(number, i) ? 1 : 0;
        return count;
    }

private:
    std::string name_;
    std::uint8_t* data_ = nullptr;
};

std::string hash_of(std::uint64_t number) { return fmt::format("tier-block-{:021}", number); }

void save(Client& client, Worker& worker, std::uint64_t number) {
    worker.fill(0, number);
    const std::string hash = hash_of(number);
    const std::string_view view = hash;
    const std::uint32_t slot = 0;
    const SaveLayer layer{"layer", {&slot, 1}, {&view, 1}};
    const auto saved = client.save({.instance_id = "w", .layers = {&layer, 1}});
    ASSERT_TRUE(saved) << saved.error().message;
}

// True for a hit whose bytes are right.
bool hit(Client& client, Worker& worker, std::uint64_t number) {
    const std::string hash = hash_of(number);
    const std::string_view view = hash;
    const auto limit = std::chrono::steady_clock::now() + 20s;
    for (;;) {
        const auto found = client.query({.instance_id = "w", .hashes = {&view, 1}, .request_id = hash});
        EXPECT_TRUE(found) << found.error().message;
        if (!found || std::chrono::steady_clock::now() > limit) return false;
        if (found->loading) {
            std::this_thread::sleep_for(1ms);
            continue;
        }
        if (found->hit_blocks == 0) return false;
        auto state = LoadState::create();
        EXPECT_TRUE(state);
        const std::string_view name = "layer";
        const std::span<const std::string_view> group(&name, 1);
        const std::uint32_t slot = 1;
        const std::span<const std::uint32_t> target(&slot, 1);
        const LeaseLoad load{*found->lease, {&target, 1}};
        EXPECT_TRUE(client.load({.instance_id = "w", .layer_groups = {&group, 1}, .loads = {&load, 1}}, state->shm_name()));
        EXPECT_TRUE(state->wait(20s));
        EXPECT_EQ(worker.wrong(1, number), 0U) << number;
        return true;
    }
}

class TierServerTest : public ::testing::Test {
protected:
    TierServerTest() : dir_(fmt::format("{}/pegaflow_tier_server_{}", ::testing::TempDir(), ::getpid())) {
        fs::create_directories(dir_);
    }
    ~TierServerTest() override {
        std::error_code error;
        fs::remove_all(dir_, error);
    }
    void restart_keeps_blocks(int signal) {
        constexpr std::uint64_t kBlocks = 400;  // the pool holds 256
        Worker worker;
        {
            ServerProcess server(dir_ + "/cache", dir_ + "/log");
            if (server.metric("pegaflow_ssd_devices_ok") != 1) GTEST_SKIP() << "the nvme back end cannot be used here";
            auto client = Client::connect({.endpoint = server.endpoint()});
            ASSERT_TRUE(client);
            ASSERT_TRUE((*client)->register_worker(worker.registration()));
            for (std::uint64_t i = 0; i < kBlocks; ++i) {
                save(**client, worker, i);
                if (i % 32 == 31) wait_stored(server, static_cast<double>(i + 1));
            }
            wait_stored(server, kBlocks);
            const int status = server.stop(signal);
            if (signal == SIGTERM) {
                EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
            }
        }
        ServerProcess server(dir_ + "/cache", dir_ + "/log");
        EXPECT_EQ(server.metric("pegaflow_ssd_recovered_blocks"), kBlocks);
        EXPECT_NE(server.get("/health").find("\"recovery_seconds\""), std::string::npos);
        auto client = Client::connect({.endpoint = server.endpoint()});
        ASSERT_TRUE(client);
        ASSERT_TRUE((*client)->register_worker(worker.registration()));
        for (std::uint64_t i = 0; i < kBlocks; ++i) ASSERT_TRUE(hit(**client, worker, i)) << i;
        EXPECT_EQ(server.metric("pegaflow_ssd_digest_mismatches_total"), 0);
    }
    static void wait_stored(const ServerProcess& server, double count) {
        const auto limit = std::chrono::steady_clock::now() + 30s;
        while (server.metric("pegaflow_ssd_stored_blocks_total") < count && std::chrono::steady_clock::now() < limit)
            std::this_thread::sleep_for(5ms);
        ASSERT_EQ(server.metric("pegaflow_ssd_stored_blocks_total"), count);
    }

    std::string dir_;
};

TEST_F(TierServerTest, StoppedByASignalAndStartedAgainItHasEveryBlock) { restart_keeps_blocks(SIGTERM); }

TEST_F(TierServerTest, KilledAndStartedAgainItHasEveryBlock) { restart_keeps_blocks(SIGKILL); }

TEST_F(TierServerTest, APathThatCannotBeUsedMakesItDegradedNotDead) {
    ServerProcess server("/proc/no/such/place", dir_ + "/log");
    const std::string health = server.get("/health");
    EXPECT_NE(health.find("200 OK"), std::string::npos) << health;
    EXPECT_NE(health.find("\"degraded\""), std::string::npos) << health;
    EXPECT_EQ(server.metric("pegaflow_ssd_devices_ok"), 0);
    Worker worker;
    auto client = Client::connect({.endpoint = server.endpoint()});
    ASSERT_TRUE(client);
    ASSERT_TRUE((*client)->register_worker(worker.registration()));
    save(**client, worker, 1);
    EXPECT_TRUE(hit(**client, worker, 1));
}

}  // namespace
}  // namespace pegaflow
