// SPDX-License-Identifier: Apache-2.0
// operation.hpp - one request that the kernel has, or that waits to be handed to it again: a consecutive range of one file and
// the memory that it moves to or from.
#pragma once

#include <sys/uio.h>

#include <cstdint>

namespace nvme_backend {

class File;
struct Batch;
struct Bounce;

constexpr std::uint32_t kMaxVectors = 128;  // well under IOV_MAX; more memory pieces become further requests

enum class Phase : std::uint8_t {
    kDirect,    // between the caller's memory and the file
    kRead,      // file to bounce buffer, then to the caller's memory
    kFillHead,  // the first block of a write that begins within it
    kFillTail,  // the last one, likewise
    kWrite,     // bounce buffer to file
    kFlush,     // the file's written bytes to the medium
};

struct Operation {
    Batch* batch = nullptr;
    File* file = nullptr;
    Bounce* bounce = nullptr;
    std::uint64_t offset = 0;  // of the caller's bytes in the file
    std::uint64_t length = 0;  // of the caller's bytes
    std::uint64_t begin = 0;   // of the range that the present phase moves
    std::uint64_t end = 0;
    std::uint64_t done = 0;  // of it
    std::uint64_t first_span = 0, last_span = 0, first_element = 0;
    std::uint32_t vector_count = 0;
    int buffer = -1;  // slot of the registered buffer that holds all of the memory
    Phase phase = Phase::kDirect;
    bool write = false;
    bool holds_blocks = false;  // its partial blocks are closed to other unaligned writes
    bool in_kernel = false;
    bool cancel_sent = false;
    bool sync = false;               // its bytes are to be on the medium when it ends
    std::uint32_t refusals = 0;      // EINTR and EAGAIN in a row
    std::uint32_t vector_first = 0;  // the vectors before it have been moved
    std::uint64_t restore_size = 0;  // what the file is cut back to after the write; 0 = nothing
    iovec vectors[kMaxVectors];
};

// Memory that satisfies every device: what unaligned requests go through.
struct Bounce {
    std::uint8_t* memory = nullptr;
};

}  // namespace nvme_backend
