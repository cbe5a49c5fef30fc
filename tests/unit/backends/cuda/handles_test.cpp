// SPDX-License-Identifier: Apache-2.0
// IPC handles of memory over the fake driver, which notes when one is opened and can refuse them: a handle is opened once
// however many regions lie in its allocation, and whoever has none that works is told why and what helps.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "tests/unit/backends/cuda/peer_process.hpp"
#include "tests/unit/backends/cuda/peer_side.hpp"

namespace pegaflow {
namespace {

class Handles : public ::testing::Test {
protected:
    void SetUp() override {
        if (::access(FAKE_DRIVER, R_OK) != 0) GTEST_SKIP() << "needs the fake driver";
        calls_ = ::testing::TempDir() + "/pegaflow_handles_" + std::to_string(::getpid());
        ::setenv("PEGAFLOW_FAKE_CALLS", calls_.c_str(), 1);
        std::string why;
        side_ = PeerSide::open("cuda:0", "auto", &why);
        ASSERT_TRUE(side_) << why;
    }
    void TearDown() override {
        ::unsetenv("PEGAFLOW_FAKE_CALLS");
        ::unlink(calls_.c_str());
    }
    std::size_t opened() const {
        std::ifstream file(calls_);
        const std::string text{std::istreambuf_iterator<char>(file), {}};
        std::size_t count = 0;
        for (std::size_t at = text.find("open "); at != std::string::npos; at = text.find("open ", at + 1)) ++count;
        return count;
    }
    // A part of the memory that `handle` names.
    Result<Region> part(std::span<const std::byte> handle, std::uint64_t offset, std::uint64_t length) const {
        pega_memory memory{};
        memory.size = sizeof memory;
        memory.kind = PEGA_MEMORY_GPU;
        memory.source = PEGA_SOURCE_IPC;
        memory.handle = handle.data();
        memory.handle_length = handle.size();
        memory.offset = offset;
        memory.length = length;
        return side_->device().register_memory(memory);
    }

    std::string calls_;
    std::unique_ptr<PeerSide> side_;
};

TEST_F(Handles, TwoRegistrationsInOneAllocationOpenItsHandleOnce) {
    OtherProcess other("own gpu", "cuda:0");
    receive_message(other.socket());
    const auto descriptor = receive_message(other.socket());
    ASSERT_TRUE(descriptor);
    {
        const auto whole = side_->device().import_region(*descriptor);
        const auto front = part(*descriptor, 0, 4096);
        auto back = part(*descriptor, kPeerBytes / 2, kPeerBytes / 2);
        ASSERT_TRUE(whole && front && back);
        EXPECT_EQ(opened(), 1U);
        const auto wanted = seeded_bytes(4);
        EXPECT_TRUE(side_->read(*back) == std::vector<std::uint8_t>(wanted.begin() + kPeerBytes / 2, wanted.end()));
    }
    const auto again = part(*descriptor, 0, 4096);
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(opened(), 2U) << "the last region closed it";
}

TEST_F(Handles, MemoryWithoutOneSaysSoAndWhatHelps) {
    ::setenv("PEGAFLOW_FAKE_HANDLES", "off", 1);
    const auto refused = side_->memory().export_descriptor();
    ::unsetenv("PEGAFLOW_FAKE_HANDLES");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kUnsupported);
    EXPECT_NE(refused.error().message.find("no IPC handle"), std::string::npos) << refused.error().message;
    EXPECT_NE(refused.error().message.find("expandable_segments:False"), std::string::npos) << refused.error().message;
}

TEST_F(Handles, OneThatDoesNotWorkSaysSoAndWhatHelps) {
    const std::vector<std::byte> plain(64, std::byte{1});  // as a client whose memory is of expandable segments sends it
    const auto lost = part(plain, 0, 4096);
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Code::kRegionLost);
    EXPECT_NE(lost.error().message.find("Its process may be gone"), std::string::npos) << lost.error().message;
    EXPECT_NE(lost.error().message.find("expandable_segments:False"), std::string::npos) << lost.error().message;
}

}  // namespace
}  // namespace pegaflow
