// SPDX-License-Identifier: Apache-2.0
// Requests that come back otherwise than asked: in part, interrupted, refused, failed, and more at once than there is room for.
#include <climits>

#include "tests/unit/backends/nvme/device_test.hpp"

namespace nvme_test {
namespace {

using namespace nvme_backend;

bool moves_bytes(const io_uring_sqe& request) {
    return request.opcode == IORING_OP_READ || request.opcode == IORING_OP_WRITE || request.opcode == IORING_OP_READ_FIXED ||
           request.opcode == IORING_OP_WRITE_FIXED;
}
bool has_vectors(const io_uring_sqe& request) {
    return request.opcode == IORING_OP_READV || request.opcode == IORING_OP_WRITEV;
}
bool ours(const io_uring_cqe& completion) { return completion.user_data > 1; }

// Aligned pieces, a vector of some, unaligned ones, and a large one.
Flat mixture() {
    Flat flat;
    flat.piece(0, 0, 768 * kKiB);
    for (std::uint64_t i = 0; i < 40; ++i) flat.piece(kMiB + 8 * kKiB * i, kMiB + 4 * kKiB * i, 4 * kKiB);
    for (std::uint64_t i = 0; i < 10; ++i)
        flat.piece(1536 * kKiB + 24 * kKiB * i, 1536 * kKiB + 24 * kKiB * i + 77, 20'000 + i);
    return flat;
}

class NvmeTransferTest : public NvmeDeviceTest {
protected:
    static constexpr std::uint64_t kBytes = 2 * kMiB;

    bool start(Options options = {}) {
        options.emplace("ring", "deferred");  // whose completions are seen as they come
        if (open(options) != PEGA_OK) return false;
        there = file(target.path, kBytes);
        here = memory(bytes.data(), kBytes);
        return true;
    }
    // Writes the mixture and reads it back into other memory; every byte must be where it belongs, and none elsewhere.
    void expect_moves() {
        const Flat flat = mixture();
        auto expected = target.bytes();
        for (std::size_t i = 0; i < flat.lengths.size(); ++i)
            std::memcpy(expected.data() + flat.file[i], bytes.data() + flat.memory[i], flat.lengths[i]);
        const pega_completion wrote = run(flat, here, there, PEGA_OP_WRITE);
        ASSERT_EQ(wrote.status, PEGA_OK) << "errno " << wrote.native_code;
        EXPECT_EQ(target.bytes(), expected);
        pega_region* const back = allocate(kBytes);
        std::memset(back->base, 0xEE, kBytes);
        const pega_completion read = run(flat, back, there, PEGA_OP_READ);
        ASSERT_EQ(read.status, PEGA_OK) << "errno " << read.native_code;
        EXPECT_EQ(read.bytes, wrote.bytes);
        std::vector<std::uint8_t> image(kBytes, 0xEE);
        for (std::size_t i = 0; i < flat.lengths.size(); ++i)
            std::memcpy(image.data() + flat.memory[i], bytes.data() + flat.memory[i], flat.lengths[i]);
        EXPECT_EQ(std::memcmp(back->base, image.data(), kBytes), 0);
        expect_idle();
    }

    TestFile target{noise(kBytes, 11)};
    std::vector<std::uint8_t> bytes = noise(kBytes, 12);
    pega_region *there = nullptr, *here = nullptr;
};

#define PEGA_BEGIN(...) \
    if (!start(__VA_ARGS__)) GTEST_SKIP() << (said.empty() ? "no ring" : said.back())

// The kernel really moves less than was asked for, down to one block at a time.
TEST_F(NvmeTransferTest, ShortReadsAndWritesAreContinued) {
    PEGA_BEGIN();
    int cut = 0, cut_vectors = 0;
    kernel().on_request = [&](io_uring_sqe& request) {
        if (moves_bytes(request) && request.len > 4 * kKiB) {
            request.len = static_cast<std::uint32_t>(std::max<std::uint64_t>(request.len / 3 / (4 * kKiB), 1) * 4 * kKiB);
            ++cut;
        } else if (has_vectors(request) && request.len > 1) {
            request.len = request.len * 2 / 3;
            ++cut_vectors;
        }
    };
    expect_moves();
    EXPECT_GT(cut, 20);
    EXPECT_GT(cut_vectors, 2);
}

// What comes back is no whole number of blocks: the rest of the block is asked for again.
TEST_F(NvmeTransferTest, APartOfABlockIsNotCounted) {
    PEGA_BEGIN();
    pega_region* const aligned = allocate(kBytes);
    std::memcpy(aligned->base, bytes.data(), kBytes);
    if (there->files.front()->offset_align < 512) GTEST_SKIP() << "there are no blocks here";
    int cut = 0;
    kernel().on_completion = [&](io_uring_cqe& completion) {
        if (!ours(completion) || completion.res <= 8192 || ++cut % 2 == 0) return;
        completion.res = completion.res / 2 + 100;
    };
    // Straight from memory, and by buffers of the back end.
    for (const auto& [from, first] : {std::pair{aligned, std::uint64_t{0}}, std::pair{here, std::uint64_t{1}}}) {
        SCOPED_TRACE(first);
        ASSERT_EQ(run(Flat().piece(first, 0, kMiB), from, there, PEGA_OP_WRITE).status, PEGA_OK);
        const auto written = target.bytes();
        EXPECT_EQ(std::memcmp(written.data(), bytes.data() + first, kMiB), 0);
        EXPECT_GT(std::exchange(cut, 0), 0);
        expect_idle();
    }
}

TEST_F(NvmeTransferTest, InterruptedRequestsAreAskedAgain) {
    PEGA_BEGIN();
    int count = 0;
    kernel().on_completion = [&](io_uring_cqe& completion) {
        if (!ours(completion)) return;
        if (++count % 3 == 0) completion.res = -EINTR;
        if (count % 5 == 0) completion.res = -EAGAIN;
    };
    expect_moves();
    EXPECT_GT(count, 30);
    EXPECT_TRUE(said.empty()) << said.front();
}

TEST_F(NvmeTransferTest, ARequestThatIsRefusedForEverEndsWithRetry) {
    PEGA_BEGIN({{"direct", "off"}});
    std::uint64_t count = 0;
    kernel().on_completion = [&](io_uring_cqe& completion) {
        if (!ours(completion)) return;
        completion.res = -EAGAIN;
        ++count;
    };
    const pega_completion done = run(Flat().piece(0, 0, 1), here, there, PEGA_OP_READ);
    EXPECT_EQ(done.status, PEGA_RETRY);
    EXPECT_EQ(done.native_code, EAGAIN);
    EXPECT_EQ(count, 100'000U);
    expect_idle();
}

TEST_F(NvmeTransferTest, NoRequestHasMoreVectorsThanTheKernelTakes) {
    PEGA_BEGIN();
    std::uint32_t most = 0;
    kernel().on_request = [&](const io_uring_sqe& request) {
        if (has_vectors(request)) most = std::max(most, request.len);
    };
    pega_region* const aligned = allocate(kBytes);  // else pieces go by buffers, one after another
    std::memcpy(aligned->base, bytes.data(), kBytes);
    Flat flat;
    const std::uint64_t unit = there->files.front()->offset_align;
    const std::uint64_t count = std::min<std::uint64_t>(3 * IOV_MAX, kBytes / unit / 2);
    for (std::uint64_t i = 0; i < count; ++i) flat.piece(2 * i * unit, i * unit, unit);
    ASSERT_EQ(run(flat, aligned, there, PEGA_OP_WRITE).status, PEGA_OK);
    EXPECT_GT(most, 1U);
    EXPECT_LE(most, static_cast<std::uint32_t>(IOV_MAX));
    const auto written = target.bytes();
    for (std::uint64_t i = 0; i < count; ++i)
        ASSERT_EQ(std::memcmp(written.data() + i * unit, bytes.data() + 2 * i * unit, unit), 0) << "piece " << i;
    expect_idle();
}

TEST_F(NvmeTransferTest, MoreCompletionsThanPlacesLoseNothing) {
    for (const char* ring : {"deferred", "shared"}) {
        SCOPED_TRACE(ring);
        kernel() = {};
        kernel().places = 16;
        PEGA_BEGIN({{"ring", ring}, {"depth", "8"}});
        bool overflowed = false;
        kernel().on_request = [&](const io_uring_sqe&) { kernel().noise = 100; };
        kernel().on_completion = [&](const io_uring_cqe&) { overflowed = overflowed || kernel().overflowed; };
        expect_moves();
        EXPECT_TRUE(overflowed);
        close_device(std::exchange(device, nullptr));
    }
}

TEST_F(NvmeTransferTest, AFailureEndsItsBatchWithAllAccountsClosed) {
    for (const int error : {EIO, ENOSPC, EINVAL}) {
        SCOPED_TRACE(error);
        kernel() = {};
        PEGA_BEGIN({{"depth", "4"}, {"io_bytes", "4096"}});
        int count = 0;
        kernel().on_completion = [&](io_uring_cqe& completion) {
            if (ours(completion) && ++count == 7) completion.res = -error;
        };
        const Flat flat = mixture();
        const pega_completion done = run(flat, here, there, PEGA_OP_READ);
        EXPECT_EQ(done.status, error == EIO ? PEGA_REGION_LOST : error == ENOSPC ? PEGA_NO_MEMORY : PEGA_INVALID);
        EXPECT_EQ(done.native_code, error);
        EXPECT_EQ(done.first_bad, 0U);
        EXPECT_GE(count, 7);
        EXPECT_LE(count, 7 + 4) << "nothing more is begun";
        expect_idle();
        kernel().on_completion = nullptr;
        EXPECT_EQ(run(flat, here, there, PEGA_OP_READ).status, PEGA_OK);
        expect_idle();
        close_device(std::exchange(device, nullptr));
    }
}

TEST_F(NvmeTransferTest, AChannelThatClosesEndsWhatItHasAndKeepsNothing) {
    PEGA_BEGIN({{"depth", "4"}, {"io_bytes", "4096"}});
    const Flat flat = mixture();
    for (std::uint64_t i = 1; i <= 3; ++i) ASSERT_EQ(submit(flat, here, there, PEGA_OP_READ, i), PEGA_OK);
    poll_once();
    EXPECT_NE(here->in_flight, 0U);
    EXPECT_EQ(kRegionTable.unregister(here), PEGA_INVALID) << "the kernel may write to it";
    ASSERT_EQ(kChannelTable.close(std::exchange(channel, nullptr), UINT64_MAX), PEGA_OK);
    expect_idle();
    std::vector<std::uint64_t> ended;
    while (ended.size() < 3) {
        const pega_completion record = next();
        EXPECT_NE(record.flags & PEGA_COMPLETION_TERMINAL, 0U);
        EXPECT_TRUE(record.status == PEGA_OK || record.status == PEGA_CANCELED) << record.status;
        ended.push_back(record.user_data);
    }
    EXPECT_THAT(ended, ::testing::UnorderedElementsAre(1, 2, 3));
    EXPECT_EQ(kRegionTable.unregister(here), PEGA_OK);
    EXPECT_EQ(kRegionTable.unregister(there), PEGA_OK);
}

}  // namespace
}  // namespace nvme_test
