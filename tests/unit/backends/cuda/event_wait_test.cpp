// SPDX-License-Identifier: Apache-2.0
// Batches that wait for an event: one that never happens holds up nobody else and can be given up at once, also when it is
// another process's that was killed before it. Over the fake driver where that was built, elsewhere on a GPU.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "common/mailbox.hpp"
#include "pegaflow/abi/ext/stream.h"
#include "tests/torture/cuda_soak/driver.hpp"
#include "tests/unit/backends/cuda/peer_process.hpp"
#include "tests/unit/backends/cuda/peer_side.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 30s;
constexpr std::uint64_t kBytes = 64U << 10;
constexpr const char* kOnGpu = "cuda:0";

const pega_ext_stream& stream_of(Device& device) {
    return *static_cast<const pega_ext_stream*>(device.extension(PEGA_EXT_STREAM));
}

// An event behind a stream that is held up.
struct HeldEvent {
    explicit HeldEvent(Device& of, std::uint32_t flags = 0) : device(of), gpu(soak::HeldGpu::open(kOnGpu)), stream(*gpu) {
        const pega_ext_stream& table = stream_of(device);
        held = table.create(device.handle(), flags, &event) == PEGA_OK && stream.hold() &&
               table.signal(event, stream.handle()) == PEGA_OK;
    }
    ~HeldEvent() {
        stream.let_go();
        stream.wait();
        if (event != nullptr) stream_of(device).destroy(event);
    }
    HeldEvent(const HeldEvent&) = delete;
    HeldEvent& operator=(const HeldEvent&) = delete;

    Device& device;
    std::unique_ptr<soak::HeldGpu> gpu;
    soak::HeldStream stream;
    pega_event* event = nullptr;
    bool held = false;
};

// The other process: it records an event behind work that has not ended, and is killed.
TEST(CudaEventOwner, DISABLED_Run) {
    std::string why;
    const auto side = PeerSide::open(kOnGpu, "auto", &why);
    ASSERT_TRUE(side) << why;
    const HeldEvent event(side->device(), PEGA_EVENT_SHARED);
    ASSERT_TRUE(event.held);
    std::vector<std::byte> bytes(64);
    std::uint64_t length = 0;
    if (stream_of(side->device()).export_event(event.event, bytes.data(), bytes.size(), &length) != PEGA_OK) bytes.clear();
    ASSERT_TRUE(send_message(kRoleSocket, bytes));
    while (receive_message(kRoleSocket)) {
    }
}

class CudaEvents : public ::testing::Test {
protected:
    void SetUp() override {
        std::string why;
        side_ = PeerSide::open(kOnGpu, "auto", &why);
        if (!side_) GTEST_SKIP() << why;
        host_ = *side_->device().allocate(PEGA_MEMORY_HOST, kBytes * 8);
        std::memset(host_.address(), 0, host_.length());
        side_->write(side_->memory(), seeded_bytes(1));
        channel_ = *side_->device().open_channel();
    }
    void TearDown() override {
        channel_ = {};
        host_ = {};
    }
    // Saves the part of this number.
    std::optional<Completion> save(std::size_t part, pega_event* wait) {
        Transfer& transfer = transfers_[part];
        transfer.flat(side_->memory(), host_).range(part * kBytes, part * kBytes, kBytes);
        if (wait != nullptr) transfer.wait_event(wait);
        const auto end = channel_.submit(transfer);
        EXPECT_TRUE(end) << end.error().message;
        return end ? std::optional(*end) : std::nullopt;
    }
    static void expect_canceled(const std::optional<Completion>& end) {
        const auto moved = end->wait_for(kPatience);
        ASSERT_FALSE(moved);
        EXPECT_EQ(moved.error().code, Code::kCanceled) << moved.error().message;
        EXPECT_EQ(end->record().bytes, 0U);
    }
    static void expect_moved(const std::optional<Completion>& end) {
        const auto moved = end->wait_for(kPatience);
        ASSERT_TRUE(moved) << moved.error().message;
        EXPECT_EQ(*moved, kBytes);
    }
    bool landed(std::size_t part) const { return std::memcmp(at(part), seeded_bytes(1).data() + part * kBytes, kBytes) == 0; }
    bool untouched(std::size_t part) const {
        return std::all_of(at(part), at(part) + kBytes, [](std::uint8_t byte) { return byte == 0; });
    }
    const std::uint8_t* at(std::size_t part) const { return static_cast<const std::uint8_t*>(host_.address()) + part * kBytes; }
    // Every way in which a batch that waits for `event`, which never happens, ends. Closing frees memory, for which a driver
    // waits until all streams of this process are idle.
    void give_up(pega_event* event, bool may_close) {
        const auto cancelled = save(0, event);
        transfers_[1].deadline(std::chrono::steady_clock::now() + 20ms);
        const auto late = save(1, event);
        const auto closed = save(2, event);
        const auto free = save(3, nullptr);
        ASSERT_TRUE(cancelled && late && closed && free);
        expect_moved(free);
        EXPECT_TRUE(landed(3)) << "a batch behind those that wait";
        expect_canceled(late);
        EXPECT_FALSE(cancelled->done());
        EXPECT_FALSE(closed->done());
        ASSERT_TRUE(channel_.cancel(transfers_[0]));
        expect_canceled(cancelled);
        EXPECT_FALSE(closed->done());
        expect_moved(save(4, nullptr));
        if (may_close) {
            EXPECT_TRUE(channel_.close(kPatience));
        } else {
            EXPECT_TRUE(channel_.cancel(transfers_[2]));
        }
        expect_canceled(closed);
        for (std::size_t part = 0; part < 3; ++part) EXPECT_TRUE(untouched(part)) << part;
    }

    std::unique_ptr<PeerSide> side_;
    Region host_;
    Channel channel_;
    std::vector<Transfer> transfers_ = std::vector<Transfer>(8);
};

TEST_F(CudaEvents, ABatchBeginsWhenItsEventHasHappened) {
    HeldEvent wait(side_->device());
    ASSERT_TRUE(wait.held);
    const pega_ext_stream& table = stream_of(side_->device());
    pega_event* record = nullptr;
    ASSERT_EQ(table.create(side_->device().handle(), 0, &record), PEGA_OK);
    const std::vector<std::uint64_t> layer = {0};
    std::vector<std::uint64_t> marks;
    Transfer& spans = transfers_[7];
    spans.indices(layer, layer).mark_every(1).wait_event(wait.event).record_event(record).on_mark([&](std::uint64_t landed) {
        marks.push_back(landed);
    });
    for (const std::uint64_t base : {6 * kBytes, 7 * kBytes})
        spans.span({side_->memory().handle(), host_.handle(), base, kBytes, 0, base, kBytes, 0, kBytes, 1, 0});
    const auto held = *channel_.submit(spans);
    const auto also_held = save(0, wait.event);
    expect_moved(save(1, nullptr));
    EXPECT_FALSE(held.done());
    EXPECT_TRUE(untouched(0) && untouched(6) && untouched(7));
    wait.stream.let_go();
    ASSERT_TRUE(held.wait_for(kPatience));
    expect_moved(also_held);
    EXPECT_TRUE(landed(0) && landed(1) && landed(6) && landed(7));
    EXPECT_EQ(table.query(record), PEGA_OK);
    EXPECT_EQ(marks, std::vector<std::uint64_t>{1});
    table.destroy(record);
}

TEST_F(CudaEvents, OneThatNeverHappensHoldsUpNobodyElse) {
    const HeldEvent event(side_->device());
    ASSERT_TRUE(event.held);
    give_up(event.event, ::access(FAKE_DRIVER, R_OK) == 0);
}

TEST_F(CudaEvents, BatchesThatWaitFillTheQueue) {
    channel_ = *side_->device().open_channel({}, 2);
    const HeldEvent event(side_->device());
    ASSERT_TRUE(event.held);
    const auto first = save(0, event.event);
    const auto second = save(1, event.event);
    transfers_[2].flat(side_->memory(), host_).range(0, 2 * kBytes, kBytes);
    const auto full = channel_.submit(transfers_[2]);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.error().code, Code::kQueueFull);
    ASSERT_TRUE(channel_.cancel(transfers_[0]));
    expect_canceled(first);
    expect_moved(save(3, nullptr));
    ASSERT_TRUE(channel_.cancel(transfers_[1]));
    expect_canceled(second);
}

// A peer that reads nothing, so that its socket fills up.
TEST_F(CudaEvents, AValueThatFindsNoRoomEndsAtItsDeadline) {
    backend_common::Mailbox deaf;
    ASSERT_EQ(deaf.open("PGCUDAD1"), PEGA_OK);
    channel_ = *side_->device().open_channel(std::as_bytes(std::span(deaf.address())));
    Transfer& transfer = transfers_[0];
    const auto stuck = [&]() -> Result<std::uint64_t> {
        for (std::uint64_t delivered = 0; delivered < 100'000; ++delivered) {
            transfer.clear().flat(side_->memory(), host_).range(0, 0, 16).notify(1);
            transfer.deadline(std::chrono::steady_clock::now() + 300ms);
            PEGA_ASSIGN(const Completion end, channel_.submit_wait(transfer));
            if (const auto moved = end.wait_for(kPatience); !moved) return moved;
        }
        return 0;
    }();
    ASSERT_FALSE(stuck) << "a socket never filled up";
    EXPECT_EQ(stuck.error().code, Code::kCanceled) << stuck.error().message;
    expect_moved(save(1, nullptr));
}

TEST_F(CudaEvents, OneOfAKilledProcessHoldsUpNobodyElse) {
    OtherProcess other({"--gtest_filter=CudaEventOwner.DISABLED_Run", "--gtest_also_run_disabled_tests", "--gtest_brief=1"});
    const auto bytes = receive_message(other.socket());
    ASSERT_TRUE(bytes) << "the other process ended with " << other.kill();
    if (bytes->empty()) GTEST_SKIP() << "this driver shares no events";
    const pega_ext_stream& table = stream_of(side_->device());
    pega_event* event = nullptr;
    ASSERT_EQ(table.import_event(side_->device().handle(), bytes->data(), bytes->size(), &event), PEGA_OK);
    EXPECT_EQ(table.query(event), PEGA_PENDING);
    const auto before = save(5, event);
    other.kill();
    ASSERT_TRUE(before);
    give_up(event, true);
    expect_canceled(before);
    table.destroy(event);
}

}  // namespace
}  // namespace pegaflow
