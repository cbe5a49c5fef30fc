// SPDX-License-Identifier: Apache-2.0
// Events between processes: a copy waits for the stream of the process whose memory it reads.
#include "tests/unit/backends/cuda/event_role.hpp"

#include <unistd.h>

#include <optional>

#include "pegaflow/abi/ext/stream.h"
#include "tests/torture/cuda_soak/driver.hpp"
#include "tests/unit/backends/cuda/peer_process.hpp"
#include "tests/unit/backends/cuda/peer_side.hpp"

namespace pegaflow {
namespace {

using namespace std::chrono_literals;

constexpr auto kPatience = 30s;

const pega_ext_stream& stream_table(const Device& device) {
    return *static_cast<const pega_ext_stream*>(device.extension(PEGA_EXT_STREAM));
}

}  // namespace

int hold_a_stream() {
    std::string why;
    const auto side = PeerSide::open(device_of_this_process(), "auto", &why);
    if (!side) return 1;
    side->write(side->memory(), seeded_bytes(4));
    const auto gpu = soak::HeldGpu::open(device_of_this_process());
    if (!gpu) return 2;
    soak::HeldStream stream(*gpu);
    const pega_ext_stream& table = stream_table(side->device());
    pega_event* event = nullptr;
    if (table.create(side->device().handle(), PEGA_EVENT_SHARED, &event) != PEGA_OK) return 3;
    std::vector<std::byte> exported(64);
    std::uint64_t length = 0;
    if (table.export_event(event, exported.data(), exported.size(), &length) != PEGA_OK || length != 64) return 4;
    if (!stream.hold(kPatience) || !stream.fill(side->memory().address(), kOverwritten, kPeerBytes) ||
        table.signal(event, stream.handle()) != PEGA_OK) {
        return 5;
    }
    const auto address = side->device().address();
    const auto descriptor = side->memory().export_descriptor();
    if (!address || !descriptor || !send_message(kRoleSocket, *address) || !send_message(kRoleSocket, *descriptor) ||
        !send_message(kRoleSocket, exported)) {
        return 6;
    }
    const bool asked = receive_message(kRoleSocket).has_value();
    stream.let_go();
    stream.wait();
    while (receive_message(kRoleSocket)) {
    }
    table.destroy(event);
    return asked ? 0 : 7;
}

namespace {

class EventsBetweenProcesses : public ::testing::Test {
protected:
    void SetUp() override {
        std::string why;
        side_ = PeerSide::open("cuda:0", "auto", &why);
        if (!side_) {
            ASSERT_NE(::access(FAKE_DRIVER, R_OK), 0) << why;
            GTEST_SKIP() << why;
        }
        other_.emplace("hold", "cuda:0");
        const auto address = receive_message(other_->socket());
        const auto descriptor = receive_message(other_->socket());
        const auto exported = receive_message(other_->socket());
        ASSERT_TRUE(address && descriptor && exported) << "the other process ended with " << other_->wait();
        auto remote = side_->device().import_region(*descriptor);
        ASSERT_TRUE(remote) << remote.error().message;
        remote_ = std::move(*remote);
        auto channel = side_->device().open_channel(*address);
        ASSERT_TRUE(channel) << channel.error().message;
        channel_ = std::move(*channel);
        ASSERT_EQ(table().import_event(side_->device().handle(), exported->data(), exported->size(), &event_), PEGA_OK);
    }
    void TearDown() override {
        channel_ = {};
        remote_ = {};
        if (event_ != nullptr) table().destroy(event_);
    }
    const pega_ext_stream& table() const { return stream_table(side_->device()); }
    void read_all(Transfer& transfer) const { transfer.flat(side_->memory(), remote_).range(0, 0, kPeerBytes).read(); }
    void let_go() const { ASSERT_TRUE(send_message(other_->socket(), {})); }

    std::unique_ptr<PeerSide> side_;
    std::optional<OtherProcess> other_;
    Region remote_;
    Channel channel_;
    pega_event* event_ = nullptr;
};

TEST_F(EventsBetweenProcesses, ABatchReadsWhatWasWrittenBeforeTheEvent) {
    EXPECT_EQ(table().query(event_), PEGA_PENDING);
    Transfer transfer;
    read_all(transfer);
    transfer.wait_event(event_);
    const auto read = channel_.submit(transfer);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_FALSE(read->wait_for(200ms)) << "the event has not happened";
    let_go();
    const auto bytes = read->wait_for(kPatience);
    ASSERT_TRUE(bytes) << bytes.error().message;
    EXPECT_EQ(table().query(event_), PEGA_OK);
    EXPECT_TRUE(side_->read(side_->memory()) == std::vector<std::uint8_t>(kPeerBytes, kOverwritten));
}

TEST_F(EventsBetweenProcesses, ABatchWithoutItReadsWhatWasThereBefore) {
    Transfer transfer;
    read_all(transfer);
    const auto read = channel_.submit(transfer);
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_TRUE(read->wait_for(kPatience)) << "nothing holds it";
    EXPECT_TRUE(side_->read(side_->memory()) == seeded_bytes(4));
    let_go();
}

TEST_F(EventsBetweenProcesses, WhatIsNoHandleOfAnEventIsRefused) {
    pega_event* none = nullptr;
    std::vector<std::byte> garbage(64, std::byte{7});
    EXPECT_EQ(table().import_event(side_->device().handle(), garbage.data(), 63, &none), PEGA_CORRUPT);
    EXPECT_EQ(table().import_event(side_->device().handle(), garbage.data(), 64, &none), PEGA_REGION_LOST);
    let_go();
}

}  // namespace
}  // namespace pegaflow
