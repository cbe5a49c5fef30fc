// SPDX-License-Identifier: Apache-2.0
#include "server/sessions.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>

#include "pegaflow/client.hpp"
#include "tests/unit/server/host_engine.hpp"

namespace pegaflow::server {
namespace {

// An object as a client makes it; its name stays when the client dies.
class Object {
public:
    explicit Object(std::string name) : name_(std::move(name)) {
        const int fd = ::shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        EXPECT_EQ(::ftruncate(fd, rpc::kLoadStateBytes), 0);
        char bytes[rpc::kLoadStateBytes] = {};
        const std::uint64_t offset = sizeof offset;
        std::memcpy(bytes, &offset, sizeof offset);
        std::memcpy(bytes + offset, &rpc::kLoadStateMagic, sizeof rpc::kLoadStateMagic);
        std::memcpy(bytes + offset + sizeof rpc::kLoadStateMagic, &rpc::kLoadStateVersion, sizeof rpc::kLoadStateVersion);
        EXPECT_EQ(::pwrite(fd, bytes, sizeof bytes, 0), static_cast<ssize_t>(sizeof bytes));
        ::close(fd);
    }
    ~Object() { ::shm_unlink(("/" + name_).c_str()); }
    rpc::LoadStateName attach() const {
        const auto attached = rpc::AttachedLoadState::attach(name_);
        EXPECT_TRUE(attached) << attached.error().message;
        return attached ? attached->name() : rpc::LoadStateName{};
    }
    const std::string& name() const { return name_; }

private:
    std::string name_;
};

std::string fresh_name() {
    static std::atomic<int> next{0};
    return fmt::format("pega_sessions_test_{}_{}", ::getpid(), next++);
}

class SessionsTest : public HostEngineTest {
protected:
    void SetUp() override {
        HostEngineTest::SetUp();
        sessions_ = std::make_unique<Sessions>(*engine_);
    }

    std::unique_ptr<Sessions> sessions_;
};

TEST_F(SessionsTest, TheNamesOfADeadClientsLoadStatesGoWithItsSession) {
    const Object object(fresh_name()), other(fresh_name());
    const std::uint64_t old = sessions_->open("i");
    const std::uint64_t token = sessions_->open("i");
    const rpc::LoadStateName name = object.attach();
    sessions_->reports_into("i", name);
    sessions_->reports_into("nobody", other.attach());
    EXPECT_TRUE(name.linked());
    sessions_->ended("i", old);
    EXPECT_TRUE(name.linked()) << "a newer stream owns the instance";
    sessions_->ended("i", token);
    EXPECT_FALSE(name.linked());
    EXPECT_TRUE(other.attach().linked()) << "without a session a name is its creator's";
}

TEST_F(SessionsTest, ALoadThatComesAfterTheSessionLeavesNoName) {
    const Object object(fresh_name()), begun(fresh_name());
    const rpc::LoadStateName name = object.attach();
    sessions_->not_begun("i", name);
    EXPECT_FALSE(name.linked());
    sessions_->open("i");
    sessions_->not_begun("i", begun.attach());
    EXPECT_TRUE(begun.attach().linked()) << "the session takes it along later";
}

TEST_F(SessionsTest, AnotherObjectOfTheSameNameStays) {
    const std::string same = fresh_name();
    const std::uint64_t token = sessions_->open("i");
    {
        const Object first(same);
        sessions_->reports_into("i", first.attach());
    }
    const Object spare(fresh_name());  // so that the inode number is not given out again at once
    const Object second(same);
    sessions_->ended("i", token);
    EXPECT_TRUE(second.attach().linked());
}

bool exists(const std::string& name) { return ::access(("/dev/shm/" + name).c_str(), F_OK) == 0; }

TEST_F(SessionsTest, WhatAKilledClientNeverToldOfGoesAtTheEndOfAnySession) {
    const auto alive = LoadState::create();
    ASSERT_TRUE(alive) << alive.error().message;
    const Object foreign("pega_load_of_another_kind_of_client_" + fresh_name());
    int names[2];
    ASSERT_EQ(::pipe(names), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        const auto state = LoadState::create();
        const std::string name = state ? state->shm_name() : "";
        ::write(names[1], name.data(), name.size());
        ::kill(::getpid(), SIGKILL);
    }
    ::waitpid(child, nullptr, 0);
    char name[64] = {};
    const ssize_t length = ::read(names[0], name, sizeof name - 1);
    ::close(names[0]);
    ::close(names[1]);
    ASSERT_EQ(length, 42);
    sessions_->ended("someone", sessions_->open("someone"));
    // Where another server of this machine removes it at this moment, ours has left it to that one.
    for (int i = 0; i < 1000 && exists(name); ++i) ::usleep(10000);
    EXPECT_FALSE(exists(name));
    EXPECT_TRUE(exists(alive->shm_name()));
    EXPECT_TRUE(exists(foreign.name())) << "whose creators hold no locks are left alone";
    EXPECT_TRUE(rpc::AttachedLoadState::attach(alive->shm_name()));
}

}  // namespace
}  // namespace pegaflow::server
