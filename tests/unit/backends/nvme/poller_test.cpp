// SPDX-License-Identifier: Apache-2.0
// Pollers that change: threads that come and go, one that ends in the midst, and a child process.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/backends/nvme/device_test.hpp"

namespace nvme_test {
namespace {

using namespace nvme_backend;

class PollerTest : public NvmeDeviceTest, public ::testing::WithParamInterface<const char*> {};

// Threads that follow each other share addresses, stacks and sometimes ids: a ring must not take the next one for the last.
TEST_P(PollerTest, EachBatchHasAThreadOfItsOwn) {
    PEGA_OPEN({{"ring", GetParam()}});
    const auto bytes = noise(16 * 64 * kKiB, 5);
    const TestFile target(bytes);
    pega_region* const there = file(target.path, bytes.size());
    pega_region* const here = allocate(bytes.size());
    for (std::uint64_t round = 0; round < 16; ++round) {
        std::thread([&] {
            const Flat flat = Flat().piece(round * 64 * kKiB, round * 64 * kKiB, 64 * kKiB);
            const pega_completion done = run(flat, here, there, PEGA_OP_READ, round % 2 == 0);
            EXPECT_EQ(done.status, PEGA_OK) << "round " << round << ", errno " << done.native_code;
        }).join();
    }
    EXPECT_EQ(std::memcmp(here->base, bytes.data(), bytes.size()), 0);
    expect_idle();
    EXPECT_TRUE(said.empty()) << said.front();
}

// It hands requests in, and another thread sees their ends. Unaligned writes go on after their first request.
TEST_P(PollerTest, AThreadThatEndsInTheMidstIsFollowed) {
    PEGA_OPEN({{"ring", GetParam()}, {"depth", "16"}});
    const TestFile target{std::vector<std::uint8_t>(kMiB)};
    auto expected = target.bytes();
    const auto bytes = noise(kMiB, 6);
    pega_region* const there = file(target.path, kMiB);
    pega_region* const here = memory(const_cast<std::uint8_t*>(bytes.data()), kMiB);
    for (std::uint64_t round = 0; round < 8; ++round) {
        Flat flat;
        for (std::uint64_t at = round; at < kMiB / 4; at += 16 * kKiB) flat.piece(at, at + round, 9000);
        for (std::size_t i = 0; i < flat.lengths.size(); ++i)
            std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(flat.memory[i]), flat.lengths[i],
                        expected.begin() + static_cast<std::ptrdiff_t>(flat.file[i]));
        ASSERT_EQ(submit(flat, here, there, PEGA_OP_WRITE), PEGA_OK);
        std::thread([&] {
            const std::lock_guard polling(device->poll_mutex);
            pump(*device, 0);
        }).join();
        const pega_completion done = next(round % 2 == 0);
        ASSERT_EQ(done.status, PEGA_OK) << "round " << round << ", errno " << done.native_code;
        EXPECT_EQ(done.bytes, 9000 * flat.lengths.size());
        expect_idle();
    }
    EXPECT_EQ(target.bytes(), expected);
}

TEST_P(PollerTest, AChildProcessLeavesTheRingAlone) {
    PEGA_OPEN({{"ring", GetParam()}});
    const auto bytes = noise(64 * kKiB, 7);
    const TestFile target(bytes);
    pega_region* const there = file(target.path, bytes.size());
    pega_region* const here = allocate(bytes.size());
    const Flat flat = Flat().piece(0, 0, bytes.size());
    ASSERT_EQ(run(flat, here, there, PEGA_OP_READ).status, PEGA_OK);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        pega_completion record{};
        record.size = sizeof record;
        const bool alone = submit(flat, here, there, PEGA_OP_READ) == PEGA_INVALID &&
                           kCompletionTable.poll(device, &record, 1) == 0 && kCompletionTable.arm(device) == PEGA_PENDING &&
                           kChannelTable.close(channel, 0) == PEGA_OK;
        ::_exit(alone ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    std::memset(here->base, 0xEE, bytes.size());
    ASSERT_EQ(run(flat, here, there, PEGA_OP_READ).status, PEGA_OK);
    EXPECT_EQ(std::memcmp(here->base, bytes.data(), bytes.size()), 0);
    expect_idle();
}

class BurstTest : public NvmeDeviceTest {
protected:
    // How many batches each look reports when all 32 have ended before the first one. Empty when some ended earlier.
    std::vector<std::uint32_t> looks(pega_region* here, pega_region* there) {
        std::vector<Flat> flats(32);
        for (std::uint64_t i = 0; i < flats.size(); ++i) {
            flats[i].piece(i * 4 * kKiB, i * 4 * kKiB, 4 * kKiB);
            EXPECT_EQ(submit(flats[i], here, there, PEGA_OP_READ, i + 1), PEGA_OK);
        }
        poll_once();
        while (device->ring.ended() < device->in_kernel) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const bool all = device->in_kernel == flats.size();
        std::vector<std::uint32_t> out;
        pega_completion records[64];
        records[0].size = sizeof records[0];
        for (std::uint32_t ended = 0; ended < flats.size(); ended += out.back())
            out.push_back(kCompletionTable.poll(device, records, 64));
        expect_idle();
        return all ? out : std::vector<std::uint32_t>();
    }
};

// The device has work again soon, and what follows is not handed in three by three.
TEST_F(BurstTest, IsReportedInLotsThatGrow) {
    PEGA_OPEN({{"ring", "shared"}});  // whose ends are there without a look
    const TestFile target(noise(128 * kKiB, 8));
    pega_region* const there = file(target.path, 128 * kKiB);
    pega_region* const here = allocate(128 * kKiB);
    for (int burst = 0, whole = 0; whole < 2; ++burst) {
        ASSERT_LT(burst, 1000) << "they always end too soon";
        const auto counts = looks(here, there);
        if (counts.empty()) continue;
        EXPECT_THAT(counts, ::testing::ElementsAre(3, 6, 12, 11)) << "burst " << burst;
        ++whole;
    }
}

// The first lot is a part of the batch and brings no record: what else has ended is taken at once, without a wait that would
// make the next lot the first one of a burst again.
TEST_F(BurstTest, IsTakenWithoutAWaitWhenABatchHasSeveralRequests) {
    PEGA_OPEN({{"ring", "shared"}});
    const TestFile target(noise(256 * kKiB, 9));
    pega_region* const there = file(target.path, 256 * kKiB);
    pega_region* const here = allocate(256 * kKiB);
    Flat flat;
    for (std::uint64_t at = 0; at < 256 * kKiB; at += 8 * kKiB) flat.piece(at, at, 4 * kKiB);  // no neighbours
    ASSERT_EQ(submit(flat, here, there, PEGA_OP_READ), PEGA_OK);
    poll_once();
    while (device->ring.ended() < device->in_kernel) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    kernel().waits = 0;
    EXPECT_EQ(next().status, PEGA_OK);
    EXPECT_EQ(kernel().waits, 0U);
    expect_idle();
}

INSTANTIATE_TEST_SUITE_P(Rings, PollerTest, ::testing::Values("deferred", "shared"),
                         [](const auto& ring) { return std::string(ring.param); });

}  // namespace
}  // namespace nvme_test
