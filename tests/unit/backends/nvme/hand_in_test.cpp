// SPDX-License-Identifier: Apache-2.0
// Handing requests in: what the kernel does not take now goes later, what it never takes ends, and nothing is lost.
#include "tests/unit/backends/nvme/device_test.hpp"

namespace nvme_test {
namespace {

using namespace nvme_backend;

// A ring of each kind, slept in and looked at.
class HandInTest : public NvmeDeviceTest, public ::testing::WithParamInterface<std::tuple<const char*, bool>> {
protected:
    Options options() const { return {{"ring", std::get<0>(GetParam())}, {"depth", "8"}}; }
    bool sleeps() const { return std::get<1>(GetParam()); }
};

TEST_P(HandInTest, WhatIsNotTakenNowGoesLater) {
    PEGA_OPEN(options());
    const auto bytes = noise(kMiB, 1);
    const TestFile target(bytes);
    pega_region* const there = file(target.path, kMiB);
    pega_region* const here = allocate(kMiB);
    Flat flat;
    for (std::uint64_t at = 0; at < kMiB; at += 8 * kKiB) flat.piece(at, at, 4 * kKiB);  // no neighbours
    for (const int error : {EINTR, EAGAIN, EBUSY}) {
        for (int times = 1; times <= 6; ++times) {
            std::memset(here->base, 0xEE, kMiB);
            kernel().refusals.assign(static_cast<std::size_t>(times), error);
            const pega_completion done = run(flat, here, there, PEGA_OP_READ, sleeps());
            ASSERT_EQ(done.status, PEGA_OK) << "errno " << done.native_code;
            EXPECT_TRUE(kernel().refusals.empty());
            for (std::uint64_t at = 0; at < kMiB; at += 8 * kKiB)
                ASSERT_EQ(std::memcmp(here->base + at, bytes.data() + at, 4 * kKiB), 0) << "at " << at;
            expect_idle();
        }
    }
    EXPECT_TRUE(said.empty()) << said.front();
}

TEST_P(HandInTest, WhatIsNeverTakenEndsAsFailedAndTheNextRingIsNew) {
    PEGA_OPEN(options());
    const auto bytes = noise(kMiB, 2);
    const TestFile target(bytes);
    pega_region* const there = file(target.path, kMiB);
    pega_region* const here = allocate(kMiB);
    Flat flat;
    for (std::uint64_t at = 0; at < kMiB; at += 8 * kKiB) flat.piece(at, at, 4 * kKiB);
    ASSERT_EQ(run(flat, here, there, PEGA_OP_READ, sleeps()).status, PEGA_OK);
    const std::size_t rings = kernel().rings.size();
    kernel().refusals = {EEXIST};
    const pega_completion failed = run(flat, here, there, PEGA_OP_READ, sleeps());
    EXPECT_EQ(failed.status, PEGA_REGION_LOST);
    EXPECT_EQ(failed.native_code, EEXIST);
    EXPECT_EQ(failed.first_bad, 0U);
    EXPECT_NE(failed.flags & PEGA_COMPLETION_QUIESCED, 0U);
    expect_idle();
    EXPECT_GT(kernel().rings.size(), rings);
    ASSERT_EQ(said.size(), 1U);
    EXPECT_THAT(said.front(), ::testing::HasSubstr("takes no requests"));
    std::memset(here->base, 0xEE, kMiB);
    EXPECT_EQ(run(flat, here, there, PEGA_OP_READ, sleeps()).status, PEGA_OK);
    EXPECT_EQ(std::memcmp(here->base, bytes.data(), 4 * kKiB), 0);
    expect_idle();
}

// The kernel has some requests of the batch when it takes no more: the batch ends when those have.
TEST_P(HandInTest, WhatTheKernelHasIsWaitedFor) {
    PEGA_OPEN(options());
    const TestFile target(noise(kMiB, 3));
    pega_region* const there = file(target.path, kMiB);
    pega_region* const here = allocate(kMiB);
    Flat flat;
    for (std::uint64_t at = 0; at < kMiB; at += 8 * kKiB) flat.piece(at, at, 4 * kKiB);
    std::uint64_t taken = 0;
    kernel().on_request = [&](const io_uring_sqe& request) {
        // The requests of the first hand-in are taken; none of the next ones.
        if (request.user_data > 1 && ++taken == 1) kernel().refusals.assign(1000, EBADR);
    };
    const pega_completion failed = run(flat, here, there, PEGA_OP_READ, sleeps());
    EXPECT_EQ(failed.status, PEGA_REGION_LOST);
    EXPECT_EQ(failed.native_code, EBADR);
    EXPECT_GT(taken, 0U);
    EXPECT_LT(failed.bytes, 128 * 4 * kKiB);
    expect_idle();
    kernel() = {};
    EXPECT_EQ(run(flat, here, there, PEGA_OP_READ, sleeps()).status, PEGA_OK);
}

// Else a caller would sleep until something ends that the kernel does not have.
TEST_P(HandInTest, NobodySleepsOverWhatIsNotHandedIn) {
    PEGA_OPEN(options());
    const TestFile target(noise(4 * kKiB, 4));
    pega_region* const there = file(target.path, 4 * kKiB);
    pega_region* const here = allocate(4 * kKiB);
    poll_once();
    const Flat flat = Flat().piece(0, 0, 4 * kKiB);
    ASSERT_EQ(submit(flat, here, there, PEGA_OP_READ), PEGA_OK);
    kernel().refusals = {EAGAIN, EAGAIN};  // as it looks, and as it leaves
    poll_once();
    ASSERT_TRUE(kernel().refusals.empty());
    EXPECT_TRUE(device->ring.unsent());
    EXPECT_EQ(kCompletionTable.arm(device), PEGA_PENDING);
    EXPECT_EQ(next(sleeps()).status, PEGA_OK);
    expect_idle();
}

INSTANTIATE_TEST_SUITE_P(Rings, HandInTest, ::testing::Combine(::testing::Values("deferred", "shared"), ::testing::Bool()),
                         [](const auto& ring) {
                             return std::string(std::get<0>(ring.param)) + (std::get<1>(ring.param) ? "Slept" : "Polled");
                         });

}  // namespace
}  // namespace nvme_test
