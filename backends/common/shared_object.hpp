// SPDX-License-Identifier: Apache-2.0
// shared_object.hpp - memory that several processes map, and the bytes by which another process finds it.
//
// An object is either a named POSIX shared memory object of somebody else's, or a memfd of ours. A memfd is named by
// /proc/<pid>/fd/<n> and its inode: it vanishes with its last user, so that a process that is killed leaves nothing behind, and
// a reused pid or descriptor is noticed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pegaflow/abi/status.h"

namespace backend_common {

// A mapping with its descriptor. Move-only; the destructor unmaps and closes.
class SharedObject {
public:
    SharedObject() noexcept = default;
    SharedObject(SharedObject&& other) noexcept;
    SharedObject& operator=(SharedObject&& other) noexcept;
    ~SharedObject();

    // A new memfd of `length` bytes. OK or NO_MEMORY. [any]
    static pega_status create(std::uint64_t length, SharedObject* out);
    // Maps [offset, offset + length) of the shared memory object `name`. REGION_LOST when it does not exist or is too short.
    // [any]
    static pega_status open_named(const std::string& name, std::uint64_t offset, std::uint64_t length, SharedObject* out);

    // The bytes with which another process maps this object: magic, version, inode, checksum. [any]
    std::vector<std::uint8_t> describe(std::uint32_t type) const;
    // The reverse. CORRUPT, UNSUPPORTED (version), REGION_LOST. `type` must be the one given to describe. [any]
    static pega_status import(std::span<const std::uint8_t> bytes, std::uint32_t type, SharedObject* out);

    std::uint8_t* data() const noexcept { return data_; }
    std::uint64_t length() const noexcept { return length_; }

private:
    pega_status map(int fd, std::uint64_t offset, std::uint64_t length);

    int fd_ = -1;
    std::string name_;  // of the named object; "" for a memfd
    std::uint64_t offset_ = 0;
    std::uint64_t length_ = 0;
    std::uint8_t* data_ = nullptr;
    void* mapping_ = nullptr;  // page aligned start of the mapping
    std::uint64_t mapping_length_ = 0;
};

}  // namespace backend_common
