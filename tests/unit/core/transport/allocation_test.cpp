// SPDX-License-Identifier: Apache-2.0
// The hot path allocates nothing once warm: every operator new of the process is counted while batches run.
#include <cstdlib>
#include <new>

#include "fake_fabric.hpp"

namespace {

std::atomic<bool> g_counting{false};
std::atomic<std::uint64_t> g_allocations{0};

void* counted(std::size_t size) {
    if (g_counting.load(std::memory_order_relaxed)) g_allocations.fetch_add(1, std::memory_order_relaxed);
    return std::malloc(size == 0 ? 1 : size);
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    if (void* memory = counted(size)) return memory;
    throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return ::operator new(size); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace pegaflow {
namespace {

TEST(Allocation, TheCounterCounts) {
    g_allocations = 0;
    g_counting = true;
    auto* one = new std::vector<int>(100);
    g_counting = false;
    delete one;
    EXPECT_GE(g_allocations.load(), 2U);
}

TEST(Allocation, AWarmTransferAllocatesNothing) {
    FakeFabric f;
    Transfer transfer;
    std::vector<std::uint64_t> index(256);
    for (std::size_t i = 0; i < index.size(); ++i) index[i] = i;
    std::uint64_t failures = 0;
    std::uint64_t calls = 0;
    const auto round = [&] {
        transfer.clear().indices(index, index).on_done([&calls](const pega_completion&) { ++calls; });
        for (std::uint64_t layer = 0; layer < 32; ++layer) {
            transfer.span({f.local.handle(), f.remote.handle(), layer * 64, 64, 0, layer * 64, 64, 0, 32, 1, 0});
        }
        auto completion = f.channel.submit(transfer);
        if (!completion || !completion->wait()) ++failures;
        transfer.clear().flat(f.local, f.remote).notify(1);
        for (std::uint64_t i = 0; i < 100; ++i) transfer.range(i * 8, i * 8, 8);
        auto second = f.channel.submit(transfer);
        if (!second || !second->wait()) ++failures;
    };
    for (int i = 0; i < 10; ++i) round();
    g_allocations = 0;
    g_counting = true;
    for (int i = 0; i < 500; ++i) round();
    g_counting = false;
    EXPECT_EQ(g_allocations.load(), 0U);
    EXPECT_EQ(failures, 0U);
    EXPECT_EQ(calls, 510U);
}

TEST(Allocation, NeitherDoesTheHostBackEnd) {
    auto fabric = Fabric::open({.backends = {"host"}});
    ASSERT_TRUE(fabric) << fabric.error().message;
    Device* device = *(*fabric)->device("host:0");
    Region local = *device->allocate(PEGA_MEMORY_HOST, 1 << 16);
    Region remote = *device->allocate(PEGA_MEMORY_HOST, 1 << 16);
    Channel channel = *device->open_channel();
    Transfer transfer;
    int failures = 0;
    const auto round = [&] {
        transfer.clear().flat(local, remote);
        for (std::uint64_t i = 0; i < 100; ++i) transfer.range(i * 16, i * 32, 16);
        auto completion = channel.submit(transfer);
        if (!completion || !completion->wait()) ++failures;
    };
    for (int i = 0; i < 50; ++i) round();
    g_allocations = 0;
    g_counting = true;
    for (int i = 0; i < 500; ++i) round();
    g_counting = false;
    EXPECT_EQ(g_allocations.load(), 0U);
    EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace pegaflow
