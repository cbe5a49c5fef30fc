// SPDX-License-Identifier: Apache-2.0
// A peer in a process of its own: bytes both ways, and what is left when it is killed in the middle of a transfer.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "side.hpp"

extern char** environ;

namespace pegaflow::nccl_test {
namespace {

constexpr std::uint64_t kBytes = 32U << 20;
constexpr const char* kChild = "PEGAFLOW_NCCL_TEST_CHILD";  // the descriptors that the child writes to and reads from

// This program again, as the peer. It writes its address and its region's descriptor, then serves until its input ends.
class Peer {
public:
    Peer() {
        int from[2];
        int to[2];
        if (::pipe(from) != 0 || ::pipe(to) != 0) throw std::runtime_error("pipe");
        ::setenv(kChild, (std::to_string(from[1]) + "," + std::to_string(to[0])).c_str(), 1);
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_addclose(&actions, from[0]);
        ::posix_spawn_file_actions_addclose(&actions, to[1]);
        char program[] = "/proc/self/exe";
        char filter[] = "--gtest_filter=NcclProcess.DISABLED_Serves";
        char disabled[] = "--gtest_also_run_disabled_tests";
        char* arguments[] = {program, filter, disabled, nullptr};
        const int failed = ::posix_spawn(&pid_, program, &actions, nullptr, arguments, environ);
        ::posix_spawn_file_actions_destroy(&actions);
        ::unsetenv(kChild);
        ::close(from[1]);
        ::close(to[0]);
        in_ = from[0];
        out_ = to[1];
        if (failed != 0) throw std::runtime_error("posix_spawn");
        address = take();
        descriptor = take();
    }
    ~Peer() { end(); }
    void kill() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        // What the fake driver of a killed process could not take away itself.
        const std::string left = "pega_fake_cuda_" + std::to_string(pid_) + "_";
        for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
            if (entry.path().filename().string().starts_with(left)) std::filesystem::remove(entry.path());
        }
        pid_ = -1;
    }
    // The child's exit status.
    int end() {
        int status = 0;
        if (out_ >= 0) ::close(out_);
        if (in_ >= 0) ::close(in_);
        out_ = in_ = -1;
        if (pid_ > 0) ::waitpid(pid_, &status, 0);
        pid_ = -1;
        return status;
    }

    std::vector<std::byte> address, descriptor;

private:
    std::vector<std::byte> take() {
        std::uint32_t length = 0;
        read_all(&length, sizeof length);
        std::vector<std::byte> out(length);
        read_all(out.data(), length);
        return out;
    }
    void read_all(void* to, std::size_t length) const {
        for (std::size_t got = 0; got < length;) {
            pollfd waiting{in_, POLLIN, 0};
            if (::poll(&waiting, 1, 60'000) != 1) throw std::runtime_error("the peer says nothing");
            const ssize_t count = ::read(in_, static_cast<char*>(to) + got, length - got);
            if (count <= 0) throw std::runtime_error("the peer ended early");
            got += static_cast<std::size_t>(count);
        }
    }
    pid_t pid_ = -1;
    int in_ = -1, out_ = -1;
};

class NcclProcess : public ::testing::Test {
protected:
    void SetUp() override {
        if (const std::string why = prepare(); !why.empty()) GTEST_SKIP() << why;
    }
};

// The peer of the other tests.
TEST_F(NcclProcess, DISABLED_Serves) {
    const char* text = std::getenv(kChild);
    int out = -1;
    int in = -1;
    ASSERT_TRUE(text != nullptr && std::sscanf(text, "%d,%d", &out, &in) == 2) << "the tests below start it";
    Side side(1, kBytes);
    side.write(Side::pattern(kBytes, 11));
    for (const auto& bytes : {side.address(), side.descriptor()}) {
        const auto length = static_cast<std::uint32_t>(bytes.size());
        ASSERT_EQ(::write(out, &length, sizeof length), static_cast<ssize_t>(sizeof length));
        ASSERT_EQ(::write(out, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    }
    char byte = 0;
    while (::read(in, &byte, 1) > 0) {
    }
}

TEST_F(NcclProcess, BytesGoBothWays) {
    Peer peer;
    Side here(0, kBytes);
    const Region remote = here.import(peer.descriptor);
    Channel channel = here.connect(peer.address);
    Transfer all;
    all.read().flat(here.region(), remote).range(0, 0, kBytes);
    const auto moved = run(channel, all);
    ASSERT_TRUE(moved) << moved.error().message;
    EXPECT_TRUE(here.read() == Side::pattern(kBytes, 11));
    here.write(Side::pattern(kBytes, 12));
    Transfer write;
    write.flat(here.region(), remote);
    for (std::uint64_t at = 0; at < kBytes / 4096; ++at) write.range(at * 4096, at * 4096, 2048);
    ASSERT_TRUE(run(channel, write));
    ASSERT_TRUE(run(channel, all));
    auto expected = Side::pattern(kBytes, 11);
    const auto written = Side::pattern(kBytes, 12);
    for (std::uint64_t at = 0; at < kBytes; at += 4096)
        std::copy_n(written.begin() + static_cast<std::ptrdiff_t>(at), 2048,
                    expected.begin() + static_cast<std::ptrdiff_t>(at));
    EXPECT_TRUE(here.read() == expected);
    channel = {};
    EXPECT_EQ(peer.end(), 0);
}

// Whatever the moment: each batch ends once, as moved or as a lost peer, and nothing writes to memory after that.
TEST_F(NcclProcess, AKilledPeerIsLostAndMemoryIsQuiet) {
    for (int round = 0; round < 4; ++round) {
        Peer peer;
        Side here(0, kBytes);
        const Region remote = here.import(peer.descriptor);
        Channel channel = here.connect(peer.address);
        Transfer first;
        first.flat(here.region(), remote).range(0, 0, 4096);
        ASSERT_TRUE(round < 2 || run(channel, first)) << "the link before the peer is killed";
        std::vector<Transfer> transfers(16);
        std::vector<Completion> ends;
        std::atomic<int> ended{0};
        const std::uint64_t part = kBytes / transfers.size();
        for (std::size_t i = 0; i < transfers.size(); ++i) {
            transfers[i].flat(here.region(), remote).on_done([&](const pega_completion&) { ++ended; });
            if (round % 2 == 0) transfers[i].read();
            for (std::uint64_t at = 0; at < part / 8192; ++at) transfers[i].range(i * part + at * 8192, at * 8192, 8000);
            auto done = channel.submit_wait(transfers[i]);
            ASSERT_TRUE(done) << done.error().message;
            ends.push_back(std::move(*done));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(round * 5));
        peer.kill();
        for (const Completion& end : ends) {
            const auto moved = end.wait_for(std::chrono::seconds(40));
            EXPECT_TRUE(moved || moved.error().code == Code::kPeerLost) << moved.error().message;
        }
        EXPECT_EQ(ended, 16);
        const auto poison = Side::pattern(kBytes, 99);
        here.write(poison);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        EXPECT_TRUE(here.read() == poison) << "something wrote after the end";
        EXPECT_FALSE(run(channel, first));
    }
}

}  // namespace
}  // namespace pegaflow::nccl_test
