// SPDX-License-Identifier: Apache-2.0
#include "contention.hpp"

#include <gtest/gtest.h>

namespace {

using cuda_backend::Contention;
using cuda_backend::Driver;
using cuda_backend::Event;
using cuda_backend::kNotReady;
using cuda_backend::kSuccess;
using cuda_backend::Result;
using cuda_backend::RoomKernel;
using cuda_backend::Stream;

constexpr std::uint64_t kMillisecond = 1000000;

// A GPU on which a kernel waits as long as it is told.
struct Gpu {
    float wait_ms = 0.005F;
    bool answers = true;
    int asked = 0, streams = 0, events = 0;
    unsigned blocks = 0, threads = 0, shared = 0;
    Result launched = kSuccess;
};
Gpu gpu;

Driver driver() {
    Driver d;
    d.cuCtxGetStreamPriorityRange = [](int* least, int* greatest) { return *least = 0, *greatest = -5, kSuccess; };
    d.cuStreamCreateWithPriority = [](Stream* out, unsigned, int) { return *out = &gpu, ++gpu.streams, kSuccess; };
    d.cuStreamDestroy_v2 = [](Stream) { return --gpu.streams, kSuccess; };
    d.cuEventCreate = [](Event* out, unsigned flags) { return *out = &gpu, ++gpu.events, flags == 0 ? kSuccess : 1; };
    d.cuEventDestroy_v2 = [](Event) { return --gpu.events, kSuccess; };
    d.cuEventRecord = [](Event, Stream) { return kSuccess; };
    d.cuEventQuery = [](Event) { return gpu.answers ? kSuccess : kNotReady; };
    d.cuEventElapsedTime = [](float* out, Event, Event) { return *out = gpu.wait_ms, kSuccess; };
    d.cuLaunchKernel = [](void*, unsigned x, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned shared, Stream,
                          void**, void**) {
        ++gpu.asked;
        gpu.blocks = x;
        gpu.threads = threads;
        gpu.shared = shared;
        return gpu.launched;
    };
    return d;
}

class ContentionTest : public ::testing::Test {
protected:
    void SetUp() override {
        gpu = {};
        int kernel = 0;
        ASSERT_EQ(contention_.open(driver_, RoomKernel{&kernel, 512, 200000}), kSuccess);
    }
    void TearDown() override {
        contention_.close(driver_);
        EXPECT_EQ(gpu.streams, 0);
        EXPECT_EQ(gpu.events, 0);
    }
    // Looks every tenth of a millisecond.
    void copy_for(std::uint64_t milliseconds) {
        for (const std::uint64_t end = now_ + milliseconds * kMillisecond; now_ < end; now_ += kMillisecond / 10)
            contention_.look(driver_, now_);
    }

    const Driver driver_ = driver();
    Contention contention_;
    std::uint64_t now_ = kMillisecond;
};

TEST_F(ContentionTest, AnEmptyGpuIsNotCrowded) {
    copy_for(50);
    EXPECT_FALSE(contention_.crowded());
    EXPECT_GE(gpu.asked, 50);
    EXPECT_LE(gpu.asked, 100) << "not at every look";
    EXPECT_EQ(gpu.blocks, 1U);
    EXPECT_EQ(gpu.threads, 512U);
    EXPECT_EQ(gpu.shared, 200000U);
}

TEST_F(ContentionTest, AFullLinkIsNoModel) {
    gpu.wait_ms = 0.06F;
    copy_for(50);
    EXPECT_FALSE(contention_.crowded());
}

TEST_F(ContentionTest, AModelIsSeenWithinTenMilliseconds) {
    gpu.wait_ms = 0.8F;
    copy_for(10);
    EXPECT_TRUE(contention_.crowded());
}

TEST_F(ContentionTest, AModelThatCopiesHoldUpIsSeenAlthoughTheGpuIsIdleEveryOtherTime) {
    for (int i = 0; i < 100; ++i) {
        gpu.wait_ms = i % 2 == 0 ? 1.2F : 0.005F;
        const int asked = gpu.asked;
        while (gpu.asked == asked) copy_for(1);
    }
    EXPECT_TRUE(contention_.crowded());
}

TEST_F(ContentionTest, OneLongKernelIsNoModel) {
    copy_for(10);
    gpu.wait_ms = 30;
    const int asked = gpu.asked;
    while (gpu.asked <= asked + 1) copy_for(1);
    gpu.wait_ms = 0.005F;
    copy_for(10);
    EXPECT_FALSE(contention_.crowded());
}

TEST_F(ContentionTest, WhenTheModelHasGoneThereIsRoomAgain) {
    gpu.wait_ms = 0.8F;
    copy_for(100);
    ASSERT_TRUE(contention_.crowded());
    gpu.wait_ms = 0.005F;
    copy_for(50);
    EXPECT_FALSE(contention_.crowded());
}

TEST_F(ContentionTest, AQuestionThatIsNotAnsweredIsNotAskedTwice) {
    gpu.answers = false;
    copy_for(20);
    EXPECT_EQ(gpu.asked, 1);
    EXPECT_FALSE(contention_.crowded());
}

TEST_F(ContentionTest, AKernelThatCannotBeLaunchedSaysNothing) {
    gpu.launched = 1;
    gpu.wait_ms = 5;
    copy_for(20);
    EXPECT_GT(gpu.asked, 10);
    EXPECT_FALSE(contention_.crowded());
}

TEST(Contention, WithoutAKernelNothingIsAsked) {
    gpu = {};
    Contention contention;
    ASSERT_EQ(contention.open(driver(), {}), kSuccess);
    contention.look(driver(), kMillisecond);
    EXPECT_EQ(gpu.asked, 0);
    EXPECT_EQ(gpu.streams, 0);
    EXPECT_FALSE(contention.crowded());
}

}  // namespace
