// SPDX-License-Identifier: Apache-2.0
#include "rpc/load_state.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <utility>

namespace pegaflow::rpc {
namespace {

constexpr char kSharedMemory[] = "/dev/shm";  // where shm_open keeps its objects

template <class T>
bool read_at(int fd, std::uint64_t offset, T& out) noexcept {
    return ::pread(fd, &out, sizeof out, static_cast<off_t>(offset)) == static_cast<ssize_t>(sizeof out);
}

}  // namespace

bool LoadStateName::linked() const noexcept {
    const int fd = ::shm_open(("/" + name).c_str(), O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return false;
    struct stat info{};
    const bool same = ::fstat(fd, &info) == 0 && info.st_dev == device && info.st_ino == inode;
    ::close(fd);
    return same;
}

void LoadStateName::unlink() const noexcept {
    if (linked()) ::shm_unlink(("/" + name).c_str());
}

std::size_t remove_abandoned_load_states() {
    std::size_t removed = 0;
    std::error_code error;
    for (std::filesystem::directory_iterator it(kSharedMemory, error), end; !error && it != end; it.increment(error)) {
        const std::string path = it->path().string();
        if (!it->path().filename().string().starts_with(kLoadStatePrefix)) continue;
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;  // another user's; what is no file has no word
        std::uint64_t word = 0;
        const bool locks = ::pread(fd, &word, sizeof word, kLoadStateLockedAt) == sizeof word && word == kLoadStateLocked;
        if (locks && ::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::unlink(path.c_str()) == 0) ++removed;
        ::close(fd);
    }
    return removed;
}

Result<AttachedLoadState> AttachedLoadState::attach(const std::string& name) {
    const auto refuse = [&](std::string why) { return fail(Code::kInternal, fmt::format("LoadState: \"{}\": {}", name, why)); };
    if (name.empty() || name.size() > 255 || name.find('/') != std::string::npos)
        return refuse("not a name of a shared memory object");
    const int fd = ::shm_open(("/" + name).c_str(), O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return refuse(std::strerror(errno));
    AttachedLoadState out(fd, 0, {});
    struct stat info{};
    if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return refuse("it is no shared memory object");
    out.name_ = {name, info.st_dev, info.st_ino};
    const auto length = static_cast<std::uint64_t>(info.st_size);
    if (length < kLoadStateBytes - 8) return refuse(fmt::format("it has {} bytes, expected {}", length, kLoadStateBytes));
    if (!read_at(fd, 0, out.record_)) return refuse("it cannot be read");
    if (out.record_ % alignof(LoadStateRecord) != 0 || out.record_ > length - sizeof(LoadStateRecord))
        return refuse(fmt::format("its record would be at byte {} of {}", out.record_, length));
    std::uint32_t magic = 0;
    std::uint32_t version = 0;
    if (!read_at(fd, out.record_ + offsetof(LoadStateRecord, magic), magic) ||
        !read_at(fd, out.record_ + offsetof(LoadStateRecord, version), version)) {
        return refuse("it cannot be read");
    }
    if (magic != kLoadStateMagic || version != kLoadStateVersion) {
        return refuse(fmt::format("magic {:#x} version {}, expected {:#x} version {}", magic, version, kLoadStateMagic,
                                  kLoadStateVersion));
    }
    return out;
}

AttachedLoadState::AttachedLoadState(AttachedLoadState&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      record_(other.record_),
      finished_(other.finished_.load()),
      name_(std::move(other.name_)) {}

AttachedLoadState& AttachedLoadState::operator=(AttachedLoadState&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(record_, other.record_);
    finished_.store(other.finished_.exchange(finished_.load()));
    std::swap(name_, other.name_);
    return *this;
}

AttachedLoadState::~AttachedLoadState() {
    if (fd_ >= 0) ::close(fd_);
}

// The bytes of the load are there before the state is: the client looks at it without a call. The kernel stores a word that
// does not cross a page at once.
bool AttachedLoadState::finish(std::int64_t state) noexcept {
    if (finished_.exchange(true)) return true;
    const std::uint64_t at = record_ + offsetof(LoadStateRecord, state);
    std::int64_t now = kLoadPending;
    if (!read_at(fd_, at, now)) return false;
    if (now != kLoadPending) return true;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return ::pwrite(fd_, &state, sizeof state, static_cast<off_t>(at)) == static_cast<ssize_t>(sizeof state);
}

}  // namespace pegaflow::rpc
