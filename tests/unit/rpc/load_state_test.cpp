// SPDX-License-Identifier: Apache-2.0
#include "rpc/load_state.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "pegaflow/client.hpp"

namespace pegaflow::rpc {
namespace {

// The object behind a name, as whoever may open it sees it.
class Opened {
public:
    explicit Opened(const std::string& name, int flags = 0) : path_("/" + name) {
        fd_ = ::shm_open(path_.c_str(), O_RDWR | flags, 0600);
        EXPECT_GE(fd_, 0);
    }
    ~Opened() { ::close(fd_); }
    void resize(off_t length) const { EXPECT_EQ(::ftruncate(fd_, length), 0); }
    void put(off_t at, std::uint64_t word) const {
        EXPECT_EQ(::pwrite(fd_, &word, sizeof word, at), static_cast<ssize_t>(sizeof word));
    }
    struct stat info() const {
        struct stat out{};
        ::fstat(fd_, &out);
        return out;
    }

private:
    std::string path_;
    int fd_ = -1;
};

TEST(LoadState, TheFirstOutcomeStays) {
    for (const bool success : {true, false}) {
        const auto state = *LoadState::create();
        auto attached = AttachedLoadState::attach(state.shm_name());
        ASSERT_TRUE(attached) << attached.error().message;
        auto again = AttachedLoadState::attach(state.shm_name());
        ASSERT_TRUE(again);
        EXPECT_FALSE(state.ready());
        EXPECT_TRUE(attached->finish(success ? kLoadSuccess : kLoadError));
        EXPECT_EQ(state.state(), success ? kLoadSuccess : kLoadError);
        EXPECT_TRUE(attached->finish(success ? kLoadError : kLoadSuccess));
        EXPECT_TRUE(again->finish(success ? kLoadError : kLoadSuccess));
        EXPECT_EQ(state.state(), success ? kLoadSuccess : kLoadError);
        EXPECT_EQ(static_cast<bool>(state.wait(std::chrono::seconds(1))), success);
    }
}

TEST(LoadState, TheOutcomeGoesWithTheOneThatIsMoved) {
    const auto state = *LoadState::create();
    auto first = *AttachedLoadState::attach(state.shm_name());
    AttachedLoadState second = std::move(first);
    EXPECT_EQ(second.name().name, state.shm_name());
    EXPECT_TRUE(second.finish(kLoadSuccess));
    EXPECT_EQ(state.state(), kLoadSuccess);
}

TEST(LoadState, AnObjectThatItsClientShortensTakesNoOutcomeAndEndsNobody) {
    for (const off_t left : {0, 8, 23}) {
        const auto state = *LoadState::create();
        auto attached = *AttachedLoadState::attach(state.shm_name());
        const Opened object(state.shm_name());
        object.resize(left);
        EXPECT_FALSE(attached.finish(kLoadSuccess)) << left;
        EXPECT_EQ(object.info().st_size, left) << "it is not made longer again";
    }
}

TEST(LoadState, WhatIsNoLoadStateIsRefused) {
    const std::string name = fmt::format("pega_rpc_test_{}", ::getpid());
    const Opened object(name, O_CREAT | O_EXCL);
    const auto refusal = [&name] {
        const auto attached = AttachedLoadState::attach(name);
        return attached ? std::string("none") : attached.error().message;
    };
    EXPECT_NE(refusal().find("it has 0 bytes"), std::string::npos) << refusal();
    object.resize(32);
    EXPECT_NE(refusal().find("magic 0x0"), std::string::npos) << "of a page without memory: " << refusal();
    object.put(0, 4);
    EXPECT_NE(refusal().find("at byte 4"), std::string::npos) << refusal();
    object.put(0, 24);
    EXPECT_NE(refusal().find("at byte 24"), std::string::npos) << refusal();
    object.put(0, ~std::uint64_t{7});
    EXPECT_NE(refusal().find("its record would be"), std::string::npos) << refusal();
    object.put(0, 8);
    object.put(8, static_cast<std::uint64_t>(kLoadStateVersion) << 32 | kLoadStateMagic);
    EXPECT_EQ(refusal(), "none");
    object.put(8, static_cast<std::uint64_t>(kLoadStateVersion + 1) << 32 | kLoadStateMagic);
    EXPECT_NE(refusal().find("version 2"), std::string::npos) << refusal();
    ::shm_unlink(("/" + name).c_str());
    EXPECT_NE(refusal(), "none");
    EXPECT_FALSE(AttachedLoadState::attach("../etc/passwd"));
    EXPECT_FALSE(AttachedLoadState::attach(""));
}

TEST(LoadState, AClientsObjectHasItsMemory) {
    const auto state = *LoadState::create();
    EXPECT_GT(Opened(state.shm_name()).info().st_blocks, 0);
    EXPECT_EQ(Opened(state.shm_name()).info().st_size, static_cast<off_t>(kLoadStateBytes));
}

}  // namespace
}  // namespace pegaflow::rpc
