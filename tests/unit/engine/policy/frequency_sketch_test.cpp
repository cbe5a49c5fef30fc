// SPDX-License-Identifier: Apache-2.0
#include "engine/policy/frequency_sketch.hpp"

#include "base/hash.hpp"

namespace pegaflow::engine {
namespace {

TEST(FrequencySketch, NeverSaysLessThanItWasTold) {
    FrequencySketch sketch(1000);
    std::uint32_t told = 0;
    for (std::uint64_t i = 0; i < 4000; ++i) sketch.raise(base::mix(i, 3), static_cast<std::uint32_t>(i % 18));
    for (std::uint64_t i = 0; i < 4000; ++i) {
        const auto count = static_cast<std::uint32_t>(std::min<std::uint64_t>(i % 18, FrequencySketch::kMaxCount));
        told += sketch.frequency(base::mix(i, 3)) >= count ? 1 : 0;
    }
    EXPECT_EQ(told, 4000U);
}

TEST(FrequencySketch, SeldomSaysMoreForBlocksItNeverSaw) {
    FrequencySketch sketch(1000);
    for (std::uint64_t i = 0; i < 8000; ++i) sketch.raise(base::mix(i, 3), 1);
    int wrong = 0;
    for (std::uint64_t i = 8000; i < 18000; ++i) wrong += sketch.frequency(base::mix(i, 3)) != 0 ? 1 : 0;
    EXPECT_LT(wrong, 1500) << "of 10,000, after eight turnovers";
}

TEST(FrequencySketch, HalvesEverything) {
    FrequencySketch sketch(100);
    sketch.raise(5, 9);
    sketch.raise(6, 1);
    sketch.halve();
    EXPECT_EQ(sketch.frequency(5), 4U);
    EXPECT_EQ(sketch.frequency(6), 0U);
}

}  // namespace
}  // namespace pegaflow::engine
