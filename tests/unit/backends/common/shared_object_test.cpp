// SPDX-License-Identifier: Apache-2.0
#include "common/shared_object.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

namespace backend_common {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kBytes = 8 * kPage;

// A client's object in shared memory.
class Client {
public:
    explicit Client(std::uint64_t length = kBytes) {
        static std::atomic<int> next{0};
        name_ = "pega_shared_test_" + std::to_string(::getpid()) + "_" + std::to_string(next++);
        fd_ = ::shm_open(("/" + name_).c_str(), O_RDWR | O_CREAT | O_EXCL, 0666);
        EXPECT_GE(fd_, 0);
        resize(length);
    }
    ~Client() {
        ::close(fd_);
        ::shm_unlink(("/" + name_).c_str());
    }
    void resize(std::uint64_t length) const { EXPECT_EQ(::ftruncate(fd_, static_cast<off_t>(length)), 0); }
    const std::string& name() const { return name_; }
    int fd() const { return fd_; }

private:
    std::string name_;
    int fd_ = -1;
};

pega_status open(const std::string& name, SharedObject* out, std::string* why, std::uint64_t length = kBytes) {
    why->clear();
    return SharedObject::open_named(name, 0, length, out, why);
}

TEST(SharedObject, OneThatIsShortenedIsLostAndItsBytesAreZeros) {
    const Client client;
    const Client another;
    SharedObject object;
    SharedObject same;
    SharedObject other;
    std::string why;
    ASSERT_EQ(open(client.name(), &object, &why), PEGA_OK) << why;
    ASSERT_EQ(open(client.name(), &same, &why), PEGA_OK) << why;
    ASSERT_EQ(open(another.name(), &other, &why), PEGA_OK) << why;
    std::memset(object.data(), 7, kBytes);
    std::memset(other.data(), 9, kBytes);
    EXPECT_EQ(same.data()[kBytes - 1], 7);
    client.resize(0);
    EXPECT_FALSE(object.lost()) << "nobody has looked yet";
    std::vector<std::uint8_t> read(kBytes, 1);
    std::memcpy(read.data(), object.data(), kBytes);
    EXPECT_TRUE(object.lost());
    EXPECT_EQ(std::ranges::count(read, 0), static_cast<std::ptrdiff_t>(kBytes));
    std::memset(same.data(), 5, kBytes);
    EXPECT_TRUE(same.lost()) << "a write is noticed as well";
    EXPECT_FALSE(other.lost());
    EXPECT_EQ(other.data()[kBytes - 1], 9);
}

TEST(SharedObject, WhatIsReadWhileItIsShortenedIsItsOrKnownToBeLost) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "pages that a handler puts under a copy are a race to the sanitizer";
#endif
    for (int round = 0; round < 50; ++round) {
        const Client client;
        SharedObject object;
        std::string why;
        ASSERT_EQ(open(client.name(), &object, &why), PEGA_OK) << why;
        std::memset(object.data(), 7, kBytes);
        std::atomic<int> ready{0};
        std::vector<std::thread> readers;
        std::atomic<bool> wrong{false};
        for (int i = 0; i < 2; ++i) {
            readers.emplace_back([&] {
                std::vector<std::uint8_t> read(kBytes);
                ++ready;
                while (!object.lost()) {
                    std::memcpy(read.data(), object.data(), kBytes);
                    if (!object.lost() && std::ranges::count(read, 7) != static_cast<std::ptrdiff_t>(kBytes)) wrong = true;
                }
            });
        }
        while (ready < 2) std::this_thread::yield();
        client.resize(kPage);
        for (std::thread& reader : readers) reader.join();
        EXPECT_FALSE(wrong) << round;
    }
}

TEST(SharedObject, OthersCannotShortenOurs) {
    SharedObject object;
    ASSERT_EQ(SharedObject::create(kBytes, &object), PEGA_OK);
    int sealed = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (!std::filesystem::read_symlink(entry.path(), gone).string().starts_with("/memfd:pegaflow")) continue;
        const int fd = ::open(entry.path().c_str(), O_RDWR | O_CLOEXEC);
        EXPECT_EQ(::ftruncate(fd, 0), -1);
        EXPECT_EQ(errno, EPERM);
        ::close(fd);
        ++sealed;
    }
    EXPECT_EQ(sealed, 1);
    object.data()[kBytes - 1] = 1;
    EXPECT_FALSE(object.lost());
}

TEST(SharedObject, ARegisteredObjectHasAllItsMemory) {
    const Client client;
    SharedObject object;
    std::string why;
    ASSERT_EQ(open(client.name(), &object, &why), PEGA_OK);
    struct stat info{};
    ASSERT_EQ(::fstat(client.fd(), &info), 0);
    EXPECT_GE(info.st_blocks * 512, static_cast<blkcnt_t>(kBytes));
    EXPECT_EQ(open(client.name(), &object, &why, kBytes + 1), PEGA_REGION_LOST);
    EXPECT_EQ(why, "it is too short");
    ASSERT_EQ(::fstat(client.fd(), &info), 0);
    EXPECT_EQ(info.st_size, static_cast<off_t>(kBytes));
}

TEST(SharedObject, OneForWhichThereIsNoRoomIsRefused) {
    struct statvfs system{};
    ASSERT_EQ(::statvfs("/dev/shm", &system), 0);
    const std::uint64_t all = system.f_blocks * system.f_frsize;
    if (all == 0) GTEST_SKIP() << "/dev/shm has no bound";
    const Client client(all + kPage);
    SharedObject object;
    std::string why;
    EXPECT_EQ(open(client.name(), &object, &why, all + kPage), PEGA_NO_MEMORY);
    EXPECT_NE(why.find("No space left"), std::string::npos) << why;
    struct stat info{};
    ASSERT_EQ(::fstat(client.fd(), &info), 0);
    EXPECT_EQ(info.st_blocks, 0) << "and takes none";
}

TEST(SharedObject, WhatIsNoMemoryOrSomebodysOwnIsNotOpened) {
    const Client client;
    SharedObject object;
    std::string why;
    const std::string pipe = client.name() + "_pipe";
    ASSERT_EQ(::mkfifo(("/dev/shm/" + pipe).c_str(), 0600), 0);
    EXPECT_EQ(open(pipe, &object, &why), PEGA_INVALID);
    EXPECT_EQ(why, "it is no shared memory");
    ::unlink(("/dev/shm/" + pipe).c_str());
    ASSERT_EQ(::symlink(client.name().c_str(), ("/dev/shm/" + pipe).c_str()), 0);
    EXPECT_EQ(open(pipe, &object, &why), PEGA_INVALID) << "a link";
    ::unlink(("/dev/shm/" + pipe).c_str());
    EXPECT_EQ(open("..", &object, &why), PEGA_INVALID);
    EXPECT_EQ(open("", &object, &why), PEGA_INVALID);
    EXPECT_EQ(open("a/b", &object, &why), PEGA_INVALID);
    EXPECT_EQ(open(pipe, &object, &why), PEGA_REGION_LOST) << "there is none";
    ASSERT_EQ(::flock(client.fd(), LOCK_EX), 0);
    EXPECT_EQ(open(client.name(), &object, &why), PEGA_INVALID);
    EXPECT_NE(why.find("the file of its pool"), std::string::npos) << why;
    ASSERT_EQ(::flock(client.fd(), LOCK_UN), 0);
    EXPECT_EQ(open(client.name(), &object, &why), PEGA_OK) << why;
    EXPECT_EQ(::flock(client.fd(), LOCK_EX | LOCK_NB), 0) << "no lock stays";
}

TEST(SharedObject, ThatOfAnotherUserIsNotOpened) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
    const Client client;
    ASSERT_EQ(::fchmod(client.fd(), 0666), 0);
    SharedObject object;
    std::string why;
    ASSERT_EQ(::seteuid(65534), 0);
    EXPECT_EQ(open(client.name(), &object, &why), PEGA_INVALID);
    ASSERT_EQ(::seteuid(0), 0);
    EXPECT_EQ(why, "it belongs to another user");
    ASSERT_EQ(::fchown(client.fd(), 65534, 65534), 0);
    EXPECT_EQ(open(client.name(), &object, &why), PEGA_OK) << "root serves all: " << why;
}

// A descriptor number is the client's choice: what it stands for now is looked at before it is opened.
TEST(SharedObject, ADescriptorThatStandsForSomethingElseIsNotOpened) {
    SharedObject object;
    ASSERT_EQ(SharedObject::create(kBytes, &object), PEGA_OK);
    const std::vector<std::uint8_t> bytes = object.describe(5);
    SharedObject imported;
    std::string why;
    ASSERT_EQ(SharedObject::import(bytes, 5, &imported, &why), PEGA_OK) << why;
    EXPECT_EQ(SharedObject::import(bytes, 6, &imported, &why), PEGA_CORRUPT);
    imported = {};
    int fd = -1;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;
        if (std::filesystem::read_symlink(entry.path(), gone).string().starts_with("/memfd:pegaflow"))
            fd = std::stoi(entry.path().filename().string());
    }
    ASSERT_GE(fd, 0);
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    ASSERT_EQ(::dup2(null, fd), fd);
    EXPECT_EQ(SharedObject::import(bytes, 5, &imported, &why), PEGA_INVALID);
    EXPECT_EQ(why, "it is no shared memory");
    const Client client;
    ASSERT_EQ(::dup2(client.fd(), fd), fd);
    EXPECT_EQ(SharedObject::import(bytes, 5, &imported, &why), PEGA_REGION_LOST);
    EXPECT_EQ(why, "it is another one by now");
    ::close(null);
}

class SharedObjectDeath : public ::testing::Test {
protected:
    void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }  // each begins with a process of its own
    // Touches memory that nobody watches and that is not there.
    static void fault() {
        const Client client;
        SharedObject object;
        std::string why;
        if (open(client.name(), &object, &why) != PEGA_OK) return;
        void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, client.fd(), 0);
        ::shm_unlink(("/" + client.name()).c_str());
        client.resize(0);
        *static_cast<volatile char*>(memory) = 1;
    }
};

TEST_F(SharedObjectDeath, OtherFaultsEndTheProcessAsBefore) { EXPECT_DEATH(fault(), ""); }

TEST_F(SharedObjectDeath, OtherFaultsGoToTheHandlerThatWasThere) {
    const auto with_handler = [] {
        struct sigaction theirs{};
        theirs.sa_flags = SA_SIGINFO;
        theirs.sa_sigaction = [](int, siginfo_t*, void*) { ::_exit(7); };
        ::sigaction(SIGBUS, &theirs, nullptr);
        fault();
    };
    EXPECT_EXIT(with_handler(), ::testing::ExitedWithCode(7), "");
}

TEST_F(SharedObjectDeath, ASignalThatSomebodySendsIsPassedOn) {
    const auto sent = [] {
        SharedObject object;
        if (SharedObject::create(kBytes, &object) == PEGA_OK) ::raise(SIGBUS);
    };
    EXPECT_DEATH(sent(), "");
}

}  // namespace
}  // namespace backend_common
