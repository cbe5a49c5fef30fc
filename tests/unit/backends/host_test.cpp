// SPDX-License-Identifier: Apache-2.0
// The host back end: it computes the digests that it is asked for, whatever the shape of the pages and however many threads;
// and memory that its owner takes away ends what needs it, and no more.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/mailbox.hpp"
#include "common/shared_object.hpp"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/digest.hpp"
#include "pegaflow/transfer.hpp"
#include "tests/unit/base/no_threads.hpp"

namespace pegaflow {
namespace {

class HostTest : public ::testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        FabricOptions options{.backends = {"host"}};
        options.options["host"]["threads"] = GetParam();
        auto opened = Fabric::open(std::move(options));
        ASSERT_TRUE(opened) << opened.error().message;
        fabric = std::move(*opened);
        device = *fabric->device("host:0");
        auto open = device->open_channel();
        ASSERT_TRUE(open) << open.error().message;
        channel = std::move(*open);
    }

    Region memory(std::uint64_t bytes) const {
        auto region = device->allocate(PEGA_MEMORY_HOST, bytes);
        EXPECT_TRUE(region);
        std::mt19937_64 random(bytes);
        auto* at = static_cast<std::uint8_t*>(region->address());
        for (std::uint64_t i = 0; i < bytes; ++i) at[i] = static_cast<std::uint8_t>(random());
        return std::move(*region);
    }
    void run(Transfer& transfer) {
        auto done = channel.submit_wait(transfer);
        ASSERT_TRUE(done) << done.error().message;
        ASSERT_TRUE(done->wait());
    }

    std::unique_ptr<Fabric> fabric;
    Device* device = nullptr;
    Channel channel;
};

TEST_P(HostTest, ComputesTheDigestsOfWholePages) {
    constexpr std::uint64_t kPages = 6;
    for (const std::uint64_t fragment : {8U, 200U, 1024U, 65536U, 1'600'000U}) {
        constexpr std::uint64_t kLayers = 2;
        const Region local = memory(fragment * kPages * kLayers);
        const Region remote = memory(fragment * kPages * kLayers);
        std::vector<std::uint64_t> from(kPages), to(kPages);
        for (std::uint64_t i = 0; i < kPages; ++i) {
            from[i] = kPages - 1 - i;
            to[i] = (i * 5 + 2) % kPages;
        }
        for (const bool write : {true, false}) {
            Transfer transfer;
            transfer.indices(from, to).digests();
            write ? transfer.write() : transfer.read();
            for (std::uint64_t layer = 0; layer < kLayers; ++layer) {
                transfer.span({local.handle(), remote.handle(), layer * kPages * fragment, fragment, 0, layer * fragment,
                               kLayers * fragment, 0, fragment, 1, 0});
            }
            run(transfer);
            const auto sums = transfer.digest_sums();
            ASSERT_EQ(sums.size(), kPages) << fragment;
            for (std::uint64_t i = 0; i < kPages; ++i) {
                const std::uint64_t page = kLayers * fragment;
                const auto* at = static_cast<const std::uint8_t*>(remote.address()) + to[i] * page;
                EXPECT_EQ(sums[i], digest_part(at, page)) << fragment << " page " << i;
            }
        }
    }
}

TEST_P(HostTest, ComputesNothingThatNobodyAskedFor) {
    const Region local = memory(4096);
    const Region remote = memory(4096);
    const std::vector<std::uint64_t> zero = {0};
    Transfer transfer;
    transfer.write().indices(zero, zero).span({local.handle(), remote.handle(), 0, 4096, 0, 0, 4096, 0, 4096, 1, 0});
    run(transfer);
    EXPECT_TRUE(transfer.digest_sums().empty());
    transfer.digests();
    run(transfer);
    EXPECT_EQ(transfer.digest_sums().size(), 1U);
    transfer.clear().write().indices(zero, zero).digests();
    transfer.span({local.handle(), remote.handle(), 0, 4096, 0, 0, 4096, 0, 4095, 1, 0});
    run(transfer);
    EXPECT_TRUE(transfer.digest_sums().empty()) << "a length that is no multiple of 8";
}

// Pages that overlap what they come from move as memmove does, and have the digest of what moved.
TEST_P(HostTest, AMoveWithinOneRegionKeepsItsBytes) {
    constexpr std::uint64_t kBytes = 200'000, kBy = 4096;
    const Region region = memory(kBytes + kBy);
    auto* at = static_cast<std::uint8_t*>(region.address());
    const std::vector<std::uint8_t> before(at, at + kBytes);
    const std::vector<std::uint64_t> zero = {0};
    Transfer transfer;
    transfer.write().indices(zero, zero).digests();
    transfer.span({region.handle(), region.handle(), 0, 0, 0, kBy, 0, 0, kBytes, 1, 0});
    run(transfer);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), at + kBy));
    ASSERT_EQ(transfer.digest_sums().size(), 1U);
    EXPECT_EQ(transfer.digest_sums()[0], digest_part(before.data(), kBytes, kBy));
}

// A client's object in shared memory, registered with the device, that the client can shorten.
struct ShmClient {
    ShmClient(Device& device, std::uint64_t length) : name("pega_host_test_" + std::to_string(::getpid())) {
        fd = ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        EXPECT_EQ(::ftruncate(fd, static_cast<off_t>(length)), 0);
        pega_memory memory{};
        memory.size = sizeof memory;
        memory.kind = PEGA_MEMORY_HOST;
        memory.source = PEGA_SOURCE_SHM;
        memory.length = length;
        memory.handle = name.data();
        memory.handle_length = name.size();
        auto registered = device.register_memory(memory);
        EXPECT_TRUE(registered) << registered.error().message;
        if (registered) region = std::move(*registered);
        ::shm_unlink(("/" + name).c_str());
    }
    ~ShmClient() { ::close(fd); }
    ShmClient(const ShmClient&) = delete;
    ShmClient& operator=(const ShmClient&) = delete;
    void cut_off() const { EXPECT_EQ(::ftruncate(fd, 0), 0); }

    std::string name;
    int fd = -1;
    Region region;
};

TEST_P(HostTest, MemoryThatItsOwnerCutsOffEndsItsBatchesAndNothingElse) {
    constexpr std::uint64_t kBytes = 4 << 20;
    const ShmClient client(*device, kBytes);
    const Region ours = memory(kBytes);
    const Region others = memory(kBytes);
    const std::vector<std::uint64_t> zero = {0};
    const auto saves = [&](Transfer& transfer) -> Transfer& {
        return transfer.clear()
            .write()
            .indices(zero, zero)
            .digests()
            .span({client.region.handle(), ours.handle(), 0, 0, 0, 0, 0, 0, kBytes, 1, 0});
    };
    Transfer save;
    run(saves(save));
    client.cut_off();
    for (const bool read : {false, true, false}) {
        saves(save);
        if (read) save.clear().flat(ours, client.region).range(0, 0, kBytes).read();
        const auto done = channel.submit_wait(save);
        ASSERT_TRUE(done) << done.error().message;
        const auto moved = done->wait();
        ASSERT_FALSE(moved);
        EXPECT_EQ(moved.error().code, Code::kRegionLost) << moved.error().message;
        EXPECT_TRUE(save.digest_sums().empty());
    }
    Transfer other;
    other.flat(ours, others).range(0, 0, kBytes);
    run(other);
    EXPECT_EQ(std::memcmp(ours.address(), others.address(), kBytes), 0);
}

TEST_P(HostTest, MemoryThatIsCutOffInTheMidstOfACopyEndsNobody) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "pages that a handler puts under a copy are a race to the sanitizer";
#endif
    constexpr std::uint64_t kBytes = 8 << 20;
    const Region ours = memory(kBytes);
    for (int round = 0; round < 20; ++round) {
        const ShmClient client(*device, kBytes);
        std::vector<Transfer> transfers(3);
        std::vector<Completion> ends;
        for (Transfer& transfer : transfers) {
            transfer.flat(client.region, ours).range(0, 0, kBytes);
            if (round % 2 != 0) transfer.read();
            ends.push_back(*channel.submit_wait(transfer));
        }
        if (round % 4 >= 2) {
            EXPECT_TRUE(ends.front().wait());
        }
        client.cut_off();
        for (const Completion& end : ends) {
            const auto moved = end.wait();
            EXPECT_TRUE(moved || moved.error().code == Code::kRegionLost) << moved.error().message;
        }
    }
}

TEST_P(HostTest, AnEventThatItsOwnerCutsOffEndsTheBatchThatWaitsForIt) {
    constexpr std::uint32_t kEventType = 2;
    const ShmClient client(*device, 4096);
    const std::string name = client.name + "_event";
    const int fd = ::shm_open(("/" + name).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    ASSERT_EQ(::ftruncate(fd, 4096), 0);
    backend_common::SharedObject object;
    std::string why;
    ASSERT_EQ(backend_common::SharedObject::open_named(name, 0, 4096, &object, &why), PEGA_OK) << why;
    const auto* table = static_cast<const pega_ext_stream*>(device->extension(PEGA_EXT_STREAM));
    pega_event* event = nullptr;
    const std::vector<std::uint8_t> bytes = object.describe(kEventType);
    ASSERT_EQ(table->import_event(device->handle(), bytes.data(), bytes.size(), &event), PEGA_OK);
    ::shm_unlink(("/" + name).c_str());
    const Region local = memory(4096);
    const Region remote = memory(4096);
    Transfer transfer;
    transfer.flat(local, remote).range(0, 0, 4096).wait_event(event);
    const auto done = *channel.submit_wait(transfer);
    EXPECT_EQ(table->query(event), PEGA_PENDING);
    EXPECT_FALSE(done.done());
    EXPECT_EQ(::ftruncate(fd, 0), 0);
    const auto moved = done.wait();
    ASSERT_FALSE(moved);
    EXPECT_EQ(moved.error().code, Code::kRegionLost);
    EXPECT_EQ(table->query(event), PEGA_REGION_LOST);
    table->destroy(event);
    ::close(fd);
}

// A peer that reads nothing, so that its socket fills up.
TEST_P(HostTest, AValueThatFindsNoRoomEndsAtItsDeadline) {
    backend_common::Mailbox deaf;
    ASSERT_EQ(deaf.open("PGHADDR1"), PEGA_OK);
    auto to_deaf = device->open_channel(std::as_bytes(std::span(deaf.address())));
    ASSERT_TRUE(to_deaf) << to_deaf.error().message;
    const Region local = memory(64);
    const Region remote = memory(64);
    Transfer transfer;
    std::uint64_t delivered = 0;
    const auto stuck = [&]() -> Result<std::uint64_t> {
        for (; delivered < 100'000; ++delivered) {
            transfer.clear()
                .flat(local, remote)
                .range(0, 0, 64)
                .notify(1)
                .deadline(std::chrono::steady_clock::now() + std::chrono::seconds(2));
            const auto done = to_deaf->submit_wait(transfer);
            if (!done) return fail(done.error());
            if (const auto moved = done->wait(); !moved) return moved;
        }
        return delivered;
    }();
    ASSERT_FALSE(stuck) << "a socket never filled up";
    EXPECT_EQ(stuck.error().code, Code::kCanceled) << stuck.error().message;
    EXPECT_GT(delivered, 10U);
    run(transfer.clear().flat(local, remote).range(0, 0, 64));
    for (int i = 0; i < 1000 && deaf.count(1) < delivered; ++i) deaf.poll();
    EXPECT_EQ(deaf.count(1), delivered) << "what was given up was not delivered";
    EXPECT_TRUE(to_deaf->close(std::chrono::seconds(30)));
}

INSTANTIATE_TEST_SUITE_P(Threads, HostTest, ::testing::Values("1", "4"),
                         [](const auto& threads) { return std::string("of_") + threads.param; });

TEST(HostThreads, WithoutThreadsADeviceIsNotOpened) {
    const auto fabric = Fabric::open({.backends = {"host"}});
    ASSERT_TRUE(fabric) << fabric.error().message;
    {
        const testing::NoThreads none;
        const auto device = (*fabric)->device("host:0");
        ASSERT_FALSE(device);
        EXPECT_EQ(device.error().code, Code::kNoMemory) << device.error().message;
    }
    EXPECT_TRUE((*fabric)->device("host:0")) << "later it can be";
}

}  // namespace
}  // namespace pegaflow
