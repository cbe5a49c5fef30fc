// SPDX-License-Identifier: Apache-2.0
// container.hpp - the file or block device that a cache lives in: made or recognised, locked, and its space managed.
//
// Blocks of the cache move through a back end; a container does what the kernel is asked for directly: reading what lies there
// at the start, making bytes durable, setting space aside and giving it back. Nothing that it does not recognise is
// overwritten.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/tier/format.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine::tier {

inline constexpr const char* kContainerFile = "pegaflow.tier";  // in a directory

class Container {
public:
    // `path` is a directory (made when only its last component is missing), in which the cache is the file kContainerFile, or a
    // block device. What is not there yet is made, with `capacity` bytes at most; a block device, or a file that is not empty,
    // must be zero for that wherever others keep what names their data. kUnsupported: a later version, left as it is; kInvalid:
    // something else is there; kNotReady: in use by another process; kNoMemory: too small.
    static Result<std::unique_ptr<Container>> open(const std::string& path, std::uint64_t capacity,
                                                   std::uint64_t segment_bytes);
    // As it is, without a lock and without changing anything; `path` may also be the file itself. kNotFound, kCorrupt: no
    // superblock, or one that names more than there is.
    static Result<std::unique_ptr<Container>> open_read_only(const std::string& path);
    ~Container();

    const std::string& path() const noexcept { return path_; }  // of the file or device
    const Superblock& superblock() const noexcept { return superblock_; }
    bool block_device() const noexcept { return block_device_; }
    bool locked_by_other() const noexcept { return locked_by_other_; }

    // Reads exactly out.size() bytes. kRegionLost with errno. [any]
    Result<void> read(std::uint64_t offset, std::span<std::byte> out) const;
    // Everything that was written when the call began is on the device when it returns. [any]
    Result<void> sync() const;
    // Sets space aside, so that writing it cannot fail for lack of space. kNoMemory (the device is full). [any]
    Result<void> reserve(std::uint64_t offset, std::uint64_t length) const;
    // The bytes are not needed any more: the file system or device may forget them. kUnsupported. [any]
    Result<void> discard(std::uint64_t offset, std::uint64_t length) const;

private:
    Container() = default;
    Result<void> open_file(const std::string& path, int flags, bool may_create);
    Result<void> lock() const;
    Result<void> create(std::uint64_t capacity, std::uint64_t segment_bytes);
    Result<void> resize(std::uint64_t capacity);
    Result<void> write_superblock();
    Result<std::uint64_t> size() const;

    std::string path_;
    int fd_ = -1;
    bool block_device_ = false;
    bool locked_by_other_ = false;
    Superblock superblock_;
};

}  // namespace pegaflow::engine::tier
