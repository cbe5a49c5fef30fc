// SPDX-License-Identifier: Apache-2.0
// The client's side of a load's outcome: it makes the object in shared memory, watches it, and unlinks it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <thread>

#include "pegaflow/client.hpp"
#include "rpc/load_state.hpp"

namespace pegaflow {

struct LoadState::Mapping {
    ~Mapping() { drop(); }
    bool make(bool unnamed);
    void drop() noexcept;

    std::string name;
    void* memory = MAP_FAILED;  // keeps the file open, and with that the lock that says that the creator lives
    bool named = false;
    rpc::LoadStateRecord* record = nullptr;
};

namespace {

rpc::LoadStateRecord* fill(void* memory) {
    constexpr std::uint64_t offset = sizeof offset;
    std::memcpy(memory, &offset, sizeof offset);
    auto* record = new (static_cast<char*>(memory) + offset) rpc::LoadStateRecord;
    record->state.store(rpc::kLoadPending, std::memory_order_relaxed);
    record->version.store(rpc::kLoadStateVersion, std::memory_order_relaxed);
    record->magic.store(rpc::kLoadStateMagic, std::memory_order_release);
    std::memcpy(static_cast<char*>(memory) + rpc::kLoadStateLockedAt, &rpc::kLoadStateLocked, sizeof rpc::kLoadStateLocked);
    return record;
}

bool give_name(int fd, const std::string& name) {
    const std::string open_file = fmt::format("/proc/self/fd/{}", fd);
    return ::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, ("/dev/shm/" + name).c_str(), AT_SYMLINK_FOLLOW) == 0;
}

}  // namespace

// Makes the object; `unnamed`: it gets its name when it is complete and locked, so that whoever dies before leaves nothing,
// which not every system allows. False with errno.
bool LoadState::Mapping::make(bool unnamed) {
    const int fd = unnamed ? ::open("/dev/shm", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600)
                           : ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    named = !unnamed;
    // With its memory, or not at all: a page for which there is no room would be missed at the first access, by a signal.
    errno = ::posix_fallocate(fd, 0, rpc::kLoadStateBytes);
    if (errno == 0 && ::flock(fd, LOCK_SH) == 0)
        memory = ::mmap(nullptr, rpc::kLoadStateBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED) record = fill(memory);
    if (memory != MAP_FAILED && unnamed) named = give_name(fd, name);
    const bool made = memory != MAP_FAILED && named;
    const int error = errno;
    if (!made) drop();
    ::close(fd);
    errno = error;
    return made;
}

void LoadState::Mapping::drop() noexcept {
    if (memory != MAP_FAILED) ::munmap(memory, rpc::kLoadStateBytes);
    if (named) ::shm_unlink(("/" + name).c_str());
    memory = MAP_FAILED;
    named = false;
}

LoadState::LoadState(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
LoadState::LoadState(LoadState&&) noexcept = default;
LoadState& LoadState::operator=(LoadState&&) noexcept = default;
LoadState::~LoadState() = default;

Result<LoadState> LoadState::create() {
    auto mapping = std::make_unique<Mapping>();
    std::uint64_t random[2] = {};
    if (::getrandom(random, sizeof random, 0) != sizeof random)
        return fail(Code::kNoMemory, "no random bytes for a name", errno);
    mapping->name = fmt::format("pega_load_{:016x}{:016x}", random[0], random[1]);
    if (!mapping->make(true) && !mapping->make(false)) {
        return fail(Code::kNoMemory,
                    fmt::format("cannot make the shared memory object {}: {}", mapping->name, std::strerror(errno)), errno);
    }
    return LoadState(std::move(mapping));
}

const std::string& LoadState::shm_name() const noexcept { return mapping_->name; }
std::int64_t LoadState::state() const noexcept { return mapping_->record->state.load(std::memory_order_acquire); }

Result<void> LoadState::wait(std::chrono::nanoseconds timeout) const {
    const auto begun = std::chrono::steady_clock::now();
    for (int spins = 0; !ready(); ++spins) {
        if (std::chrono::steady_clock::now() - begun >= timeout)
            return fail(Code::kDeadlineExceeded, "the load has not ended yet");
        if (spins > 100) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    if (state() < 0) return fail(Code::kInternal, "the load failed; the server's log says why");
    return {};
}

}  // namespace pegaflow
