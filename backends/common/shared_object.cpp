// SPDX-License-Identifier: Apache-2.0
#include "common/shared_object.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <utility>

#include "pegaflow/backend.hpp"

namespace backend_common {
namespace {

constexpr std::uint32_t kMagic = 0x52484750;  // "PGHR"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kMaxName = 255;

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

}  // namespace

SharedObject::SharedObject(SharedObject&& other) noexcept { *this = std::move(other); }

SharedObject& SharedObject::operator=(SharedObject&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(name_, other.name_);
    std::swap(offset_, other.offset_);
    std::swap(length_, other.length_);
    std::swap(data_, other.data_);
    std::swap(mapping_, other.mapping_);
    std::swap(mapping_length_, other.mapping_length_);
    return *this;
}

SharedObject::~SharedObject() {
    if (mapping_ != nullptr) ::munmap(mapping_, mapping_length_);
    if (fd_ >= 0) ::close(fd_);
}

pega_status SharedObject::map(int fd, std::uint64_t offset, std::uint64_t length) {
    struct stat info{};
    if (::fstat(fd, &info) != 0 || !pegaflow::backend::in_range(offset, length, static_cast<std::uint64_t>(info.st_size))) {
        return PEGA_REGION_LOST;
    }
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t start = offset / page * page;
    mapping_length_ = length + (offset - start);
    void* mapped = ::mmap(nullptr, mapping_length_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(start));
    if (mapped == MAP_FAILED) return PEGA_NO_MEMORY;
    mapping_ = mapped;
    data_ = static_cast<std::uint8_t*>(mapped) + (offset - start);
    offset_ = offset;
    length_ = length;
    return PEGA_OK;
}

pega_status SharedObject::create(std::uint64_t length, SharedObject* out) {
    SharedObject object;
    object.fd_ = ::memfd_create("pegaflow", MFD_CLOEXEC);
    if (object.fd_ < 0 || ::ftruncate(object.fd_, static_cast<off_t>(length)) != 0) return PEGA_NO_MEMORY;
    const pega_status status = object.map(object.fd_, 0, length);
    if (status == PEGA_OK) *out = std::move(object);
    return status;
}

pega_status SharedObject::open_named(const std::string& name, std::uint64_t offset, std::uint64_t length, SharedObject* out) {
    if (name.empty() || name.size() > kMaxName || name.find('/') != std::string::npos || name.find('\0') != std::string::npos) {
        return PEGA_INVALID;
    }
    SharedObject object;
    object.name_ = name;
    object.fd_ = ::shm_open(("/" + name).c_str(), O_RDWR | O_CLOEXEC, 0);
    if (object.fd_ < 0) return PEGA_REGION_LOST;
    const pega_status status = object.map(object.fd_, offset, length);
    if (status == PEGA_OK) *out = std::move(object);
    return status;
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
    wire.length = length_;
    const auto* name = reinterpret_cast<const std::uint8_t*>(name_.data());
    wire.checksum = checksum(wire, name);
    std::vector<std::uint8_t> bytes(sizeof wire + name_.size());
    std::memcpy(bytes.data(), &wire, sizeof wire);
    if (!name_.empty()) std::memcpy(bytes.data() + sizeof wire, name, name_.size());
    return bytes;
}

pega_status SharedObject::import(std::span<const std::uint8_t> bytes, std::uint32_t type, SharedObject* out) {
    Wire wire{};
    if (bytes.size() < sizeof wire) return PEGA_CORRUPT;
    std::memcpy(&wire, bytes.data(), sizeof wire);
    if (wire.magic != kMagic || wire.type != type) return PEGA_CORRUPT;
    if (wire.version != kVersion) return PEGA_UNSUPPORTED;
    const std::uint8_t* name = bytes.data() + sizeof wire;
    if (bytes.size() != sizeof wire + wire.name_length || wire.checksum != checksum(wire, name)) return PEGA_CORRUPT;
    if (wire.name_length != 0) {
        return open_named(std::string(reinterpret_cast<const char*>(name), wire.name_length), wire.offset, wire.length, out);
    }
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/fd/%d", wire.pid, wire.fd);
    SharedObject object;
    object.fd_ = ::open(path, O_RDWR | O_CLOEXEC);
    struct stat info{};
    if (object.fd_ < 0 || ::fstat(object.fd_, &info) != 0 || info.st_ino != wire.inode) return PEGA_REGION_LOST;
    const pega_status status = object.map(object.fd_, wire.offset, wire.length);
    if (status == PEGA_OK) *out = std::move(object);
    return status;
}

}  // namespace backend_common
