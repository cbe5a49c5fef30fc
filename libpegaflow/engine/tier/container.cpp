// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/container.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <iterator>
#include <optional>
#include <thread>

#include "base/log.hpp"
#include "pegaflow/bytes.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint64_t kLeastSegments = 4;
constexpr int kLockTries = 20;
constexpr auto kLockTime = std::chrono::milliseconds(10);
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

struct Stretch {
    std::uint64_t offset, length;
};
// What must be zero where a cache is made, and as much at the end: here others keep what names their data. File systems and
// volume managers at the start (btrfs, ReiserFS and GFS2 at 64 KiB, VMFS behind the first MiB), copies of btrfs further on;
// partition tables, RAID and ZFS at the end.
constexpr Stretch kMustBeBlank[] = {{0, 4 * kMiB}, {64 * kMiB, kMiB}, {std::uint64_t{256} << 30, kMiB}};
constexpr std::uint64_t kBlankEndBytes = kMiB;

unexpected<Error> failed(const std::string& what, const std::string& path, Code code = Code::kRegionLost) {
    const int number = errno;
    return fail(code, fmt::format("cannot {} {}: {}", what, path, std::strerror(number)), number);
}

bool is_directory(const std::string& path) {
    struct stat info{};
    return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool exists(const std::string& path) {
    struct stat info{};
    return ::stat(path.c_str(), &info) == 0;
}

Result<Superblock> read_superblock(const Container& container) {
    std::vector<std::byte> block(kBlockBytes);
    PEGA_TRY(container.read(0, block));
    auto first = decode_superblock(block);
    if (first || first.error().code == Code::kUnsupported) return first;
    PEGA_TRY(container.read(kSuperblockCopyAt, block));
    auto copy = decode_superblock(block);
    if (copy) base::log_warning("tier", "{}: {}; its copy is used", container.path(), first.error().message);
    return copy || copy.error().code == Code::kUnsupported ? copy : first;
}

// Where the first byte of a stretch is that is not zero.
Result<std::optional<std::uint64_t>> first_byte_in(const Container& container, Stretch stretch) {
    std::vector<std::byte> bytes(std::min(stretch.length, kMiB));
    for (std::uint64_t done = 0; done < stretch.length; done += bytes.size()) {
        bytes.resize(std::min<std::uint64_t>(bytes.size(), stretch.length - done));
        PEGA_TRY(container.read(stretch.offset + done, bytes));
        const auto it = std::find_if(bytes.begin(), bytes.end(), [](std::byte b) { return b != std::byte{0}; });
        if (it != bytes.end()) return std::optional(stretch.offset + done + static_cast<std::uint64_t>(it - bytes.begin()));
    }
    return std::optional<std::uint64_t>();
}

// Where something lies in a file or device of `length` bytes, as far as can be told without reading all of it.
Result<std::optional<std::uint64_t>> first_byte(const Container& container, std::uint64_t length) {
    std::vector<Stretch> stretches(std::begin(kMustBeBlank), std::end(kMustBeBlank));
    stretches.push_back({length - std::min(length, kBlankEndBytes), kBlankEndBytes});
    for (Stretch stretch : stretches) {
        if (stretch.offset >= length) continue;
        stretch.length = std::min(stretch.length, length - stretch.offset);
        PEGA_ASSIGN(const auto found, first_byte_in(container, stretch));
        if (found) return found;
    }
    return std::optional<std::uint64_t>();
}

}  // namespace

Container::~Container() {
    if (fd_ >= 0) ::close(fd_);
}

Result<void> Container::open_file(const std::string& path, int flags, bool may_create) {
    path_ = is_directory(path) ? path + "/" + kContainerFile : path;
    // A pipe of this name must not keep us.
    fd_ = ::open(path_.c_str(), flags | O_CLOEXEC | O_NONBLOCK | (may_create ? O_CREAT : 0), 0600);
    if (fd_ < 0) return failed("open", path_, errno == ENOENT ? Code::kNotFound : Code::kRegionLost);
    struct stat info{};
    if (::fstat(fd_, &info) != 0) return failed("examine", path_);
    block_device_ = S_ISBLK(info.st_mode);
    if (!block_device_ && !S_ISREG(info.st_mode))
        return fail(Code::kInvalid, fmt::format("{} is neither a directory, nor a file, nor a block device", path_));
    return {};
}

Result<std::unique_ptr<Container>> Container::open(const std::string& path, std::uint64_t capacity,
                                                   std::uint64_t segment_bytes) {
    if (!exists(path) && ::mkdir(path.c_str(), 0700) != 0) return failed("make the directory", path);
    std::unique_ptr<Container> c(new Container());
    if (!is_directory(path)) {
        struct stat info{};
        if (::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode))
            return fail(Code::kInvalid, fmt::format("{} is a file, expected a directory or a block device", path));
    }
    // O_EXCL on a block device: nobody may have mounted it.
    PEGA_TRY(c->open_file(path, O_RDWR | (is_directory(path) ? 0 : O_EXCL), is_directory(path)));
    PEGA_TRY(c->lock());
    PEGA_ASSIGN(const std::uint64_t length, c->size());
    if (length == 0) {
        PEGA_TRY(c->create(capacity, segment_bytes));
        return c;
    }
    auto known = read_superblock(*c);
    if (known) {
        c->superblock_ = *known;
        if (known->segment_bytes != segment_bytes) {
            base::log_warning("tier", "{} has segments of {}, which stay; the configuration says {}", c->path_,
                              format_size(known->segment_bytes), format_size(segment_bytes));
        }
        PEGA_TRY(c->resize(capacity));
        return c;
    }
    if (known.error().code == Code::kUnsupported)
        return fail(Code::kUnsupported, fmt::format("{}: {}; it is left as it is", c->path_, known.error().message));
    PEGA_ASSIGN(const auto used, first_byte(*c, length));
    if (used) {
        return fail(Code::kInvalid,
                    fmt::format("{} holds something else ({}; byte {} is not zero); it is left as it is. To use it for the "
                                "cache, remove the file; of a block device erase the signatures (wipefs --all {}) and the "
                                "rest (blkdiscard, or blkdiscard --zeroout)",
                                c->path_, known.error().message, *used, c->path_));
    }
    PEGA_TRY(c->create(capacity, segment_bytes));
    return c;
}

// The offline check holds a lock for a moment, to see whether a server has one.
Result<void> Container::lock() const {
    for (int tries = 0; ::flock(fd_, LOCK_EX | LOCK_NB) != 0; ++tries) {
        if (tries == kLockTries) return fail(Code::kNotReady, fmt::format("{} is in use by another process", path_), errno);
        std::this_thread::sleep_for(kLockTime);
    }
    return {};
}

Result<std::unique_ptr<Container>> Container::open_read_only(const std::string& path) {
    std::unique_ptr<Container> c(new Container());
    PEGA_TRY(c->open_file(path, O_RDONLY, false));
    c->locked_by_other_ = ::flock(c->fd_, LOCK_SH | LOCK_NB) != 0;
    if (!c->locked_by_other_) ::flock(c->fd_, LOCK_UN);
    PEGA_ASSIGN(c->superblock_, read_superblock(*c));
    PEGA_ASSIGN(const std::uint64_t length, c->size());
    if (c->superblock_.total_bytes() > length) {
        return fail(Code::kCorrupt, fmt::format("{} has {} bytes, its superblock names {} segments of {}", c->path_, length,
                                                c->superblock_.segment_count, format_size(c->superblock_.segment_bytes)));
    }
    return c;
}

Result<std::uint64_t> Container::size() const {
    const off_t end = ::lseek(fd_, 0, SEEK_END);
    if (end < 0) return failed("measure", path_);
    return static_cast<std::uint64_t>(end);
}

Result<void> Container::create(std::uint64_t capacity, std::uint64_t segment_bytes) {
    superblock_.segment_bytes = segment_bytes;
    superblock_.created_seconds = static_cast<std::uint64_t>(std::time(nullptr));
    if (::getrandom(superblock_.container.data(), superblock_.container.size(), 0) < 0) return failed("name", path_);
    return resize(capacity);
}

Result<void> Container::resize(std::uint64_t capacity) {
    PEGA_ASSIGN(const std::uint64_t length, size());
    if (block_device_) capacity = capacity == 0 ? length : std::min(capacity, length);
    const std::uint64_t count = capacity <= kSegmentsAt ? 0 : (capacity - kSegmentsAt) / superblock_.segment_bytes;
    if (count < kLeastSegments) {
        return fail(Code::kNoMemory,
                    fmt::format("{} of capacity at {} are too little: expected at least {} segments of {}",
                                format_size(capacity), path_, kLeastSegments, format_size(superblock_.segment_bytes)));
    }
    const bool same = count == superblock_.segment_count;
    superblock_.segment_count = count;
    const auto wanted = static_cast<off_t>(superblock_.total_bytes());
    if (!block_device_ && ::ftruncate(fd_, wanted) != 0) return failed("resize", path_, Code::kNoMemory);
    return same ? Result<void>() : write_superblock();
}

Result<void> Container::write_superblock() {
    std::vector<std::byte> block(kBlockBytes);
    encode(superblock_, block);
    // The copy first: whenever power goes, one of the two is whole.
    for (const std::uint64_t at : {kSuperblockCopyAt, std::uint64_t{0}}) {
        if (::pwrite(fd_, block.data(), block.size(), static_cast<off_t>(at)) != static_cast<ssize_t>(block.size()))
            return failed("write the superblock of", path_);
        if (::fsync(fd_) != 0) return failed("write the superblock of", path_);
    }
    return {};
}

Result<void> Container::read(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
        const ssize_t count = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return failed(fmt::format("read {} bytes at {} of", out.size(), offset), path_);
        if (count == 0)
            return fail(Code::kRegionLost, fmt::format("{} ends at {}, {} more bytes are missing", path_, offset, out.size()));
        out = out.subspan(static_cast<std::size_t>(count));
        offset += static_cast<std::uint64_t>(count);
    }
    return {};
}

Result<void> Container::sync() const {
    if (::fdatasync(fd_) != 0) return failed("flush", path_);
    return {};
}

Result<void> Container::reserve(std::uint64_t offset, std::uint64_t length) const {
    if (block_device_) return {};
    if (::fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0) return {};
    if (errno == EOPNOTSUPP) return {};  // such a file system says that it is full when it is written
    return failed(fmt::format("set {} aside in", format_size(length)), path_,
                  errno == ENOSPC ? Code::kNoMemory : Code::kRegionLost);
}

Result<void> Container::discard(std::uint64_t offset, std::uint64_t length) const {
    if (block_device_) {
        const std::uint64_t range[2] = {offset, length};
        if (::ioctl(fd_, BLKDISCARD, range) == 0) return {};
    } else if (::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(length)) == 0) {
        return {};
    }
    return failed("discard a part of", path_, errno == EOPNOTSUPP ? Code::kUnsupported : Code::kRegionLost);
}

}  // namespace pegaflow::engine::tier
