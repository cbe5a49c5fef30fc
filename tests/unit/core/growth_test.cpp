// SPDX-License-Identifier: Apache-2.0
// Modules of an older and of a newer minor version in this core. The same file is also compiled with a core whose headers have
// grown (unit_core_grown), so that each side is once the older and once the newer one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

class GrowthTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GrowthTest, AModuleOfAnotherMinorVersionRuns) {
    const std::string name = GetParam();
    auto fabric = Fabric::open({.search_path = {PEGA_TEST_MODULES "/" + name}, .backends = {name}});
    ASSERT_TRUE(fabric) << fabric.error().message;
    ASSERT_EQ((*fabric)->devices().size(), 2U);
    EXPECT_EQ((*fabric)->devices()[1].index, 1U);
    EXPECT_EQ((*fabric)->devices()[1].uuid, "fake-one");
    auto device = (*fabric)->device(name + ":1");
    ASSERT_TRUE(device) << device.error().message;
    EXPECT_EQ((*device)->capabilities().max_batches, 64U);

    auto source = (*device)->allocate(PEGA_MEMORY_HOST, 4096);
    auto target = (*device)->allocate(PEGA_MEMORY_HOST, 4096);
    ASSERT_TRUE(source && target);
    EXPECT_EQ(source->length(), 4096U);
    auto* from = static_cast<unsigned char*>(source->address());
    for (int i = 0; i < 4096; ++i) from[i] = static_cast<unsigned char>(i * 7);
    auto channel = (*device)->open_channel();
    ASSERT_TRUE(channel);

    // Two spans: the distance between them is that of the newer or older struct. Many batches: so is that of the completions.
    const std::vector<std::uint64_t> index = {0, 1};
    std::vector<Transfer> transfers(20);
    std::vector<Completion> completions;
    for (auto& transfer : transfers) {
        transfer.indices(index, index).notify(3);
        for (std::uint64_t half : {0U, 2048U}) {
            pega_span span{};
            span.local_region = source->handle();
            span.remote_region = target->handle();
            span.local_base = span.remote_base = half;
            span.local_stride = span.remote_stride = 1024;
            span.page_bytes = 1024;
            span.segments = 1;
            transfer.span(span);
        }
        auto completion = channel->submit(transfer);
        ASSERT_TRUE(completion) << completion.error().message;
        completions.push_back(*completion);
    }
    for (auto& completion : completions) {
        auto bytes = completion.wait();
        ASSERT_TRUE(bytes) << bytes.error().message;
        EXPECT_EQ(*bytes, 4096U);
        EXPECT_EQ(completion.record().landed_spans, 2U);
    }
    EXPECT_EQ(std::memcmp(source->address(), target->address(), 4096), 0);
    EXPECT_TRUE((*device)->wait_notify(3, 20, std::chrono::seconds(5)));
}

INSTANTIATE_TEST_SUITE_P(Minors, GrowthTest, ::testing::Values("v1_0", "v1_1"),
                         [](const auto& each) { return std::string(each.param); });

#ifdef PEGA_CORE_GROWN
TEST(Growth, ThisCoreHasLargerStructsThan10) {
    EXPECT_EQ(PEGA_ABI_MINOR, 1);
    EXPECT_GT(sizeof(pega_span), 80U);
    EXPECT_GT(sizeof(pega_completion), 48U);
    EXPECT_GT(sizeof(pega_channel_table), 40U);
    EXPECT_EQ(offsetof(pega_span, segments), 72U);
}
#endif

}  // namespace
}  // namespace pegaflow
