// SPDX-License-Identifier: Apache-2.0
// Random batches by every path of the cuda back end: each byte lands where it should and no other changes. Runs over the fake
// driver where that was built, and elsewhere on a GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "pegaflow/digest.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kBytes = 6U << 20;  // each word is looked at
#else
constexpr std::uint64_t kBytes = 24U << 20;
#endif

class CudaCopies : public ::testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        if (::access(FAKE_DRIVER, R_OK) == 0) ::setenv("PEGAFLOW_LIBCUDA", FAKE_DRIVER, 0);
        FabricOptions options;
        options.backends = {"cuda"};
        options.options["cuda"] = {{"path", GetParam()}, {"calibrate", "off"}, {"staging_chunk", "1048576"}};
        auto fabric = Fabric::open(options);
        if (!fabric) GTEST_SKIP() << fabric.error().message;
        fabric_ = std::move(*fabric);
        device_ = *fabric_->device("cuda:0");
        gpu_ = *device_->allocate(PEGA_MEMORY_GPU, kBytes);
        host_ = *device_->allocate(PEGA_MEMORY_HOST, kBytes);
        image_ = *device_->allocate(PEGA_MEMORY_HOST, kBytes);
        channel_ = *device_->open_channel();
    }
    void TearDown() override {
        channel_ = {};
        for (Region* region : {&gpu_, &host_, &image_}) *region = {};
    }
    static std::uint8_t* bytes(Region& region) { return static_cast<std::uint8_t*>(region.address()); }
    void run(Transfer& transfer) {
        auto done = channel_.submit_wait(transfer);
        ASSERT_TRUE(done) << done.error().message;
        const auto moved = done->wait();
        ASSERT_TRUE(moved) << moved.error().message;
    }
    void whole(bool to_gpu) {
        Transfer transfer;
        transfer.flat(gpu_, image_).range(0, 0, kBytes);
        if (to_gpu) transfer.read();
        run(transfer);
    }
    // Both sides get random contents; `expected` is what the batch should make of the target.
    void start() {
        shadow_gpu_.resize(kBytes);
        shadow_host_.resize(kBytes);
        for (auto* shadow : {&shadow_gpu_, &shadow_host_}) {
            for (std::uint64_t i = 0; i < kBytes; i += 8) {
                const std::uint64_t value = random_();
                std::memcpy(shadow->data() + i, &value, 8);
            }
        }
        std::memcpy(bytes(image_), shadow_gpu_.data(), kBytes);
        whole(true);
        std::memcpy(bytes(host_), shadow_host_.data(), kBytes);
    }
    void move(std::uint64_t gpu, std::uint64_t host, std::uint64_t length, bool to_gpu) {
        if (to_gpu) {
            std::memcpy(shadow_gpu_.data() + gpu, shadow_host_.data() + host, length);
        } else {
            std::memcpy(shadow_host_.data() + host, shadow_gpu_.data() + gpu, length);
        }
    }
    void expect_shadows() {
        whole(false);
        EXPECT_EQ(std::memcmp(bytes(image_), shadow_gpu_.data(), kBytes), 0) << "GPU memory";
        EXPECT_EQ(std::memcmp(bytes(host_), shadow_host_.data(), kBytes), 0) << "host memory";
    }
    // The kernels compute digests, the copy engine does not; which of them works is open on "auto", and on "staged" where
    // pages are scattered.
    void expect_digests(const Transfer& transfer, const std::vector<std::uint64_t>& expected) {
        const std::string path = GetParam();
        const auto sums = transfer.digest_sums();
        if (path == "bulk" || path == "vector") {
            EXPECT_FALSE(sums.empty());
        } else if (path == "loop" || path == "batch" || path == "shared") {
            EXPECT_TRUE(sums.empty());
        }
        if (sums.empty()) return;
        ++digested_;
        EXPECT_TRUE(std::ranges::equal(sums, expected));
    }
    std::vector<std::uint64_t> choose(std::uint64_t count, std::uint64_t places) {
        std::vector<std::uint64_t> all(places);
        std::iota(all.begin(), all.end(), 0);
        std::shuffle(all.begin(), all.end(), random_);
        all.resize(count);
        return all;
    }

    std::mt19937_64 random_{7};
    int digested_ = 0;  // transfers
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region gpu_, host_, image_;
    Channel channel_;
    std::vector<std::uint8_t> shadow_gpu_, shadow_host_;
};

// Layers and segments against pages, in random order, in both directions, with and without marks.
TEST_P(CudaCopies, SpansOfAModel) {
    for (const std::uint64_t fragment : {512ULL, 2048ULL, 16384ULL, 40960ULL}) {
        for (const bool to_gpu : {false, true}) {
            for (const std::uint32_t marks : {0U, 3U}) {
                start();
                const std::uint32_t layers = 5;
                const std::uint64_t places = kBytes / (layers * 2 * fragment);
                const std::uint64_t count = places / 2;
                const auto local = choose(count, places);
                auto remote = choose(count, places);
                if (marks == 0) {
                    std::iota(remote.begin(), remote.end(), 1);
                    if (to_gpu) std::shuffle(remote.begin(), remote.end(), random_);
                }
                Transfer transfer;
                transfer.indices(local, remote).digests();
                for (std::uint32_t l = 0; l < layers; ++l) {
                    transfer.span({gpu_.handle(), host_.handle(), l * 2 * places * fragment, fragment, places * fragment,
                                   l * 2 * fragment, layers * 2 * fragment, fragment, fragment, 2, 0});
                }
                if (to_gpu) transfer.read();
                std::vector<std::uint64_t> landed;
                if (marks != 0) transfer.mark_every(marks).on_mark([&](std::uint64_t spans) { landed.push_back(spans); });
                run(transfer);
                for (std::uint64_t i = 0; i < count; ++i) {
                    for (std::uint32_t l = 0; l < layers; ++l) {
                        for (std::uint32_t g = 0; g < 2; ++g) {
                            move((l * 2 + g) * places * fragment + local[i] * fragment,
                                 remote[i] * layers * 2 * fragment + (l * 2 + g) * fragment, fragment, to_gpu);
                        }
                    }
                }
                std::vector<std::uint64_t> digests;
                const std::uint64_t page = layers * 2 * fragment;
                for (const std::uint64_t at : remote) digests.push_back(digest_part(shadow_host_.data() + at * page, page));
                expect_digests(transfer, digests);
                expect_shadows();
                EXPECT_TRUE(std::is_sorted(landed.begin(), landed.end()));
            }
        }
    }
    if (std::string(GetParam()) == "staged") {
        EXPECT_GT(digested_, 0);
    }
}

// Byte ranges of any length at any place.
TEST_P(CudaCopies, FlatRangesOfAnySizeAndAlignment) {
    for (const std::uint64_t unit : {1ULL, 16ULL}) {
        for (const bool to_gpu : {false, true}) {
            start();
            Transfer transfer;
            transfer.flat(gpu_, host_);
            if (to_gpu) transfer.read();
            // Disjoint on both sides: range i stays within slot i of a permutation.
            const std::uint64_t slot = 96U << 10;
            const auto order = choose(std::min<std::uint64_t>(200, kBytes / slot), kBytes / slot);
            for (std::uint64_t i = 0; i < order.size(); ++i) {
                const std::uint64_t length = random_() % (slot / unit) / (i % 3 == 0 ? 64 : 1) * unit;
                const std::uint64_t gpu = order[i] * slot + random_() % ((slot - length) / unit + 1) * unit;
                const std::uint64_t host = i * slot + random_() % ((slot - length) / unit + 1) * unit;
                transfer.range(gpu, host, length);
                move(gpu, host, length, to_gpu);
            }
            run(transfer);
            expect_shadows();
        }
    }
}

// Ranges without a length, alone and in a batch, are allowed and move nothing.
TEST_P(CudaCopies, RangesOfNoLength) {
    start();
    for (const std::uint64_t count : {0ULL, 1ULL, 3ULL}) {
        for (const bool to_gpu : {false, true}) {
            Transfer transfer;
            transfer.flat(gpu_, host_);
            if (to_gpu) transfer.read();
            for (std::uint64_t i = 0; i < count; ++i) transfer.range(i * 4096, i * 64, 0);
            run(transfer);
        }
    }
    expect_shadows();
}

// Many transfers in flight on one channel, in both directions at once.
TEST_P(CudaCopies, ManyAtOnce) {
    start();
    const std::uint64_t part = kBytes / 16;
    const std::uint64_t fragment = 4096;
    std::vector<Transfer> transfers(16);
    std::vector<Completion> completions;
    std::vector<std::vector<std::uint64_t>> digests(transfers.size());
    for (std::uint64_t i = 0; i < transfers.size(); ++i) {
        const auto local = choose(part / fragment, part / fragment);
        const auto remote = choose(part / fragment, part / fragment);
        transfers[i]
            .digests()
            .indices(local, remote)
            .span({gpu_.handle(), host_.handle(), i * part, fragment, 0, i * part, fragment, 0, fragment, 1, 0});
        if (i % 2 == 0) transfers[i].read();
        for (std::uint64_t k = 0; k < local.size(); ++k)
            move(i * part + local[k] * fragment, i * part + remote[k] * fragment, fragment, i % 2 == 0);
        for (const std::uint64_t at : remote)
            digests[i].push_back(digest_part(shadow_host_.data() + i * part + at * fragment, fragment, i * part));
        auto done = channel_.submit_wait(transfers[i]);
        ASSERT_TRUE(done) << done.error().message;
        completions.push_back(std::move(*done));
    }
    for (const Completion& completion : completions) {
        const auto moved = completion.wait();
        ASSERT_TRUE(moved) << moved.error().message;
        EXPECT_EQ(*moved, part);
    }
    for (std::size_t i = 0; i < transfers.size(); ++i) expect_digests(transfers[i], digests[i]);
    expect_shadows();
}

// A model that has the multiprocessors, or not: the fake driver is told how long kernels wait for them.
class CudaBesideAModel : public CudaCopies {
protected:
    void SetUp() override {
        CudaCopies::SetUp();
        void* driver = ::dlopen(FAKE_DRIVER, RTLD_NOW | RTLD_NOLOAD);
        if (driver == nullptr) GTEST_SKIP() << "only the fake driver can look busy";
        set_busy_ = reinterpret_cast<void (*)(int)>(::dlsym(driver, "fake_cuda_set_busy"));
        ASSERT_NE(set_busy_, nullptr);
    }
    void TearDown() override {
        if (set_busy_ != nullptr) set_busy_(0);
        CudaCopies::TearDown();
    }
    // Copies scattered pages, each batch checked, until kernels do it or do not any more: the digests are theirs.
    bool until_kernels(bool wanted) {
        constexpr std::uint64_t kFragment = 2048, kPages = 512;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (std::chrono::steady_clock::now() < end) {
            const auto local = choose(kPages, kBytes / kFragment);
            const auto remote = choose(kPages, kBytes / kFragment);
            Transfer transfer;
            transfer.digests()
                .indices(local, remote)
                .span({gpu_.handle(), host_.handle(), 0, kFragment, 0, 0, kFragment, 0, kFragment, 1, 0});
            for (std::uint64_t i = 0; i < kPages; ++i) move(local[i] * kFragment, remote[i] * kFragment, kFragment, false);
            run(transfer);
            if (!transfer.digest_sums().empty() == wanted) return true;
        }
        return false;
    }

    void (*set_busy_)(int microseconds) = nullptr;
};

TEST_P(CudaBesideAModel, KernelsThatWouldHoldItUpGiveWayAndComeBack) {
    start();
    EXPECT_TRUE(until_kernels(true));
    set_busy_(1000);
    EXPECT_TRUE(until_kernels(false));
    set_busy_(0);
    EXPECT_TRUE(until_kernels(true));
    expect_shadows();
}

INSTANTIATE_TEST_SUITE_P(Auto, CudaBesideAModel, ::testing::Values("auto"));
INSTANTIATE_TEST_SUITE_P(Paths, CudaCopies, ::testing::Values("auto", "loop", "batch", "bulk", "vector", "staged", "shared"),
                         [](const auto& path) { return std::string(path.param); });

}  // namespace
}  // namespace pegaflow
