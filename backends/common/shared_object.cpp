// SPDX-License-Identifier: Apache-2.0
#include "common/shared_object.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace backend_common {
namespace {

constexpr std::uint32_t kMagic = 0x52484750;  // "PGHR"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kMaxName = 255;
constexpr const char* kSharedMemory = "/dev/shm/";  // where shm_open keeps its objects

// What travels between processes, little-endian, followed by `name_length` bytes of name.
struct Wire {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t name_length;  // 0: a memfd
    std::uint32_t type;
    std::int32_t pid;
    std::int32_t fd;
    std::uint32_t reserved;
    std::uint64_t inode;
    std::uint64_t offset;
    std::uint64_t length;
    std::uint64_t checksum;  // over everything else
};

std::uint64_t fnv1a(const std::uint8_t* bytes, std::size_t count, std::uint64_t hash = 0xcbf29ce484222325ULL) {
    for (std::size_t i = 0; i < count; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    return hash;
}

std::uint64_t checksum(Wire wire, const std::uint8_t* name) {
    wire.checksum = 0;
    return fnv1a(name, wire.name_length, fnv1a(reinterpret_cast<const std::uint8_t*>(&wire), sizeof wire));
}

// Opens a file that a client named when it is memory of ours. It is looked at before: opening a device would do something.
pega_status open_memory(const char* path, int flags, int* out, struct stat* info, std::string* why) {
    const int handle = ::open(path, O_PATH | O_CLOEXEC | flags);
    if (handle < 0) {
        *why = std::strerror(errno);
        return PEGA_REGION_LOST;
    }
    struct statfs system{};
    const bool memory =
        ::fstat(handle, info) == 0 && S_ISREG(info->st_mode) && ::fstatfs(handle, &system) == 0 && system.f_type == TMPFS_MAGIC;
    const bool ours = memory && (info->st_uid == ::geteuid() || ::geteuid() == 0);
    int fd = -1;
    if (ours) fd = ::open(("/proc/self/fd/" + std::to_string(handle)).c_str(), O_RDWR | O_CLOEXEC);
    const int error = errno;
    ::close(handle);
    *out = fd;
    if (!ours) {
        *why = memory ? "it belongs to another user" : "it is no shared memory";
        return PEGA_INVALID;
    }
    if (fd < 0) {
        *why = std::strerror(error);
        return PEGA_REGION_LOST;
    }
    if (::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        *why = "somebody has it for himself, as an engine has the file of its pool";
        return PEGA_INVALID;
    }
    ::flock(fd, LOCK_UN);
    return PEGA_OK;
}

pega_status map(Mapping& mapping, int fd, std::uint64_t offset, std::uint64_t length, std::string* why) {
    const pega_status status = mapping.open(fd, offset, length);
    if (status != PEGA_OK) *why = status == PEGA_REGION_LOST ? "it is too short" : "it cannot be mapped";
    return status;
}

}  // namespace

SharedObject::SharedObject(SharedObject&& other) noexcept { *this = std::move(other); }

SharedObject& SharedObject::operator=(SharedObject&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(name_, other.name_);
    std::swap(offset_, other.offset_);
    std::swap(mapping_, other.mapping_);
    return *this;
}

SharedObject::~SharedObject() {
    if (fd_ >= 0) ::close(fd_);
}

pega_status SharedObject::create(std::uint64_t length, SharedObject* out) {
    SharedObject object;
    object.fd_ = ::memfd_create("pegaflow", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (object.fd_ < 0 || ::ftruncate(object.fd_, static_cast<off_t>(length)) != 0) return PEGA_NO_MEMORY;
    ::fcntl(object.fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    const pega_status status = object.mapping_.open(object.fd_, 0, length);
    if (status == PEGA_OK) *out = std::move(object);
    return status;
}

pega_status SharedObject::open_named(const std::string& name, std::uint64_t offset, std::uint64_t length, SharedObject* out,
                                     std::string* why) {
    if (name.empty() || name.size() > kMaxName || name.find('/') != std::string::npos || name.find('\0') != std::string::npos) {
        *why = "that is no name of a shared memory object";
        return PEGA_INVALID;
    }
    SharedObject object;
    object.name_ = name;
    struct stat info{};
    pega_status status = open_memory((kSharedMemory + name).c_str(), O_NOFOLLOW, &object.fd_, &info, why);
    if (status != PEGA_OK) return status;
    object.offset_ = offset;
    status = map(object.mapping_, object.fd_, offset, length, why);
    if (status != PEGA_OK) return status;
    // Pages that it has no memory for would be missed only by a copy. Where the file system does not know this, they are.
    if (::fallocate(object.fd_, 0, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0 && errno != EOPNOTSUPP) {
        *why = std::string("there is no memory for all of it: ") + std::strerror(errno);
        return PEGA_NO_MEMORY;
    }
    *out = std::move(object);
    return PEGA_OK;
}

std::vector<std::uint8_t> SharedObject::describe(std::uint32_t type) const {
    Wire wire{};
    wire.magic = kMagic;
    wire.version = kVersion;
    wire.name_length = static_cast<std::uint16_t>(name_.size());
    wire.type = type;
    wire.pid = ::getpid();
    wire.fd = fd_;
    struct stat info{};
    if (::fstat(fd_, &info) == 0) wire.inode = info.st_ino;
    wire.offset = offset_;
    wire.length = length();
    const auto* name = reinterpret_cast<const std::uint8_t*>(name_.data());
    wire.checksum = checksum(wire, name);
    std::vector<std::uint8_t> bytes(sizeof wire + name_.size());
    std::memcpy(bytes.data(), &wire, sizeof wire);
    if (!name_.empty()) std::memcpy(bytes.data() + sizeof wire, name, name_.size());
    return bytes;
}

pega_status SharedObject::import(std::span<const std::uint8_t> bytes, std::uint32_t type, SharedObject* out, std::string* why) {
    Wire wire{};
    if (bytes.size() < sizeof wire) return PEGA_CORRUPT;
    std::memcpy(&wire, bytes.data(), sizeof wire);
    if (wire.magic != kMagic || wire.type != type) return PEGA_CORRUPT;
    if (wire.version != kVersion) return PEGA_UNSUPPORTED;
    const std::uint8_t* name = bytes.data() + sizeof wire;
    if (bytes.size() != sizeof wire + wire.name_length || wire.checksum != checksum(wire, name)) return PEGA_CORRUPT;
    if (wire.name_length != 0) {
        return open_named(std::string(reinterpret_cast<const char*>(name), wire.name_length), wire.offset, wire.length, out,
                          why);
    }
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/fd/%d", wire.pid, wire.fd);
    SharedObject object;
    struct stat info{};
    pega_status status = open_memory(path, 0, &object.fd_, &info, why);
    if (status == PEGA_OK && info.st_ino != wire.inode) {
        *why = "it is another one by now";
        return PEGA_REGION_LOST;
    }
    object.offset_ = wire.offset;
    if (status == PEGA_OK) status = map(object.mapping_, object.fd_, wire.offset, wire.length, why);
    if (status == PEGA_OK) *out = std::move(object);
    return status;
}

}  // namespace backend_common
