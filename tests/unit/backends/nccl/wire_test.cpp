// SPDX-License-Identifier: Apache-2.0
// What comes from outside is taken only when it is exactly what it claims to be.
#include "wire.hpp"

#include <gtest/gtest.h>

#include <random>

namespace nccl_backend {
namespace {

Address an_address() {
    Address address{};
    address.device = random_id();
    address.token = random_id();
    std::snprintf(address.host, sizeof address.host, "127.0.0.1");
    address.port = 4711;
    return address;
}

Announcement an_announcement() {
    Announcement out;
    out.head.part = 3;
    out.head.batch = 2;
    out.head.op = PEGA_OP_WRITE;
    out.regions = {{1, 99}, {2, 98}};
    out.pieces = {{0, 4096, 0}, {8192, 100, 1}};
    out.head.bytes = 4196;
    return out;
}

TEST(NcclWire, AddressesAndDescriptorsComeBackWhole) {
    const Address sent = an_address();
    const Bytes bytes = encode(sent);
    Address got{};
    ASSERT_EQ(read_address(bytes.data(), bytes.size(), got), PEGA_OK);
    EXPECT_EQ(got.device, sent.device);
    EXPECT_EQ(got.token, sent.token);
    EXPECT_EQ(got.port, 4711);
    const Bytes region = encode(Descriptor{{}, sent.device, 7, 8, 4096, PEGA_MEMORY_GPU, 0, 0});
    Descriptor back{};
    ASSERT_EQ(read_descriptor(region.data(), region.size(), back), PEGA_OK);
    EXPECT_EQ(back.key, 7U);
    EXPECT_EQ(back.length, 4096U);
    EXPECT_LT(read_descriptor(bytes.data(), bytes.size(), back), 0) << "an address is no descriptor";
}

TEST(NcclWire, EveryChangedByteAndEveryCutIsSeen) {
    const Bytes address = encode(an_address());
    const Bytes region = encode(Descriptor{{}, random_id(), 7, 8, 4096, PEGA_MEMORY_GPU, 0, 0});
    Address a{};
    Descriptor d{};
    for (std::size_t at = 0; at < address.size(); ++at) {
        Bytes bad = address;
        bad[at] ^= 1;
        EXPECT_LT(read_address(bad.data(), bad.size(), a), 0) << at;
        EXPECT_LT(read_address(address.data(), at, a), 0) << at;
    }
    for (std::size_t at = 0; at < region.size(); ++at) {
        Bytes bad = region;
        bad[at] ^= 1;
        EXPECT_LT(read_descriptor(bad.data(), bad.size(), d), 0) << at;
        EXPECT_LT(read_descriptor(region.data(), at, d), 0) << at;
    }
    Bytes later = address;
    later[7] = '2';
    EXPECT_EQ(read_address(later.data(), later.size(), a), PEGA_UNSUPPORTED);
}

TEST(NcclWire, FramesAreTakenWholeOrNotAtAll) {
    Bytes bytes;
    put_frame(bytes, FrameType::kDone, Done{5});
    put_frame(bytes, FrameType::kBye, ByteSpan{});
    const std::size_t first = sizeof(FrameHeader) + sizeof(Done);
    for (std::size_t length = 1; length < first; ++length) EXPECT_EQ(frame_length(ByteSpan(bytes).first(length), 64), 0);
    EXPECT_EQ(frame_length(bytes, 64), static_cast<std::int64_t>(first));
    EXPECT_EQ(frame_length(bytes, 4), -1) << "a body larger than it may be";
    EXPECT_EQ(frame_length(ByteSpan(bytes).subspan(first), 64), static_cast<std::int64_t>(sizeof(FrameHeader)));
    for (std::size_t at = 0; at < 4; ++at) {
        Bytes bad = bytes;
        bad[at] ^= 0x80;
        EXPECT_EQ(frame_length(bad, 64), -1);
    }
}

TEST(NcclWire, AnnouncementsThatDoNotAddUpAreRefused) {
    Announcement got;
    const Announcement good = an_announcement();
    ASSERT_TRUE(read_announcement(encode(good), got));
    EXPECT_EQ(got.pieces.size(), 2U);
    EXPECT_EQ(got.regions[1].generation, 98U);
    const auto refused = [&](auto change, const char* what) {
        Announcement bad = good;
        change(bad);
        EXPECT_FALSE(read_announcement(encode(bad), got)) << what;
    };
    refused([](Announcement& a) { a.head.op = 9; }, "an unknown operation");
    refused([](Announcement& a) { a.head.bytes = 1; }, "a sum that is not the pieces'");
    refused([](Announcement& a) { a.pieces[1].region = 2; }, "a region that is not listed");
    refused([](Announcement& a) { a.pieces[0].length = 0; }, "a piece of nothing");
    refused([](Announcement& a) { a.pieces.clear(); }, "no piece");
    refused([](Announcement& a) { a.regions.clear(); }, "no region");
    refused([](Announcement& a) { a.regions.resize(kMostRegions + 1); }, "too many regions");
    refused(
        [](Announcement& a) {
            a.pieces.assign(kMostPieces + 1, {0, 1, 0});
            a.head.bytes = a.pieces.size();
        },
        "too many pieces");
    refused(
        [](Announcement& a) {
            a.pieces.assign(2, {0, 0xffffffffU, 0});
            a.head.bytes = 2ULL * 0xffffffffU;
        },
        "more bytes than a part may have");
    const Bytes whole = encode(good);
    for (std::size_t length = 0; length < whole.size(); ++length)
        EXPECT_FALSE(read_announcement(ByteSpan(whole).first(length), got)) << length;
}

TEST(NcclWire, RandomBytesDoNoHarm) {
    std::mt19937_64 random(1);
    Announcement got;
    const Bytes good = encode(an_announcement());
    for (int round = 0; round < 20000; ++round) {
        Bytes bytes = good;
        for (std::uint64_t i = 0; i < 1 + random() % 4; ++i)
            bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
        bytes.resize(random() % (bytes.size() + 1));
        if (!read_announcement(bytes, got)) continue;
        std::uint64_t sum = 0;
        for (const WirePiece& piece : got.pieces) sum += piece.length;
        EXPECT_EQ(sum, got.head.bytes);
    }
}

}  // namespace
}  // namespace nccl_backend
