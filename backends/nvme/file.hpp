// SPDX-License-Identifier: Apache-2.0
// file.hpp - an open file, block device or NVMe namespace, and what its device asks of requests.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "options.hpp"
#include "pegaflow/abi/status.h"

namespace nvme_backend {

constexpr std::uint32_t kLargestAlign = 65536;  // what a device may ask for

class File {
public:
    // Opens what is at `path`. REGION_LOST (does not exist), UNSUPPORTED (no file or disk, no O_DIRECT, no poll queue), INVALID
    // (no permission); `why` says it in words. [any]
    static pega_status open(const std::string& path, bool read_only, const Options& options, std::shared_ptr<File>* out,
                            std::string* why);
    // A file without a name of at least `length` bytes, allocated on the disk. NO_MEMORY, UNSUPPORTED. [any]
    static pega_status create(std::uint64_t length, const Options& options, std::shared_ptr<File>* out, std::string* why);
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    bool same_as(dev_t other_device, ino_t other_inode, bool other_read_only) const noexcept {
        return device == other_device && inode == other_inode && read_only == other_read_only;
    }
    // Blocks until what was written is on the medium. 0 or an errno. [any]
    int flush() const noexcept;
    // Gives whole units of the range back. 0 or an errno. [any]
    int discard(std::uint64_t offset, std::uint64_t length) const noexcept;

    std::string path;
    int fd = -1;
    dev_t device = 0;
    ino_t inode = 0;
    bool read_only = false;
    bool block_device = false;
    bool passthrough = false;              // requests are NVMe commands
    std::uint64_t size = 0;                // bytes when it was opened
    std::uint32_t offset_align = 512;      // of offsets and lengths
    std::uint32_t memory_align = 512;      // of addresses
    std::uint64_t max_io_bytes = 0;        // one request at most
    std::uint32_t nsid = 0, lba_bits = 0;  // of an NVMe namespace
    int slot = -1;                         // in the ring's table of files; the poller's

private:
    File() = default;
    pega_status examine(const Options& options, std::string* why);
    pega_status examine_disk(dev_t disk, const Options& options, std::string* why);
};

}  // namespace nvme_backend
