// SPDX-License-Identifier: Apache-2.0
// shared_object.hpp - memory that several processes map, and the bytes by which another process finds it.
//
// An object is either a named POSIX shared memory object of somebody else's, or a memfd of ours. A memfd is named by
// /proc/<pid>/fd/<n> and its inode: it vanishes with its last user, so that a process that is killed leaves nothing behind, and
// a reused pid or descriptor is noticed.
//
// Names and bytes come from clients: what they name is opened only when it is memory, a regular file of a tmpfs, and belongs to
// the user of this process, unless that is root, who may serve others; and not when somebody keeps it for himself by an
// exclusive flock, as an engine does with the file of its pool. Nor does it matter what they do to it later (mapping.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/mapping.hpp"
#include "pegaflow/abi/status.h"

namespace backend_common {

// A mapping with its descriptor. Move-only; the destructor unmaps and closes.
class SharedObject {
public:
    SharedObject() noexcept = default;
    SharedObject(SharedObject&& other) noexcept;
    SharedObject& operator=(SharedObject&& other) noexcept;
    ~SharedObject();

    // A new memfd of `length` bytes, which nobody can shorten. OK or NO_MEMORY. [any]
    static pega_status create(std::uint64_t length, SharedObject* out);
    // Maps [offset, offset + length) of the shared memory object `name`, and sees to it that all of that has memory.
    // REGION_LOST when it does not exist or is too short, NO_MEMORY when there is no room for it, INVALID when it is not to be
    // opened; `why` says so in words. [any]
    static pega_status open_named(const std::string& name, std::uint64_t offset, std::uint64_t length, SharedObject* out,
                                  std::string* why);

    // The bytes with which another process maps this object: magic, version, inode, checksum. [any]
    std::vector<std::uint8_t> describe(std::uint32_t type) const;
    // The reverse. CORRUPT, UNSUPPORTED (version), and as open_named. `type` must be the one given to describe. [any]
    static pega_status import(std::span<const std::uint8_t> bytes, std::uint32_t type, SharedObject* out, std::string* why);

    std::uint8_t* data() const noexcept { return mapping_.data(); }
    std::uint64_t length() const noexcept { return mapping_.length(); }
    // Whether its bytes are gone: somebody has shortened it. [data]
    bool lost() const noexcept { return mapping_.lost(); }

private:
    int fd_ = -1;
    std::string name_;  // of the named object; "" for a memfd
    std::uint64_t offset_ = 0;
    Mapping mapping_;
};

}  // namespace backend_common
