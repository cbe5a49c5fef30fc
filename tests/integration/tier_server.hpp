// SPDX-License-Identifier: Apache-2.0
// tier_server.hpp - a server process with an SSD tier, and a client whose blocks have bytes that follow from their numbers.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "pegaflow/client.hpp"

namespace pegaflow::integration {

using namespace std::chrono_literals;

constexpr std::uint32_t kSlots = 8;

struct TierSetup {
    std::string cache, log;  // without a cache there is no tier
    std::uint64_t block_bytes = 64 << 10;
    std::string pool = "16mb", capacity = "256mb", segment = "4mb";
    std::vector<std::string> further;  // arguments of the server
};

// `pegaflow serve` with a pool that is much smaller than the cache.
class ServerProcess {
public:
    explicit ServerProcess(const TierSetup& setup) {
        std::vector<std::string> words = {"pegaflow",       "serve",       "--server-listen", "127.0.0.1:0",
                                          "--admin-listen", "127.0.0.1:0", "--pool-size",     setup.pool};
        if (!setup.cache.empty()) {
            words.insert(words.end(),
                         {"--ssd-paths", setup.cache, "--ssd-capacity", setup.capacity, "--ssd-segment-size", setup.segment});
        }
        words.insert(words.end(), setup.further.begin(), setup.further.end());
        if (setup.further.empty()) words.insert(words.end(), {"--modules-backends", "host"});
        std::vector<char*> arguments;
        for (std::string& word : words) arguments.push_back(word.data());
        arguments.push_back(nullptr);
        int out[2];
        EXPECT_EQ(::pipe(out), 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(out[1], STDOUT_FILENO);
            const int error = ::open(setup.log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
            ::dup2(error, STDERR_FILENO);
            ::close(out[0]);
            ::close(out[1]);
            ::execv(PEGAFLOW_PROGRAM, arguments.data());
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
        kill(signal);
        return wait();
    }
    void kill(int signal) const { ::kill(pid_, signal); }
    int wait() {
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
    explicit Worker(std::uint64_t block_bytes) : bytes_(block_bytes), name_(fmt::format("pegaflow_tier_{}", ::getpid())) {
        const int fd = ::shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(::ftruncate(fd, kSlots * bytes_), 0);
        data_ = static_cast<std::uint8_t*>(::mmap(nullptr, kSlots * bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        ::close(fd);
    }
    ~Worker() {
        ::munmap(data_, kSlots * bytes_);
        ::shm_unlink(("/" + name_).c_str());
    }
    WorkerRegistration registration() const {
        WorkerRegistration worker;
        worker.instance_id = "w";
        worker.name_space = "test";
        LayerRegistration layer;
        layer.name = "layer";
        layer.memory = {PEGA_MEMORY_HOST, PEGA_SOURCE_SHM, "", name_, nullptr, 0, kSlots * bytes_};
        layer.num_blocks = kSlots;
        layer.bytes_per_block = bytes_;
        worker.layers.push_back(layer);
        return worker;
    }
    void fill(std::uint32_t slot, std::uint64_t number) { pattern(number, data_ + slot * bytes_); }
    void poison(std::uint32_t slot) { std::memset(data_ + slot * bytes_, 0xEE, bytes_); }
    bool right(std::uint32_t slot, std::uint64_t number) {
        pattern(number, expected_.data());
        return std::memcmp(expected_.data(), data_ + slot * bytes_, bytes_) == 0;
    }

private:
    void pattern(std::uint64_t number, std::uint8_t* out) const {
        std::uint64_t state = number * 0x9e3779b97f4a7c15ULL + 1;
        for (std::uint64_t i = 0; i < bytes_; i += 8) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            std::memcpy(out + i, &state, 8);
        }
    }

    const std::uint64_t bytes_;
    std::string name_;
    std::uint8_t* data_ = nullptr;
    std::vector<std::uint8_t> expected_ = std::vector<std::uint8_t>(bytes_);
};

inline std::string hash_of(std::uint64_t number) { return fmt::format("tier-block-{:021}", number); }

inline void save(Client& client, Worker& worker, std::uint64_t number) {
    worker.fill(0, number);
    const std::string hash = hash_of(number);
    const std::string_view view = hash;
    const std::uint32_t slot = 0;
    const SaveLayer layer{"layer", {&slot, 1}, {&view, 1}};
    const auto saved = client.save({.instance_id = "w", .layers = {&layer, 1}});
    ASSERT_TRUE(saved) << saved.error().message;
}

// True for a hit; every byte of it is checked.
inline bool hit(Client& client, Worker& worker, std::uint64_t number) {
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
        worker.poison(1);
        auto state = LoadState::create();
        EXPECT_TRUE(state);
        const std::string_view name = "layer";
        const std::span<const std::string_view> group(&name, 1);
        const std::uint32_t slot = 1;
        const std::span<const std::uint32_t> target(&slot, 1);
        const LeaseLoad load{*found->lease, {&target, 1}};
        EXPECT_TRUE(client.load({.instance_id = "w", .layer_groups = {&group, 1}, .loads = {&load, 1}}, state->shm_name()));
        EXPECT_TRUE(state->wait(20s));
        EXPECT_TRUE(worker.right(1, number)) << number;
        return true;
    }
}

// Waits until the server has stored as many blocks.
inline void wait_stored(const ServerProcess& server, double count) {
    const auto limit = std::chrono::steady_clock::now() + 60s;
    while (server.metric("pegaflow_ssd_stored_blocks_total") < count && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(5ms);
    ASSERT_EQ(server.metric("pegaflow_ssd_stored_blocks_total"), count);
}

}  // namespace pegaflow::integration
