// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_ssd.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <random>
#include <sstream>
#include <string>
#include <thread>

namespace pegaflow::cli::ssd {
namespace {

TEST(SsdPercent, RepetitionsAreComparedWithThoseBesideThem) {
    const auto runs = [](std::initializer_list<double> rates) {
        std::vector<ssd::Run> out;
        for (const double rate : rates) {
            out.emplace_back();
            out.back().bytes_per_s = rate;
        }
        return out;
    };
    const auto percent = [&](std::initializer_list<double> reference, std::initializer_list<double> ours) {
        return percent_of(runs(reference), runs(ours), &ssd::Run::bytes_per_s);
    };
    // The disk halves its speed: the ratio of the medians would be 50.
    EXPECT_DOUBLE_EQ(percent({200, 200, 200, 100, 100}, {198, 200, 100, 99, 100}), 99);
    EXPECT_DOUBLE_EQ(percent({200, 100}, {100, 80}), 65);
    EXPECT_DOUBLE_EQ(percent({0, 100}, {100, 80}), 80) << "what the reference could not say is left out";
    EXPECT_DOUBLE_EQ(percent({}, {}), 0);
}

TEST(SsdHistogram, PercentilesAreWithinAPercent) {
    std::mt19937_64 random(1);
    std::vector<double> micros;
    Histogram histogram;
    for (int i = 0; i < 20'000; ++i) {
        const std::uint64_t value = 50 + random() % 1000 * (random() % 3000);
        histogram.add(value);
        micros.push_back(static_cast<double>(value) / 1e3);
    }
    std::sort(micros.begin(), micros.end());
    for (const double p : {0.01, 0.1, 0.5, 0.9, 0.99, 0.999}) {
        const double exact = micros[static_cast<std::size_t>(p * 20'000)];
        EXPECT_NEAR(histogram.percentile_us(p), exact, exact * 0.01) << p;
    }
    EXPECT_DOUBLE_EQ(histogram.min_us(), micros.front());
    EXPECT_DOUBLE_EQ(histogram.max_us(), micros.back());
    EXPECT_DOUBLE_EQ(histogram.percentile_us(1), micros.back());
}

TEST(SsdHistogram, PartsAddUp) {
    Histogram all;
    Histogram parts[2];
    for (std::uint64_t i = 1; i < 1000; ++i) {
        all.add(i * i);
        parts[i % 2].add(i * i);
    }
    parts[0].merge(parts[1]);
    EXPECT_EQ(parts[0].count(), all.count());
    EXPECT_DOUBLE_EQ(parts[0].mean_us(), all.mean_us());
    EXPECT_NEAR(parts[0].stddev_us(), all.stddev_us(), 1e-9);
    EXPECT_DOUBLE_EQ(parts[0].percentile_us(0.3), all.percentile_us(0.3));
}

TEST(SsdHistogram, EmptyAndHugeValues) {
    Histogram histogram;
    EXPECT_EQ(histogram.percentile_us(0.5), 0);
    EXPECT_EQ(histogram.stddev_us(), 0);
    histogram.add(UINT64_MAX);
    histogram.add(0);
    EXPECT_EQ(histogram.count(), 2U);
    EXPECT_EQ(histogram.min_us(), 0);
}

TEST(SsdCpu, KnowsTheWorkersThatServeDisks) {
    EXPECT_TRUE(is_block_worker("kworker/1:1H"));
    EXPECT_TRUE(is_block_worker("kworker/12:3H-kblockd\n"));
    EXPECT_FALSE(is_block_worker("kworker/1:1"));
    EXPECT_FALSE(is_block_worker("kworker/1:1-mm_percpu_wq"));
    EXPECT_FALSE(is_block_worker("kworker/u8:2"));
    EXPECT_FALSE(is_block_worker("H"));
    EXPECT_GE(block_worker_seconds(), 0);
}

// Keeps a processor busy until the calling thread has used so much of it.
void use_processor(std::chrono::nanoseconds time) {
    const auto used = [] {
        timespec now{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
    };
    for (const auto end = used() + time; used() < end;) {
    }
}

TEST(SsdCpu, CountsTheThreadsThatOneWaitsFor) {
    const CpuUse use;
    std::thread([] { use_processor(std::chrono::milliseconds(50)); }).join();
    EXPECT_GE(use.seconds(), 0.05);
}

TEST(SsdCpu, DoesNotCountTheOneThatWaits) {
    const CpuUse use;
    const double workers = block_worker_seconds();
    use_processor(std::chrono::milliseconds(50));
    EXPECT_LT(use.seconds() - (block_worker_seconds() - workers), 0.02);
}

TEST(SsdPattern, FindsEveryWrongWord) {
    std::vector<std::uint8_t> bytes(4096);
    fill_words(bytes.data(), bytes.size(), 3, 100);
    EXPECT_EQ(wrong_words(bytes.data(), bytes.size(), 3, 100), 0U);
    EXPECT_EQ(wrong_words(bytes.data(), bytes.size(), 4, 100), 4096U);
    EXPECT_EQ(wrong_words(bytes.data() + 8, 8, 3, 101), 0U);
    bytes[17] ^= 1;
    EXPECT_EQ(wrong_words(bytes.data(), bytes.size(), 3, 100), 8U);
}

TEST(SsdMemory, HugeIsWhatIsInHugePagesForTheMostPart) {
    const std::string maps =
        "7f0000000000-7f0000400000 rw-p 00000000 00:00 0\n"
        "Size:               4096 kB\nAnonHugePages:      4096 kB\nVmFlags: rd wr\n"
        "7f0000400000-7f0000800000 rw-p 00000000 00:00 0\n"
        "Size:               4096 kB\nAnonHugePages:         0 kB\n"
        "7f0000800000-7f0000c00000 rw-s 00000000 00:0f 12    /anon_hugepage (deleted)\n"
        "Size:               4096 kB\nShared_Hugetlb:     4096 kB\n";
    const auto huge = [&](std::uint64_t at, std::uint64_t length) {
        std::istringstream in(maps);
        return in_huge_pages(in, at, length);
    };
    EXPECT_TRUE(huge(0x7f0000000000, 4 << 20));
    EXPECT_FALSE(huge(0x7f0000400000, 4 << 20));
    EXPECT_TRUE(huge(0x7f0000800000, 4 << 20));
    EXPECT_TRUE(huge(0x7f0000800000, 12 << 20)) << "of what is mapped";
    EXPECT_FALSE(huge(0x600000000000, 4 << 20)) << "nothing is there";
}

TEST(SsdMemory, FioGetsWhatOursIsUnlessThereIsNone) {
    constexpr std::uint64_t kMoreThanThereIs = std::uint64_t{1} << 60;
    EXPECT_EQ(choose_fio_memory("plain", true, 0).value_or(""), "plain");
    EXPECT_EQ(choose_fio_memory("", false, 0).value_or(""), "plain");
    EXPECT_EQ(choose_fio_memory("", true, 0).value_or(""), "huge");
    EXPECT_EQ(choose_fio_memory("", true, kMoreThanThereIs).value_or(""), "plain");
    EXPECT_FALSE(choose_fio_memory("huge", true, kMoreThanThereIs));
}

}  // namespace
}  // namespace pegaflow::cli::ssd
