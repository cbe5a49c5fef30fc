// SPDX-License-Identifier: Apache-2.0
#include "passthrough.hpp"

#include <liburing.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace nvme_backend {
namespace {

constexpr std::uint8_t kFlush = 0x00;
constexpr std::uint8_t kWrite = 0x01;
constexpr std::uint8_t kRead = 0x02;
constexpr std::uint8_t kDatasetManagement = 0x09;
constexpr std::uint8_t kAdminIdentify = 0x06;
constexpr std::uint32_t kDeallocate = 1U << 2;
constexpr std::uint32_t kForceUnitAccess = 1U << 30;
constexpr std::uint64_t kIdentifyBytes = 4096;

std::uint64_t little(const unsigned char* bytes, int count) noexcept {
    std::uint64_t value = 0;
    for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[i];
    return value;
}

std::uint64_t queue_number(const std::string& path, const char* attribute, std::uint64_t fallback) {
    // /dev/ng0n1 and /dev/nvme0n1 share a queue.
    const std::string name = path.substr(path.rfind('/') + 1).substr(2);
    std::ifstream file("/sys/block/nvme" + name + "/queue/" + attribute);
    std::uint64_t value = 0;
    return file >> value ? value : fallback;
}

// The status of a command in the terms of errno: what the controller refused is EIO unless the range was wrong.
int run(int fd, unsigned long request, nvme_passthru_cmd* command) noexcept {
    const int status = ::ioctl(fd, request, command);
    if (status < 0) return errno;
    return status == 0 ? 0 : EIO;
}

}  // namespace

bool NvmeNamespace::is_generic(const std::string& path) noexcept {
    const std::size_t slash = path.rfind('/');
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    return name.size() > 2 && name.starts_with("ng") && name[2] >= '0' && name[2] <= '9';
}

bool NvmeNamespace::identify(int fd, const std::string& path, std::string* why) {
    const int id = ::ioctl(fd, NVME_IOCTL_ID);
    if (id <= 0) {
        *why = path + ": not an NVMe namespace";
        return false;
    }
    nsid = static_cast<std::uint32_t>(id);
    alignas(4096) unsigned char data[kIdentifyBytes] = {};
    nvme_passthru_cmd command{};
    command.opcode = kAdminIdentify;
    command.nsid = nsid;
    command.addr = reinterpret_cast<std::uint64_t>(data);
    command.data_len = sizeof data;
    if (const int error = run(fd, NVME_IOCTL_ADMIN_CMD, &command); error != 0) {
        *why = path + ": the controller does not identify the namespace: " + std::strerror(error);
        return false;
    }
    if (!decode(data, path, why)) return false;
    // A page of a buffer is a segment at worst. Half of what the queue takes: the kernel's own mapping needs room, too.
    const std::uint64_t segments = queue_number(path, "max_segments", 33);
    max_io_bytes =
        std::min(queue_number(path, "max_hw_sectors_kb", 128) << 10, std::max<std::uint64_t>(segments / 2, 1) * 4096);
    max_io_bytes = max_io_bytes >> lba_bits << lba_bits;
    return true;
}

bool NvmeNamespace::decode(const unsigned char* data, const std::string& path, std::string* why) {
    // FLBAS: the number of the format in bits 3:0, its upper part in bits 6:5, of drives with more than 16 of them; in between
    // where metadata is, if any.
    const unsigned format = (data[26] & 0x0FU) | (data[26] & 0x60U) >> 1;
    const unsigned char* lba_format = data + 128 + static_cast<std::size_t>(format) * 4;
    if (little(lba_format, 2) != 0) {
        *why = path + ": a format with metadata per block cannot be served";
        return false;
    }
    lba_bits = lba_format[2];
    const std::uint64_t blocks = little(data, 8);
    if (lba_bits < 9 || lba_bits > 16 || blocks == 0 || blocks > UINT64_MAX >> lba_bits) {
        *why = path + ": " + std::to_string(blocks) + " blocks of 2^" + std::to_string(lba_bits) + " bytes cannot be served";
        return false;
    }
    bytes = blocks << lba_bits;
    return true;
}

int NvmeNamespace::flush(int fd, std::uint32_t nsid) noexcept {
    nvme_passthru_cmd command{};
    command.opcode = kFlush;
    command.nsid = nsid;
    return run(fd, NVME_IOCTL_IO_CMD, &command);
}

int NvmeNamespace::discard(int fd, std::uint32_t nsid, std::uint64_t first_lba, std::uint64_t lbas) noexcept {
    while (lbas != 0) {
        const std::uint64_t now = std::min<std::uint64_t>(lbas, UINT32_MAX);
        struct {
            std::uint32_t attributes, length;
            std::uint64_t first;
        } range = {0, static_cast<std::uint32_t>(now), first_lba};
        nvme_passthru_cmd command{};
        command.opcode = kDatasetManagement;
        command.nsid = nsid;
        command.addr = reinterpret_cast<std::uint64_t>(&range);
        command.data_len = sizeof range;
        command.cdw11 = kDeallocate;
        if (const int error = run(fd, NVME_IOCTL_IO_CMD, &command); error != 0) return error;
        first_lba += now;
        lbas -= now;
    }
    return 0;
}

void prepare(io_uring_sqe* entry, const NvmeCommand& c) noexcept {
    std::memset(entry, 0, 128);
    entry->opcode = IORING_OP_URING_CMD;
    entry->fd = c.fd;
    entry->cmd_op = c.vectored ? NVME_URING_CMD_IO_VEC : NVME_URING_CMD_IO;
    if (c.buffer >= 0) {
        entry->uring_cmd_flags = IORING_URING_CMD_FIXED;
        entry->buf_index = static_cast<std::uint16_t>(c.buffer);
    }
    nvme_uring_cmd command{};
    command.opcode = c.write ? kWrite : kRead;
    command.nsid = c.nsid;
    command.addr = reinterpret_cast<std::uint64_t>(c.memory);
    command.data_len = c.length;
    const std::uint64_t lba = c.offset >> c.lba_bits;
    command.cdw10 = static_cast<std::uint32_t>(lba);
    command.cdw11 = static_cast<std::uint32_t>(lba >> 32);
    command.cdw12 = static_cast<std::uint32_t>((c.total >> c.lba_bits) - 1) | (c.durable ? kForceUnitAccess : 0);
    std::memcpy(entry->cmd, &command, sizeof command);
}

void prepare_flush(io_uring_sqe* entry, int fd, std::uint32_t nsid) noexcept {
    std::memset(entry, 0, 128);
    entry->opcode = IORING_OP_URING_CMD;
    entry->fd = fd;
    entry->cmd_op = NVME_URING_CMD_IO;
    nvme_uring_cmd command{};
    command.opcode = kFlush;
    command.nsid = nsid;
    std::memcpy(entry->cmd, &command, sizeof command);
}

}  // namespace nvme_backend
