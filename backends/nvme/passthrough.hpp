// SPDX-License-Identifier: Apache-2.0
// passthrough.hpp - an NVMe namespace behind its character device (/dev/ng*): what it is, and the commands that serve it.
#pragma once

#include <cstdint>
#include <string>

struct io_uring_sqe;

namespace nvme_backend {

struct NvmeNamespace {
    std::uint32_t nsid = 0;
    std::uint32_t lba_bits = 9;
    std::uint64_t bytes = 0;
    std::uint64_t max_io_bytes = 0;

    // True for /dev/ng*, which must be opened for writing even to read. [any]
    static bool is_generic(const std::string& path) noexcept;
    // Asks the controller. False when it is no NVMe namespace or has a format that cannot be served; `why` says it. [any]
    bool identify(int fd, const std::string& path, std::string* why);
    // What the controller told about the namespace: its format and size. `data` is a whole identify structure. As identify.
    // [any]
    bool decode(const unsigned char* data, const std::string& path, std::string* why);
    // 0 or an errno; both block. [any]
    static int flush(int fd, std::uint32_t nsid) noexcept;
    static int discard(int fd, std::uint32_t nsid, std::uint64_t first_lba, std::uint64_t lbas) noexcept;
};

// One command of the ring. Fills a submission entry of 128 bytes.
struct NvmeCommand {
    int fd;  // or the slot of a registered file, with the flag set by the caller
    std::uint32_t nsid, lba_bits;
    std::uint64_t offset;  // bytes
    const void* memory;    // one buffer, or an array of iovec
    std::uint32_t length;  // bytes, or vectors
    std::uint64_t total;   // bytes
    bool vectored, write, durable;
    int buffer;  // slot of a registered buffer; -1 = none
};
void prepare(io_uring_sqe* entry, const NvmeCommand& command) noexcept;
void prepare_flush(io_uring_sqe* entry, int fd, std::uint32_t nsid) noexcept;

}  // namespace nvme_backend
