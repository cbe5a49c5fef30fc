// SPDX-License-Identifier: Apache-2.0
#include "file.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "passthrough.hpp"

namespace nvme_backend {
namespace {

constexpr std::uint64_t kFileBlock = 4096;

pega_status open_status(int error) noexcept {
    switch (error) {
        case ENOENT:
        case ENXIO:
        case ENODEV:
        case ENOTDIR:
            return PEGA_REGION_LOST;
        case ENOMEM:
        case EMFILE:
        case ENFILE:
        case ENOSPC:
            return PEGA_NO_MEMORY;
        case EOPNOTSUPP:
            return PEGA_UNSUPPORTED;
        default:
            return PEGA_INVALID;
    }
}

// A number that the kernel says about a disk, or `fallback`. Partitions have their queue one level up.
std::uint64_t queue_attribute(dev_t disk, const char* name, std::uint64_t fallback) {
    const std::string base = "/sys/dev/block/" + std::to_string(major(disk)) + ":" + std::to_string(minor(disk));
    for (const char* queue : {"/queue/", "/../queue/"}) {
        std::ifstream file(base + queue + name);
        std::uint64_t value = 0;
        if (file >> value) return value;
    }
    return fallback;
}

bool is_power_of_two(std::uint32_t value) noexcept { return value != 0 && (value & (value - 1)) == 0; }

}  // namespace

File::~File() {
    if (fd >= 0) ::close(fd);
}

pega_status File::open(const std::string& path, bool read_only, const Options& options, std::shared_ptr<File>* out,
                       std::string* why) {
    std::shared_ptr<File> file(new File);
    file->path = path;
    file->read_only = read_only;
    const bool generic = NvmeNamespace::is_generic(path);
    const int flags = (read_only && !generic ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK;
    file->fd = ::open(path.c_str(), flags | (options.direct && !generic ? O_DIRECT : 0));
    if (file->fd < 0 && errno == EINVAL && options.direct) {
        *why = path + ": this file system has no O_DIRECT (the option direct=off uses the page cache instead)";
        return PEGA_UNSUPPORTED;
    }
    if (file->fd < 0) {
        const int error = errno;
        *why = path + ": " + std::strerror(error);
        return open_status(error);
    }
    const pega_status status = file->examine(options, why);
    if (status == PEGA_OK) *out = std::move(file);
    return status;
}

pega_status File::create(std::uint64_t length, const Options& options, std::shared_ptr<File>* out, std::string* why) {
    std::shared_ptr<File> file(new File);
    file->path = options.directory;
    file->fd = ::open(options.directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | (options.direct ? O_DIRECT : 0), 0600);
    const std::uint64_t rounded = (length + kLargestAlign - 1) / kLargestAlign * kLargestAlign;
    if (file->fd < 0 || (::fallocate(file->fd, 0, 0, static_cast<off_t>(rounded)) != 0 && errno != EOPNOTSUPP) ||
        ::ftruncate(file->fd, static_cast<off_t>(rounded)) != 0) {
        const int error = errno;
        *why = "cannot make a file of " + std::to_string(length) + " bytes in " + options.directory + ": " +
               std::strerror(error) + " (the option directory=PATH chooses another place)";
        return error == ENOSPC ? PEGA_NO_MEMORY : PEGA_UNSUPPORTED;
    }
    const pega_status status = file->examine(options, why);
    if (status == PEGA_OK) *out = std::move(file);
    return status;
}

pega_status File::examine(const Options& options, std::string* why) {
    struct stat info{};
    if (::fstat(fd, &info) != 0) return PEGA_REGION_LOST;
    device = info.st_dev;
    inode = info.st_ino;
    max_io_bytes = options.io_bytes;
    if (S_ISCHR(info.st_mode)) {
        if (!options.passthrough) {
            *why = path + ": NVMe passthrough needs the option passthrough=on";
            return PEGA_UNSUPPORTED;
        }
        NvmeNamespace found;
        if (!found.identify(fd, path, why)) return PEGA_UNSUPPORTED;
        passthrough = true;
        nsid = found.nsid;
        lba_bits = found.lba_bits;
        size = found.bytes;
        offset_align = 1U << lba_bits;
        memory_align = 4;
        max_io_bytes = std::min(max_io_bytes, found.max_io_bytes);
        return PEGA_OK;
    }
    if (S_ISREG(info.st_mode)) {
        size = static_cast<std::uint64_t>(info.st_size);
        return examine_disk(info.st_dev, options, why);
    }
    if (!S_ISBLK(info.st_mode)) {
        *why = path + ": neither a file nor a block device";
        return PEGA_UNSUPPORTED;
    }
    block_device = true;
    if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return PEGA_REGION_LOST;
    int sector = 512;
    if (::ioctl(fd, BLKSSZGET, &sector) == 0) offset_align = memory_align = static_cast<std::uint32_t>(sector);
    return examine_disk(info.st_rdev, options, why);
}

pega_status File::examine_disk(dev_t disk, const Options& options, std::string* why) {
    if (!options.direct) {
        offset_align = memory_align = 1;
    } else {
#ifdef STATX_DIOALIGN
        struct statx more{};
        if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &more) == 0 && (more.stx_mask & STATX_DIOALIGN) != 0) {
            offset_align = more.stx_dio_offset_align;
            memory_align = more.stx_dio_mem_align;
            if (offset_align == 0) {
                *why = path + ": this file cannot be read and written past the page cache (the option direct=off uses it)";
                return PEGA_UNSUPPORTED;
            }
        } else  // an older kernel: what the disk says holds for its files as well
#endif
            offset_align = memory_align = std::max<std::uint32_t>(
                offset_align,
                static_cast<std::uint32_t>(queue_attribute(disk, "logical_block_size", block_device ? 512 : 4096)));
    }
    if (!is_power_of_two(offset_align) || !is_power_of_two(memory_align) || offset_align > kLargestAlign) {
        *why = path + ": an alignment of " + std::to_string(offset_align) + " bytes cannot be served";
        return PEGA_UNSUPPORTED;
    }
    max_io_bytes = std::max<std::uint64_t>(max_io_bytes, offset_align);
    if (!options.poll) return PEGA_OK;
    if (queue_attribute(disk, "io_poll", 0) == 0) {
        *why = path + ": its device has no poll queues (module parameter nvme.poll_queues), which the option poll=on needs";
        return PEGA_UNSUPPORTED;
    }
    // A polled request that the kernel would have to split comes back as EAGAIN for ever. A page is a segment at worst, and a
    // block in two pages is one that some kernels do not take at all.
    memory_align = std::max(memory_align, offset_align);
    const std::uint64_t pages = std::max<std::uint64_t>(queue_attribute(disk, "max_segments", 33) / 2, 1);
    const std::uint64_t whole = std::min(queue_attribute(disk, "max_sectors_kb", 128) << 10, pages * kFileBlock);
    max_io_bytes = std::max<std::uint64_t>(std::min(max_io_bytes, whole / offset_align * offset_align), offset_align);
    return PEGA_OK;
}

int File::flush() const noexcept {
    if (passthrough) return NvmeNamespace::flush(fd, nsid);
    return ::fdatasync(fd) == 0 ? 0 : errno;
}

int File::discard(std::uint64_t offset, std::uint64_t length) const noexcept {
    // Of a file only whole blocks of the file system are given back: it would overwrite parts of them.
    const std::uint64_t unit = std::max<std::uint64_t>(offset_align, block_device || passthrough ? 1 : kFileBlock);
    const std::uint64_t first = (offset + unit - 1) / unit * unit;
    const std::uint64_t last = (offset + length) / unit * unit;
    if (first >= last) return 0;
    if (passthrough) return NvmeNamespace::discard(fd, nsid, first >> lba_bits, (last - first) >> lba_bits);
    if (block_device) {
        std::uint64_t range[2] = {first, last - first};
        return ::ioctl(fd, BLKDISCARD, range) == 0 ? 0 : errno;
    }
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return ::fallocate(fd, mode, static_cast<off_t>(first), static_cast<off_t>(last - first)) == 0 ? 0 : errno;
}

}  // namespace nvme_backend
