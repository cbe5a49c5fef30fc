// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/pool.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

namespace pegaflow::engine {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

bool wait_ready(const Pool& pool) {
    for (int i = 0; i < 1000 && pool.ready_bytes() != pool.capacity(); ++i) std::this_thread::sleep_for(5ms);
    return pool.ready_bytes() == pool.capacity();
}

TEST(Pool, GrowsInTheBackground) {
    auto pool = Pool::create({.bytes = 64 * kMiB, .numa_affinity = false, .slice_bytes = kMiB});
    ASSERT_TRUE(pool) << pool.error().message;
    EXPECT_EQ((*pool)->slice_count(), 64U);
    EXPECT_GE((*pool)->ready_bytes(), kMiB) << "the first slice is there at once";
    EXPECT_NE((*pool)->allocate(kMiB, 0), Slab::kNone);
    ASSERT_TRUE(wait_ready(**pool));
    std::vector<std::uint64_t> pages;
    EXPECT_EQ((*pool)->allocate_many(kMiB / 2, 1000, 0, pages), 126U);
    for (const std::uint64_t page : pages) {
        EXPECT_EQ((*pool)->slice_of(page), (*pool)->slice_of(page + kMiB / 2 - 1)) << "a page lies in one slice";
        (*pool)->free_page(page, kMiB / 2);
    }
    EXPECT_EQ((*pool)->used(), kMiB);
}

TEST(Pool, GivesPagesOnlyWhereTheyAreUsable) {
    auto pool = Pool::create({.bytes = 4 * kMiB, .numa_affinity = false, .slice_bytes = kMiB});
    ASSERT_TRUE(pool && wait_ready(**pool));
    std::vector<std::uint64_t> pages;
    EXPECT_EQ((*pool)->allocate_many(kMiB / 4, 100, 0, pages, [](std::size_t slice) { return slice == 2; }), 4U);
    for (const std::uint64_t page : pages) EXPECT_EQ((*pool)->slice_of(page), 2U);
}

TEST(Pool, ClosesInTheMiddleOfItsStart) {
    auto pool = Pool::create({.bytes = 512 * kMiB, .numa_affinity = false, .slice_bytes = kMiB});
    ASSERT_TRUE(pool);
    (*pool)->close();
    (*pool)->close();
    EXPECT_GE((*pool)->ready_bytes(), kMiB);
    EXPECT_EQ((*pool)->ready_bytes() % kMiB, 0U);
}

TEST(Pool, OneSliceIsTheWholePool) {
    for (const std::uint64_t slice : {std::uint64_t{0}, 100 * kMiB}) {
        auto pool = Pool::create({.bytes = 3 * kMiB, .numa_affinity = false, .slice_bytes = slice});
        ASSERT_TRUE(pool);
        EXPECT_EQ((*pool)->slice_count(), 1U);
        EXPECT_EQ((*pool)->ready_bytes(), 3 * kMiB);
    }
}

TEST(Pool, AFileKeepsItsBytes) {
    const std::string path = fmt::format("{}pegaflow_pool_test_{}", ::testing::TempDir(), ::getpid());
    const PoolOptions options{.bytes = 2 * kMiB, .file = path, .numa_affinity = false, .slice_bytes = kMiB};
    {
        auto pool = Pool::create(options);
        ASSERT_TRUE(pool && wait_ready(**pool));
        std::memset((*pool)->base(), 0x5a, 2 * kMiB);
    }
    auto again = Pool::create(options);
    ASSERT_TRUE(again && wait_ready(**again));
    EXPECT_EQ((*again)->base()[0], std::byte{0x5a});
    EXPECT_EQ((*again)->base()[2 * kMiB - 1], std::byte{0x5a});
    std::filesystem::remove(path);
}

TEST(Pool, SaysWhatItCannotHave) {
    EXPECT_EQ(Pool::create({.bytes = 100}).error().code, Code::kInvalid);
    const auto huge = Pool::create({.bytes = std::uint64_t{1} << 60, .numa_affinity = false});
    EXPECT_EQ(huge.error().code, Code::kNoMemory);
    EXPECT_NE(huge.error().message.find("cannot map a pool of"), std::string::npos);
}

TEST(Pool, TellsHowManyPagesThereCanBe) {
    const auto pool = Pool::create({.bytes = 40 << 10, .numa_affinity = false, .slice_bytes = 16 << 10});
    ASSERT_TRUE(pool) << pool.error().message;
    EXPECT_EQ((*pool)->most_pages(4 << 10), 10U);
    EXPECT_EQ((*pool)->most_pages(12 << 10), 2U) << "the last slice is too small";
    EXPECT_EQ((*pool)->most_pages(16 << 10), 2U);
    EXPECT_EQ((*pool)->most_pages(20 << 10), 0U);
}

}  // namespace
}  // namespace pegaflow::engine
