// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/transfer.hpp"

namespace pegaflow {
namespace {

class TransferTest : public ::testing::Test {
protected:
    void SetUp() override {
        auto fabric = Fabric::open({.backends = {"host"}});
        ASSERT_TRUE(fabric) << fabric.error().message;
        fabric_ = std::move(*fabric);
        device_ = *fabric_->device("host:0");
        source_.resize(kBytes);
        target_.assign(kBytes, 0xEE);
        for (std::size_t i = 0; i < kBytes; ++i) source_[i] = static_cast<std::uint8_t>(i * 31 + (i >> 8));
        local_ = *device_->register_address(source_.data(), kBytes);
        remote_ = *device_->register_address(target_.data(), kBytes);
        channel_ = *device_->open_channel();
    }

    static constexpr std::size_t kBytes = 4 << 20;
    std::vector<std::uint8_t> source_, target_;
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region local_, remote_;
    Channel channel_;
};

TEST_F(TransferTest, FlatWriteMovesExactlyTheRanges) {
    Transfer transfer;
    transfer.flat(local_, remote_).range(1, 1001, 77).range(5000, 0, 3).range(9, 9, 0);
    auto completion = channel_.submit(transfer);
    ASSERT_TRUE(completion) << completion.error().message;
    EXPECT_EQ(*completion->wait(), 80U);
    for (std::size_t i = 0; i < kBytes; ++i) {
        const bool first = i >= 1001 && i < 1078;
        const std::uint8_t expected = first ? source_[i - 1000] : i < 3 ? source_[i + 5000] : 0xEE;
        ASSERT_EQ(target_[i], expected) << i;
    }
}

TEST_F(TransferTest, SpansShareIndicesAndReportMarksInOrder) {
    constexpr std::uint64_t kPage = 512;
    std::vector<std::uint64_t> local = {7, 0, 3, 1};
    std::vector<std::uint64_t> remote = {0, 65536, 131072, 200000};  // byte offsets: stride 1
    Transfer transfer;
    std::vector<std::uint64_t> marks;
    transfer.indices(local, remote).mark_every(1).on_mark([&](std::uint64_t landed) { marks.push_back(landed); });
    for (std::uint64_t layer = 0; layer < 4; ++layer) {
        transfer.span(
            {local_.handle(), remote_.handle(), layer * 65536, kPage, 32768, layer * 2 * kPage, 1, kPage, kPage, 2, 0});
    }
    auto completion = channel_.submit(transfer);
    ASSERT_TRUE(completion) << completion.error().message;
    EXPECT_EQ(*completion->wait(), 4 * 4 * 2 * kPage);
    for (std::uint64_t layer = 0; layer < 4; ++layer) {
        for (std::size_t i = 0; i < local.size(); ++i) {
            for (std::uint64_t s = 0; s < 2; ++s) {
                const auto from = layer * 65536 + local[i] * kPage + s * 32768;
                const auto to = layer * 2 * kPage + remote[i] + s * kPage;
                ASSERT_TRUE(std::equal(source_.begin() + from, source_.begin() + from + kPage, target_.begin() + to));
            }
        }
    }
    EXPECT_TRUE(std::is_sorted(marks.begin(), marks.end()));
    EXPECT_FALSE(marks.empty());
    EXPECT_EQ(completion->record().landed_spans, 4U);
}

TEST_F(TransferTest, RefusesWhatReachesOutside) {
    Transfer transfer;
    transfer.flat(local_, remote_).range(kBytes - 10, 0, 11);
    auto completion = channel_.submit(transfer);
    ASSERT_FALSE(completion);
    EXPECT_EQ(completion.error().code, Code::kInvalid);
    transfer.clear();
    const std::vector<std::uint64_t> huge = {UINT64_MAX / 2};
    transfer.indices(huge, huge).span({local_.handle(), remote_.handle(), 0, 4, 0, 0, 4, 0, 16, 1, 0});
    EXPECT_EQ(channel_.submit(transfer).error().code, Code::kInvalid);
}

TEST_F(TransferTest, NotifyArrivesAfterTheBytesEvenWhenNobodyWaitedYet) {
    Transfer transfer;
    transfer.flat(local_, remote_).range(0, 0, kBytes).notify(42);
    ASSERT_TRUE(channel_.submit(transfer)->wait());
    EXPECT_TRUE(device_->wait_notify(42, 1, std::chrono::seconds(5)));
    EXPECT_EQ(device_->wait_notify(42, 1, std::chrono::milliseconds(2)).error().code, Code::kDeadlineExceeded);
    EXPECT_EQ(source_, target_);
}

TEST_F(TransferTest, WaitsForAnEventAndCanBeCancelledMeanwhile) {
    const auto* stream = static_cast<const pega_ext_stream*>(device_->extension(PEGA_EXT_STREAM));
    ASSERT_NE(stream, nullptr);
    pega_event* event = nullptr;
    ASSERT_EQ(stream->create(device_->handle(), 0, &event), PEGA_OK);
    Transfer waits;
    waits.flat(local_, remote_).range(0, 0, 100).wait_event(event);
    auto pending = channel_.submit(waits);
    ASSERT_TRUE(pending);
    EXPECT_EQ(pending->wait_for(std::chrono::milliseconds(5)).error().code, Code::kDeadlineExceeded);
    EXPECT_EQ(target_[0], 0xEE);
    Transfer cancelled;
    cancelled.flat(local_, remote_).range(0, 200, 100).wait_event(event);
    auto other = channel_.submit(cancelled);
    ASSERT_TRUE(other);
    ASSERT_TRUE(channel_.cancel(cancelled));
    EXPECT_EQ(other->wait().error().code, Code::kCanceled);
    stream->signal(event, nullptr);
    EXPECT_EQ(*pending->wait(), 100U);
    EXPECT_EQ(target_[5], source_[5]);
    EXPECT_EQ(target_[250], 0xEE);
    stream->destroy(event);
}

TEST_F(TransferTest, SharedRegionsTravelByDescriptor) {
    auto shared = device_->allocate(PEGA_MEMORY_HOST, 8192, PEGA_REGION_SHARED);
    ASSERT_TRUE(shared);
    auto descriptor = shared->export_descriptor();
    ASSERT_TRUE(descriptor);
    auto imported = device_->import_region(*descriptor);
    ASSERT_TRUE(imported) << imported.error().message;
    EXPECT_EQ(imported->length(), 8192U);
    std::memset(shared->address(), 7, 8192);
    Transfer transfer;
    transfer.read().flat(local_, *imported).range(0, 0, 8192);
    ASSERT_TRUE(channel_.submit(transfer)->wait());
    EXPECT_EQ(source_[8191], 7);
    descriptor->at(20) ^= std::byte{1};
    EXPECT_EQ(device_->import_region(*descriptor).error().code, Code::kCorrupt);
}

TEST_F(TransferTest, AFullQueueIsAnAnswerAndSubmitWaitGetsThrough) {
    const auto* stream = static_cast<const pega_ext_stream*>(device_->extension(PEGA_EXT_STREAM));
    pega_event* event = nullptr;
    ASSERT_EQ(stream->create(device_->handle(), 0, &event), PEGA_OK);
    Channel narrow = *device_->open_channel({}, 1);
    Transfer first;
    first.flat(local_, remote_).range(0, 0, 1).wait_event(event);
    auto held = narrow.submit(first);
    ASSERT_TRUE(held);
    Transfer second;
    second.flat(local_, remote_).range(1, 1, 1);
    EXPECT_EQ(narrow.submit(second).error().code, Code::kQueueFull);
    std::thread later([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        stream->signal(event, nullptr);
    });
    auto through = narrow.submit_wait(second);
    ASSERT_TRUE(through);
    EXPECT_TRUE(through->wait());
    EXPECT_TRUE(held->wait());
    later.join();
    stream->destroy(event);
}

TEST_F(TransferTest, ManyThreadsEachWithAChannel) {
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Channel channel = *device_->open_channel();
            Transfer transfer;
            for (int i = 0; i < 500; ++i) {
                transfer.clear().flat(local_, remote_).range(t * 1000, t * 1000, 1000);
                auto completion = channel.submit_wait(transfer);
                if (!completion || !completion->wait()) ++failures;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(failures.load(), 0);
    EXPECT_TRUE(std::equal(source_.begin(), source_.begin() + 4000, target_.begin()));
}

}  // namespace
}  // namespace pegaflow
