// SPDX-License-Identifier: Apache-2.0
// mapping.hpp - a shared mapping of an object that others can shorten while we use it, and live.
//
// Touching a page that an object no longer has, or for which its file system has no room, is a SIGBUS: whoever shares memory
// with this process could end it. A handler of that signal, installed with the first mapping, puts memory of our own, zeros,
// where such a mapping was and notes that it is lost; the access goes on, and costs nothing while all is well. Faults anywhere
// else go to the handler that was there before. (ADR 0019)
#pragma once

#include <atomic>
#include <cstdint>

#include "pegaflow/abi/status.h"

namespace backend_common {

struct WatchedRange;

// Move-only; the destructor unmaps.
class Mapping {
public:
    Mapping() noexcept = default;
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    // Maps [offset, offset + length) of `fd`, which stays the caller's; this one is empty before. OK, REGION_LOST (the object
    // is shorter) or NO_MEMORY. [any]
    pega_status open(int fd, std::uint64_t offset, std::uint64_t length);

    std::uint8_t* data() const noexcept { return data_; }
    std::uint64_t length() const noexcept { return length_; }
    // Whether the object's bytes are gone. What was read before this said no were its bytes. [data]
    bool lost() const noexcept { return lost_ != nullptr && lost_->load(std::memory_order_acquire); }

private:
    std::uint8_t* data_ = nullptr;
    std::uint64_t length_ = 0;
    const std::atomic<bool>* lost_ = nullptr;  // of range_
    WatchedRange* range_ = nullptr;            // whole pages, in the table of the handler
};

}  // namespace backend_common
