// SPDX-License-Identifier: Apache-2.0
// GPU memory of other processes and other GPUs through the public interface: what is written lands, values come after the
// bytes, and the death of one process leaves the other whole. Over the fake driver where that was built, elsewhere on GPUs.
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

#include "tests/unit/backends/cuda/event_role.hpp"
#include "tests/unit/backends/cuda/peer_process.hpp"
#include "tests/unit/backends/cuda/peer_side.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kWritten = 7;
constexpr std::uint32_t kFlooded = 9;
constexpr std::uint32_t kFirstRound = 1000, kRounds = 16;
constexpr std::uint64_t kPages[] = {2U << 10, 32U << 10, 1U << 20};
constexpr auto kPatience = 30s;

// What the writer does, and what it makes of both sides.
struct Script {
    std::mt19937_64 random{3};
    std::vector<std::uint8_t> own = seeded_bytes(2), remote = seeded_bytes(1);
    Pages next(std::uint64_t page, bool read) {
        Pages pages = Pages::random(page, kPeerBytes / page / 2, random);
        pages.apply(read ? own : remote, read ? remote : own, read);
        return pages;
    }
};

// The roles of the other process. Zero, or the number of the step that failed.
struct Opened {
    std::unique_ptr<PeerSide> side;
    Region remote;
    Channel channel;
    ~Opened() {
        channel = {};
        remote = {};
    }
};

bool open_remote(Opened& out, const std::string& path) {
    std::string why;
    const auto address = receive_message(kRoleSocket);
    const auto descriptor = receive_message(kRoleSocket);
    out.side = PeerSide::open(device_of_this_process(), path, &why);
    if (!address || !descriptor || !out.side) return false;
    auto remote = out.side->device().import_region(*descriptor);
    auto channel = out.side->device().open_channel(*address);
    if (!remote || !channel) return false;
    out.remote = std::move(*remote);
    out.channel = std::move(*channel);
    return true;
}

int write_and_read(const std::string& path) {
    Opened opened;
    if (!open_remote(opened, path)) return 1;
    PeerSide& side = *opened.side;
    Script script;
    side.write(side.memory(), script.own);
    Transfer transfer;
    for (const std::uint64_t page : kPages) {
        for (const bool read : {false, true}) {
            script.next(page, read).fill(transfer, side.memory(), opened.remote, read);
            if (!read) transfer.notify(kWritten);
            if (!side.run(opened.channel, transfer)) return 2;
        }
    }
    return side.read(side.memory()) == script.own ? 0 : 3;
}

int flood() {
    Opened opened;
    if (!open_remote(opened, "auto")) return 1;
    std::vector<Transfer> transfers(4);
    std::vector<Completion> ends(4);
    std::mt19937_64 random(5);
    for (std::size_t i = 0;; ++i) {
        Transfer& transfer = transfers[i % 4];
        if (i >= 4 && !ends[i % 4].wait()) return 2;
        Pages::of_part(4096, i % 4, 4, random).fill(transfer, opened.side->memory(), opened.remote, false);
        transfer.notify(kFlooded);
        auto end = opened.channel.submit_wait(transfer);
        if (!end) return 3;
        ends[i % 4] = *end;
    }
}

// Overwrites the whole memory, says so, and goes on when the parent has looked.
int rounds() {
    Opened opened;
    if (!open_remote(opened, "bulk")) return 1;
    PeerSide& side = *opened.side;
    Transfer transfer;
    std::mt19937_64 random(7);
    for (std::uint32_t round = 0; round < kRounds; ++round) {
        Pages pages = Pages::random(4096, kPeerBytes / 4096, random);
        pages.remote = pages.local;
        side.write(side.memory(), seeded_bytes(kFirstRound + round));
        pages.fill(transfer, side.memory(), opened.remote, false);
        transfer.notify(kFirstRound + round);
        if (!side.run(opened.channel, transfer)) return 2;
        if (!receive_message(kRoleSocket)) return 3;
    }
    return 0;
}

// Offers memory until the parent is gone: its GPU's, or shared host memory.
int own(bool host) {
    std::string why;
    const auto side = PeerSide::open(device_of_this_process(), "auto", &why);
    if (!side) return 1;
    side->write(side->memory(), seeded_bytes(4));
    Region shared;
    if (host) {
        auto allocated = side->device().allocate(PEGA_MEMORY_HOST, kPeerBytes, PEGA_REGION_SHARED);
        if (!allocated) return 2;
        shared = std::move(*allocated);
        std::memcpy(shared.address(), seeded_bytes(6).data(), kPeerBytes);
    }
    const auto descriptor = (host ? shared : side->memory()).export_descriptor();
    const auto address = side->device().address();
    if (!descriptor || !address || !send_message(kRoleSocket, *address) || !send_message(kRoleSocket, *descriptor)) return 3;
    while (receive_message(kRoleSocket)) {
    }
    return 0;
}

// What the other process of the tests below runs.
TEST(PeerRole, DISABLED_Run) {
    const std::string role = role_of_this_process();
    ASSERT_FALSE(role.empty()) << "the tests below start it";
    int code = 100;
    if (role.starts_with("write ")) code = write_and_read(role.substr(6));
    if (role == "flood") code = flood();
    if (role == "rounds") code = rounds();
    if (role == "hold") code = hold_a_stream();
    if (role == "own gpu" || role == "own host") code = own(role == "own host");
    std::exit(code);
}

// This process's GPU, and the other one's.
using Pair = std::pair<const char*, const char*>;

class Peers : public ::testing::TestWithParam<Pair> {
protected:
    void SetUp() override {
        std::string why;
        if (!PeerSide::open(GetParam().second, "auto", &why)) {
            ASSERT_NE(::access(FAKE_DRIVER, R_OK), 0) << why;
            GTEST_SKIP() << why;
        }
        side_ = PeerSide::open(GetParam().first, "auto", &why);
        ASSERT_TRUE(side_) << why;
        side_->write(side_->memory(), seeded_bytes(1));
    }
    void invite(OtherProcess& other) {
        ASSERT_TRUE(send_message(other.socket(), *side_->device().address()));
        ASSERT_TRUE(send_message(other.socket(), *side_->memory().export_descriptor()));
    }
    // What the other process offers.
    void accept(OtherProcess& other) {
        const auto address = receive_message(other.socket());
        const auto descriptor = receive_message(other.socket());
        ASSERT_TRUE(address && descriptor);
        auto remote = side_->device().import_region(*descriptor);
        ASSERT_TRUE(remote) << remote.error().message;
        remote_ = std::move(*remote);
        auto channel = side_->device().open_channel(*address);
        ASSERT_TRUE(channel) << channel.error().message;
        channel_ = std::move(*channel);
    }
    void let_other_write(const std::string& path) {
        side_->write(side_->memory(), seeded_bytes(1));
        OtherProcess other("write " + path, GetParam().second);
        invite(other);
        const auto came = side_->device().wait_notify(kWritten, std::size(kPages), kPatience);
        ASSERT_TRUE(came) << came.error().message << "; the other process ended with " << other.kill() << ", by " << path;
        ASSERT_EQ(other.wait(), 0);
        Script script;
        for (const std::uint64_t page : kPages) {
            for (const bool read : {false, true}) script.next(page, read);
        }
        EXPECT_TRUE(side_->read(side_->memory()) == script.remote) << "by " << path;
    }
    void TearDown() override {
        channel_ = {};
        remote_ = {};
    }

    std::unique_ptr<PeerSide> side_;
    Region remote_;
    Channel channel_;
};

TEST_P(Peers, AnotherProcessWritesReadsAndNotifies) {
    for (const char* path : {"auto", "loop", "batch", "bulk", "vector"}) let_other_write(path);
}

TEST_P(Peers, ValuesComeAfterTheBytes) {
    OtherProcess other("rounds", GetParam().second);
    invite(other);
    for (std::uint32_t round = 0; round < kRounds; ++round) {
        ASSERT_TRUE(side_->device().wait_notify(kFirstRound + round, 1, kPatience));
        ASSERT_TRUE(side_->read(side_->memory()) == seeded_bytes(kFirstRound + round)) << "round " << round;
        ASSERT_TRUE(send_message(other.socket(), {}));
    }
    EXPECT_EQ(other.wait(), 0);
}

TEST_P(Peers, AKilledWriterLeavesTheOwnerWhole) {
    const auto descriptors = [] {
        const std::filesystem::directory_iterator all("/proc/self/fd");
        return std::distance(begin(all), end(all));
    };
    let_other_write("auto");  // what drivers open on first use is open
    const auto before = descriptors();
    for (int i = 0; i < 3; ++i) {
        OtherProcess other("flood", GetParam().second);
        invite(other);
        ASSERT_TRUE(side_->device().wait_notify(kFlooded, 3, kPatience));
        std::this_thread::sleep_for(std::chrono::milliseconds(7 * i));
        other.kill();
    }
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (descriptors() > before && std::chrono::steady_clock::now() < limit) std::this_thread::sleep_for(1ms);
    EXPECT_LE(descriptors(), before) << "sockets of the dead stay open";
    let_other_write("auto");
}

TEST_P(Peers, ADeadPeerIsSaid) {
    OtherProcess other("own gpu", GetParam().second);
    accept(other);
    std::vector<Transfer> transfers(16);
    std::vector<Completion> ends;
    std::mt19937_64 random(1);
    for (std::size_t i = 0; i < transfers.size(); ++i) {
        Pages::of_part(1024, i, transfers.size(), random).fill(transfers[i], side_->memory(), remote_, false);
        transfers[i].notify(1);
    }
    for (std::size_t i = 0; i < 8; ++i) ends.push_back(*channel_.submit_wait(transfers[i]));
    other.kill();
    for (const Completion& end : ends) {
        const auto moved = end.wait_for(kPatience);
        EXPECT_TRUE(moved || moved.error().code == Code::kPeerLost) << moved.error().message;
    }
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (channel_.state() == PEGA_OK && std::chrono::steady_clock::now() < limit) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(channel_.state(), PEGA_PEER_LOST);
    const auto refused = channel_.submit(transfers[8]);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kPeerLost);
    EXPECT_TRUE(channel_.close(kPatience));
    channel_ = {};
    remote_ = {};
    let_other_write("auto");
}

TEST_P(Peers, ABatchWhoseValueFindsNoRoomCanBeCancelled) {
    OtherProcess other("own gpu", GetParam().second);
    accept(other);
    ::kill(other.pid(), SIGSTOP);
    std::vector<Transfer> transfers(2);
    const auto stuck = [&]() -> std::optional<Completion> {
        for (int i = 0; i < 100000; ++i) {
            transfers[0].clear().flat(side_->memory(), remote_).range(0, 0, 16).notify(1);
            const auto end = channel_.submit_wait(transfers[0]);
            if (!end) return std::nullopt;
            if (!end->wait_for(3s)) return *end;
        }
        return std::nullopt;
    }();
    ASSERT_TRUE(stuck) << "a socket never filled up";
    ASSERT_TRUE(channel_.cancel(transfers[0]));
    const auto canceled = stuck->wait_for(kPatience);
    ASSERT_FALSE(canceled);
    EXPECT_EQ(canceled.error().code, Code::kCanceled);
    transfers[1].flat(side_->memory(), remote_).range(0, 0, 16).notify(1);
    const auto open = *channel_.submit_wait(transfers[1]);
    EXPECT_TRUE(channel_.close(kPatience)) << "closing ends what waits for room";
    const auto ended = open.wait_for(kPatience);
    EXPECT_TRUE(!ended && ended.error().code == Code::kCanceled);
    channel_ = {};
}

TEST_P(Peers, SharedHostMemoryOfAnotherProcess) {
    OtherProcess other("own host", GetParam().second);
    accept(other);
    ASSERT_EQ(remote_.kind(), PEGA_MEMORY_HOST);
    Transfer transfer;
    transfer.flat(side_->memory(), remote_).range(0, 0, kPeerBytes).read();
    ASSERT_TRUE(side_->run(channel_, transfer));
    EXPECT_TRUE(side_->read(side_->memory()) == seeded_bytes(6));
}

TEST_P(Peers, AHandleStaysOpenUntilItsLastRegionGoes) {
    OtherProcess other("own gpu", GetParam().second);
    const auto address = receive_message(other.socket());
    const auto descriptor = receive_message(other.socket());
    ASSERT_TRUE(address && descriptor);
    auto first = side_->device().import_region(*descriptor);
    auto second = side_->device().import_region(*descriptor);
    ASSERT_TRUE(first && second);
    *first = {};
    EXPECT_TRUE(side_->read(*second) == seeded_bytes(4));
    EXPECT_FALSE(second->export_descriptor()) << "memory of others is theirs to export";
}

TEST_P(Peers, MemoryOfThisProcessIsReachedWithoutItsHandle) {
    std::string why;
    auto other = PeerSide::open(GetParam().second, "bulk", &why);
    ASSERT_TRUE(other) << why;
    auto origin = *side_->device().allocate(PEGA_MEMORY_GPU, kPeerBytes);
    side_->write(origin, seeded_bytes(8));
    auto imported = other->device().import_region(*origin.export_descriptor());
    ASSERT_TRUE(imported) << imported.error().message;
    origin = {};  // the import keeps the memory
    auto channel = *other->device().open_channel();
    Transfer transfer;
    std::mt19937_64 random(1);
    Pages pages = Pages::random(8192, kPeerBytes / 8192, random);
    pages.fill(transfer, other->memory(), *imported, true);
    ASSERT_TRUE(other->run(channel, transfer));
    std::vector<std::uint8_t> expected(kPeerBytes);
    pages.apply(expected, seeded_bytes(8), true);
    EXPECT_TRUE(other->read(other->memory()) == expected);
    channel = {};
    *imported = {};
}

INSTANTIATE_TEST_SUITE_P(Gpus, Peers, ::testing::Values(Pair{"cuda:0", "cuda:0"}, Pair{"cuda:0", "cuda:1"}),
                         [](const auto& pair) { return std::string(pair.param.second) == "cuda:0" ? "One" : "Two"; });

TEST(PeerAccess, WhereItIsMissingTheRefusalNamesAnotherWay) {
    if (::access(FAKE_DRIVER, R_OK) != 0) GTEST_SKIP() << "only the fake driver can take peer access away";
    std::string why;
    const auto here = PeerSide::open("cuda:0", "auto", &why);
    const auto there = PeerSide::open("cuda:1", "auto", &why);
    ASSERT_TRUE(here && there) << why;
    ::setenv("PEGAFLOW_FAKE_PEERS", "off", 1);
    ::testing::internal::CaptureStderr();
    const auto refused = there->device().import_region(*here->memory().export_descriptor());
    OtherProcess other("own gpu", "cuda:1");
    receive_message(other.socket());
    const auto descriptor = receive_message(other.socket());
    const auto refused_too = here->device().import_region(*descriptor);
    const std::string log = ::testing::internal::GetCapturedStderr();
    ::unsetenv("PEGAFLOW_FAKE_PEERS");
    ASSERT_FALSE(refused);
    ASSERT_FALSE(refused_too);
    EXPECT_EQ(refused.error().code, Code::kUnsupported);
    EXPECT_EQ(refused_too.error().code, Code::kUnsupported);
    EXPECT_NE(log.find("GPU 1 has no peer access"), std::string::npos) << log;
    EXPECT_NE(log.find("GPU 0 has no peer access"), std::string::npos) << log;
    EXPECT_NE(log.find("nccl"), std::string::npos) << log;
}

}  // namespace
}  // namespace pegaflow
