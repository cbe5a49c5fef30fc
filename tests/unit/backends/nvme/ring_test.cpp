// SPDX-License-Identifier: Apache-2.0
// Rings that the kernel gives only in part: flags that it does not know, memory that it does not register.
#include <sys/mman.h>

#include "tests/unit/backends/nvme/device_test.hpp"

namespace nvme_test {
namespace {

using namespace nvme_backend;

class RingTest : public NvmeDeviceTest {
protected:
    // Moves bytes both ways.
    void expect_moves() {
        const auto bytes = noise(256 * kKiB, 8);
        const TestFile target(std::vector<std::uint8_t>(256 * kKiB));
        pega_region* const there = file(target.path, bytes.size());
        pega_region* const here = allocate(bytes.size());
        std::memcpy(here->base, bytes.data(), bytes.size());
        const Flat flat = Flat().piece(0, 0, 100'000).piece(131072, 131072, 65536);
        EXPECT_EQ(run(flat, here, there, PEGA_OP_WRITE).status, PEGA_OK);
        std::memset(here->base, 0xEE, bytes.size());
        EXPECT_EQ(run(flat, here, there, PEGA_OP_READ).status, PEGA_OK);
        EXPECT_EQ(std::memcmp(here->base, bytes.data(), 100'000), 0);
        EXPECT_EQ(std::memcmp(here->base + 131072, bytes.data() + 131072, 65536), 0);
        expect_idle();
    }
};

TEST_F(RingTest, AKernelThatKnowsLessGivesAPlainerRing) {
    const struct {
        unsigned unknown;
        const char* ring;
        unsigned got, not_got;
    } cases[] = {
        {0, "deferred", IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL, 0},
        {IORING_SETUP_DEFER_TASKRUN, "deferred", IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL,
         IORING_SETUP_SINGLE_ISSUER},
        {IORING_SETUP_SINGLE_ISSUER, "deferred", IORING_SETUP_COOP_TASKRUN, IORING_SETUP_DEFER_TASKRUN},
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN, "deferred", IORING_SETUP_SUBMIT_ALL,
         IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG},
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "deferred", 0,
         IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG},
        {0, "shared", IORING_SETUP_SUBMIT_ALL, IORING_SETUP_SINGLE_ISSUER},
        {IORING_SETUP_SUBMIT_ALL, "shared", 0, IORING_SETUP_SINGLE_ISSUER},
    };
    for (const auto& c : cases) {
        SCOPED_TRACE(testing::Message() << c.ring << ", unknown flags " << std::hex << c.unknown);
        kernel() = {};
        kernel().unknown_flags = c.unknown;
        PEGA_OPEN({{"ring", c.ring}});
        expect_moves();
        const unsigned flags = device->ring.raw().flags;
        EXPECT_EQ(flags & c.got, c.got);
        EXPECT_EQ(flags & (c.not_got | c.unknown), 0U);
        close_device(std::exchange(device, nullptr));
    }
}

TEST_F(RingTest, WhatNoKernelGivesIsRefusedInWords) {
    kernel().unknown_flags = IORING_SETUP_CLAMP;
    EXPECT_EQ(open({{"ring", "deferred"}}), PEGA_UNSUPPORTED);
    EXPECT_EQ(kernel().rings.size(), 4U) << "every set of flags";
    ASSERT_EQ(said.size(), 1U);
    EXPECT_THAT(said.front(), ::testing::HasSubstr("refuses a ring"));
    kernel().rings.clear();
    kernel().setup_error = ENOMEM;
    EXPECT_EQ(open({{"ring", "deferred"}}), PEGA_NO_MEMORY);
    EXPECT_EQ(kernel().rings.size(), 1U) << "other flags do not make memory";
}

TEST_F(RingTest, MemoryThatIsNotRegisteredIsMovedAllTheSame) {
    kernel().on_buffer = [](const iovec&) { return ENOMEM; };
    bool fixed = false;
    kernel().on_request = [&](const io_uring_sqe& request) {
        fixed = fixed || request.opcode == IORING_OP_READ_FIXED || request.opcode == IORING_OP_WRITE_FIXED;
    };
    PEGA_OPEN({});
    expect_moves();
    expect_moves();
    EXPECT_FALSE(fixed);
    ASSERT_EQ(said.size(), 1U) << "it is said once";
    EXPECT_THAT(said.front(), ::testing::HasSubstr("cannot be registered"));
}

TEST_F(RingTest, MemoryIsRegisteredInTheLargestPartsThatTheKernelTakes) {
    std::vector<std::uint64_t> asked;
    kernel().on_buffer = [&](const iovec& part) {
        asked.push_back(part.iov_len);
        return part.iov_len > 2 * kMiB ? EFAULT : 0;
    };
    PEGA_OPEN({});
    const TestFile target(noise(7 * kMiB, 9));
    pega_region* const there = file(target.path, 7 * kMiB);
    pega_region* const here = allocate(7 * kMiB);
    bool fixed = false;
    kernel().on_request = [&](const io_uring_sqe& request) { fixed = fixed || request.opcode == IORING_OP_READ_FIXED; };
    // Over the ends of parts, and within them.
    ASSERT_EQ(run(Flat().piece(0, 0, 7 * kMiB), here, there, PEGA_OP_READ).status, PEGA_OK);
    EXPECT_EQ(std::memcmp(here->base, target.bytes().data(), 7 * kMiB), 0);
    if (here->buffer < 0) GTEST_SKIP() << "this process may not lock so much memory";
    EXPECT_TRUE(fixed);
    EXPECT_EQ(here->slice_bytes, 2 * kMiB);
    EXPECT_EQ(asked, (std::vector<std::uint64_t>{7 * kMiB, 4 * kMiB, 2 * kMiB, 2 * kMiB, 2 * kMiB, kMiB}));
    EXPECT_TRUE(said.empty()) << said.front();
}

// More than the kernel takes as one buffer. The memory is the same 64 MiB again and again: only addresses matter.
TEST_F(RingTest, MemoryOfMoreThanAGigabyteIsSeveralBuffers) {
    constexpr std::uint64_t kTile = 64 * kMiB, kTiles = 20, kGiB = 1 << 30;
    PEGA_OPEN({});
    const int shared = ::memfd_create("tiles", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(shared, kTile), 0);
    void* const all = ::mmap(nullptr, kTiles * kTile, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(all, MAP_FAILED);
    auto* const base = static_cast<std::uint8_t*>(all);
    for (std::uint64_t i = 0; i < kTiles; ++i)
        ASSERT_NE(::mmap(base + i * kTile, kTile, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, shared, 0), MAP_FAILED);
    std::vector<std::uint64_t> asked;
    kernel().on_buffer = [&](const iovec& part) {
        asked.push_back(part.iov_len);
        return 0;
    };
    const TestFile target(noise(kMiB, 10));
    const auto bytes = target.bytes();
    pega_region* const there = file(target.path, kMiB);
    pega_region* const here = memory(base, kTiles * kTile);
    std::vector<unsigned> slots;
    kernel().on_request = [&](const io_uring_sqe& request) {
        if (request.opcode == IORING_OP_READ_FIXED) slots.push_back(request.buf_index);
    };
    for (const std::uint64_t at : {std::uint64_t{0}, kGiB - 512 * kKiB, kGiB, kTiles * kTile - kMiB}) {
        std::memset(base + at, 0xEE, kMiB);
        ASSERT_EQ(run(Flat().piece(at, 0, kMiB), here, there, PEGA_OP_READ).status, PEGA_OK);
        ASSERT_EQ(std::memcmp(base + at, bytes.data(), kMiB), 0) << "at " << at;
    }
    expect_idle();
    ASSERT_FALSE(asked.empty());
    EXPECT_EQ(asked.front(), kGiB);
    if (here->buffer >= 0) {
        EXPECT_EQ(asked, (std::vector<std::uint64_t>{kGiB, kTiles * kTile - kGiB}));
        const auto first = static_cast<unsigned>(here->buffer);
        EXPECT_EQ(slots, (std::vector<unsigned>{first, first + 1, first + 1})) << "what lies in two goes without";
    }
    EXPECT_EQ(kRegionTable.unregister(here), PEGA_OK);
    poll_once();
    ::munmap(all, kTiles * kTile);
    ::close(shared);
}

}  // namespace
}  // namespace nvme_test
