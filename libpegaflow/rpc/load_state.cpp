// SPDX-License-Identifier: Apache-2.0
#include "rpc/load_state.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace pegaflow::rpc {
namespace {

constexpr char kSharedMemory[] = "/dev/shm";  // where shm_open keeps its objects

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
    struct stat info{};
    const bool sized = ::fstat(fd, &info) == 0;
    const auto length = static_cast<std::size_t>(sized ? info.st_size : 0);
    void* mapping =
        length < kLoadStateBytes - 8 ? MAP_FAILED : ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ::close(fd);
    if (mapping == MAP_FAILED) return refuse(fmt::format("it has {} bytes, expected {}", length, kLoadStateBytes));
    AttachedLoadState out(mapping, length, nullptr);
    out.name_ = {name, info.st_dev, info.st_ino};
    std::uint64_t offset = 0;
    std::memcpy(&offset, mapping, sizeof offset);
    if (offset % alignof(LoadStateRecord) != 0 || offset > length - sizeof(LoadStateRecord)) {
        return refuse(fmt::format("its record would be at byte {} of {}", offset, length));
    }
    out.record_ = reinterpret_cast<LoadStateRecord*>(static_cast<char*>(mapping) + offset);
    const std::uint32_t magic = out.record_->magic.load(std::memory_order_acquire);
    const std::uint32_t version = out.record_->version.load(std::memory_order_acquire);
    if (magic != kLoadStateMagic || version != kLoadStateVersion) {
        return refuse(fmt::format("magic {:#x} version {}, expected {:#x} version {}", magic, version, kLoadStateMagic,
                                  kLoadStateVersion));
    }
    return out;
}

AttachedLoadState::AttachedLoadState(AttachedLoadState&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      length_(other.length_),
      record_(other.record_),
      name_(std::move(other.name_)) {}

AttachedLoadState& AttachedLoadState::operator=(AttachedLoadState&& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(length_, other.length_);
    std::swap(record_, other.record_);
    std::swap(name_, other.name_);
    return *this;
}

AttachedLoadState::~AttachedLoadState() {
    if (mapping_ != nullptr) ::munmap(mapping_, length_);
}

void AttachedLoadState::finish(std::int64_t state) noexcept {
    std::int64_t pending = kLoadPending;
    record_->state.compare_exchange_strong(pending, state, std::memory_order_release, std::memory_order_relaxed);
}

}  // namespace pegaflow::rpc
