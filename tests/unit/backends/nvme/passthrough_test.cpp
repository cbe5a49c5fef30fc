// SPDX-License-Identifier: Apache-2.0
#include "backends/nvme/passthrough.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <liburing.h>

#include <linux/nvme_ioctl.h>
#include <array>
#include <cstring>

namespace nvme_backend {
namespace {

// What a controller tells of a namespace, as far as it is looked at (NVM Command Set, Identify Namespace).
class Identify {
public:
    explicit Identify(std::uint64_t blocks) {
        for (int i = 0; i < 8; ++i) data_[static_cast<std::size_t>(i)] = static_cast<unsigned char>(blocks >> (8 * i));
    }
    Identify& format(unsigned number, unsigned lba_bits, unsigned metadata_bytes = 0) {
        unsigned char* const at = data_.data() + 128 + number * 4;
        at[0] = static_cast<unsigned char>(metadata_bytes);
        at[1] = static_cast<unsigned char>(metadata_bytes >> 8);
        at[2] = static_cast<unsigned char>(lba_bits);
        return *this;
    }
    Identify& formatted(unsigned flbas) {
        data_[26] = static_cast<unsigned char>(flbas);
        return *this;
    }
    const unsigned char* data() const { return data_.data(); }

private:
    std::array<unsigned char, 4096> data_{};
};

TEST(NvmeNamespaceTest, TheFormatInUseSaysHowLargeABlockIs) {
    NvmeNamespace found;
    std::string why;
    Identify drive(1000);
    drive.format(0, 9).format(3, 12);
    ASSERT_TRUE(found.decode(drive.formatted(0).data(), "/dev/ng0n1", &why)) << why;
    EXPECT_EQ(found.lba_bits, 9U);
    EXPECT_EQ(found.bytes, 512'000U);
    ASSERT_TRUE(found.decode(drive.formatted(3).data(), "/dev/ng0n1", &why)) << why;
    EXPECT_EQ(found.lba_bits, 12U);
    EXPECT_EQ(found.bytes, 4'096'000U);
}

// A drive with many formats: the lower four bits alone name another one.
TEST(NvmeNamespaceTest, FormatsBeyondTheSixteenthAreFound) {
    for (unsigned number = 0; number < 64; ++number) {
        Identify drive(77);
        for (unsigned other = 0; other < 64; ++other) drive.format(other, 9, 8);
        drive.format(number, 12).formatted((number & 15) | (number >> 4) << 5);
        NvmeNamespace found;
        std::string why;
        ASSERT_TRUE(found.decode(drive.data(), "/dev/ng0n1", &why)) << "format " << number << ": " << why;
        EXPECT_EQ(found.lba_bits, 12U);
    }
}

TEST(NvmeNamespaceTest, WhereMetadataWouldBeIsNoPartOfTheNumber) {
    Identify drive(77);
    drive.format(2, 12).formatted(2 | 1 << 4);
    NvmeNamespace found;
    std::string why;
    ASSERT_TRUE(found.decode(drive.data(), "/dev/ng0n1", &why)) << why;
    EXPECT_EQ(found.lba_bits, 12U);
}

TEST(NvmeNamespaceTest, FormatsThatCannotBeServedAreRefusedInWords) {
    NvmeNamespace found;
    std::string why;
    EXPECT_FALSE(found.decode(Identify(77).format(0, 12, 8).data(), "/dev/ng0n1", &why));
    EXPECT_THAT(why, ::testing::HasSubstr("metadata"));
    EXPECT_FALSE(found.decode(Identify(77).format(0, 8).data(), "/dev/ng0n1", &why));
    EXPECT_FALSE(found.decode(Identify(77).format(0, 17).data(), "/dev/ng0n1", &why));
    EXPECT_FALSE(found.decode(Identify(0).format(0, 12).data(), "/dev/ng0n1", &why));
    EXPECT_FALSE(found.decode(Identify(UINT64_MAX).format(0, 12).data(), "/dev/ng0n1", &why))
        << "more bytes than there are numbers";
}

TEST(NvmeNamespaceTest, OnlyCharacterDevicesOfNamespacesAreTakenForThem) {
    for (const char* path : {"/dev/ng0n1", "/dev/ng12n3", "ng0n1"}) EXPECT_TRUE(NvmeNamespace::is_generic(path)) << path;
    for (const char* path : {"/dev/nvme0n1", "/dev/ng", "/dev/ngx", "/tmp/ng0/file"})
        EXPECT_FALSE(NvmeNamespace::is_generic(path)) << path;
}

TEST(NvmeCommandTest, APlaceBeyondFourGigabytesOfBlocksAndALengthArePutWhereTheyBelong) {
    alignas(io_uring_sqe) unsigned char room[128];
    auto* const entry = reinterpret_cast<io_uring_sqe*>(room);
    const std::uint64_t lba = 0x1'2345'6789ULL;
    prepare(entry, {7, 1, 12, lba << 12, room, 64 << 10, 64 << 10, false, true, true, -1});
    nvme_uring_cmd command;
    std::memcpy(&command, entry->cmd, sizeof command);
    EXPECT_EQ(entry->opcode, IORING_OP_URING_CMD);
    EXPECT_EQ(command.opcode, 1);  // write
    EXPECT_EQ(command.cdw10, 0x2345'6789U);
    EXPECT_EQ(command.cdw11, 1U);
    EXPECT_EQ(command.cdw12 & 0xFFFFU, 15U) << "blocks, less one";
    EXPECT_NE(command.cdw12 & 1U << 30, 0U) << "forced unit access";
}

}  // namespace
}  // namespace nvme_backend
