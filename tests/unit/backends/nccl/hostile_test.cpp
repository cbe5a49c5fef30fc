// SPDX-License-Identifier: Apache-2.0
// Strangers, and peers that lie, at the control port of a device: refused or dropped, never obeyed, and the device goes on.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>

#include "side.hpp"
#include "wire.hpp"

namespace pegaflow::nccl_test {
namespace {

using namespace nccl_backend;

constexpr std::uint64_t kBytes = 1U << 20;

// A connection that speaks the protocol as badly as it likes.
class Stranger {
public:
    explicit Stranger(const Address& address) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(address.port);
        ::inet_pton(AF_INET, address.host, &to.sin_addr);
        if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) throw std::runtime_error("connect");
    }
    ~Stranger() { ::close(fd_); }
    void send(const Bytes& bytes) const { (void)!::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
    template <class Body>
    void send(FrameType type, const Body& content) const {
        Bytes frame;
        put_frame(frame, type, content);
        send(frame);
    }
    // The next frame's type, with its body in `body`; nothing when the connection ended.
    std::optional<FrameType> next() {
        for (;;) {
            const std::int64_t length = in_.empty() ? 0 : frame_length(in_, kMostBody);
            if (length > 0) {
                FrameHeader header{};
                std::memcpy(&header, in_.data(), sizeof header);
                body.assign(in_.begin() + sizeof header, in_.begin() + length);
                in_.erase(in_.begin(), in_.begin() + length);
                return header.type;
            }
            pollfd waiting{fd_, POLLIN, 0};
            if (::poll(&waiting, 1, 10'000) != 1)
                throw std::runtime_error("the device neither answers nor ends the connection");
            std::uint8_t buffer[4096];
            const ssize_t count = ::recv(fd_, buffer, sizeof buffer, 0);
            if (count <= 0) return std::nullopt;
            in_.insert(in_.end(), buffer, buffer + count);
        }
    }
    bool ended() {
        while (const auto type = next()) {
            if (*type != FrameType::kRefuse && *type != FrameType::kWelcome) return false;
        }
        return true;
    }
    Bytes body;

private:
    int fd_;
    Bytes in_;
};

class NcclHostile : public ::testing::Test {
protected:
    void SetUp() override {
        if (const std::string why = prepare(); !why.empty()) GTEST_SKIP() << why;
        side_ = std::make_unique<Side>(1, kBytes, std::map<std::string, std::string>{{"timeout_ms", "8000"}});
        const auto bytes = side_->address();
        ASSERT_EQ(read_address(bytes.data(), bytes.size(), address_), PEGA_OK);
        const auto region = side_->descriptor();
        ASSERT_EQ(read_descriptor(region.data(), region.size(), region_), PEGA_OK);
        before_ = side_->read();
    }
    void TearDown() override {
        if (side_ == nullptr) return;
        EXPECT_TRUE(side_->read() == before_) << "a stranger changed memory";
        // Whatever was sent before: an honest peer is still served.
        Side honest(0, kBytes);
        const Region imported = honest.import(side_->descriptor());
        Channel channel = honest.connect(*side_);
        Transfer transfer;
        transfer.read().flat(honest.region(), imported).range(0, 0, kBytes);
        const auto moved = run(channel, transfer);
        EXPECT_TRUE(moved) << moved.error().message;
    }
    Hello hello() const {
        Hello out{};
        out.protocol = kProtocol;
        out.nccl_version = version_;
        out.chunk_bytes = 1U << 20;
        out.token = address_.token;
        out.device = random_id();
        out.gpu = random_id();
        std::snprintf(out.unique_id, sizeof out.unique_id, "pegaflow-fake-nccl-nobody");
        return out;
    }
    // Greets as a peer that knows the token would. Only the fake library joins somebody who is not there.
    bool greet(Stranger& stranger) const {
        const char* library = std::getenv("PEGAFLOW_LIBNCCL");
        if (library == nullptr || std::strstr(library, "fake") == nullptr) return false;
        stranger.send(FrameType::kHello, hello());
        return stranger.next() == FrameType::kWelcome;
    }
    Announcement announcement() const {
        Announcement out;
        out.head.part = 1;
        out.head.batch = 1;
        out.head.op = PEGA_OP_WRITE;
        out.head.bytes = 4096;
        out.regions = {{region_.key, region_.generation}};
        out.pieces = {{0, 4096, 0}};
        return out;
    }
    std::unique_ptr<Side> side_;
    Address address_{};
    Descriptor region_{};
    std::uint32_t version_ = 22809;
    std::vector<std::uint8_t> before_;
};

TEST_F(NcclHostile, BytesThatAreNoGreeting) {
    std::mt19937_64 random(3);
    for (int round = 0; round < 40; ++round) {
        Stranger stranger(address_);
        Bytes bytes(1 + random() % 600);
        for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
        if (round % 2 == 0) {  // a frame outside, nonsense inside
            Bytes frame;
            put_frame(frame, static_cast<FrameType>(random() % 10),
                      ByteSpan(bytes).first(std::min<std::size_t>(bytes.size(), 192)));
            bytes = frame;
        }
        stranger.send(bytes);
        EXPECT_TRUE(stranger.ended());
    }
}

TEST_F(NcclHostile, GreetingsThatAreNotGoodEnough) {
    const auto refused = [&](auto change) {
        Stranger stranger(address_);
        Hello bad = hello();
        change(bad);
        stranger.send(FrameType::kHello, bad);
        EXPECT_EQ(stranger.next(), FrameType::kRefuse);
        EXPECT_FALSE(stranger.next().has_value());
    };
    for (std::size_t at = 0; at < 16; ++at) refused([at](Hello& h) { h.token[at] ^= 1; });
    refused([](Hello& h) { h.protocol = 2; });
    refused([](Hello& h) { h.nccl_version = 1; });
    refused([this](Hello& h) { h.gpu = address_.gpu; });
    refused([](Hello& h) { h.chunk_bytes = 0; });
}

TEST_F(NcclHostile, ManyWhoSayNothing) {
    std::vector<std::unique_ptr<Stranger>> silent;
    for (int i = 0; i < 150; ++i) silent.push_back(std::make_unique<Stranger>(address_));
    Stranger wrong(address_);
    Hello bad = hello();
    bad.token = {};
    wrong.send(FrameType::kHello, bad);
    EXPECT_EQ(wrong.next(), FrameType::kRefuse);
}

TEST_F(NcclHostile, PiecesOutsideWhatWasExported) {
    Stranger stranger(address_);
    if (!greet(stranger)) GTEST_SKIP() << "the library here is not the fake";
    // Not exported by anybody, whatever its key.
    const Region secret = *side_->device().allocate(PEGA_MEMORY_GPU, kBytes);
    std::uint64_t part = 1;
    const auto answer_to = [&](auto change) {
        Announcement bad = announcement();
        change(bad);
        bad.head.part = bad.head.batch = part++;
        stranger.send(FrameType::kAnnounce, ByteSpan(encode(bad)));
        Answer answer{};
        EXPECT_EQ(stranger.next(), FrameType::kAnswer);
        EXPECT_TRUE(read_body(stranger.body, answer));
        return answer.status;
    };
    EXPECT_EQ(answer_to([](Announcement& a) { a.regions[0].generation ^= 1; }), PEGA_REGION_LOST);
    for (std::uint64_t key = 0; key < 64; ++key) {
        if (key == region_.key) continue;
        EXPECT_EQ(answer_to([key](Announcement& a) { a.regions[0].key = key; }), PEGA_REGION_LOST) << key;
    }
    EXPECT_EQ(answer_to([](Announcement& a) { a.pieces[0].offset = kBytes - 4095; }), PEGA_INVALID);
    EXPECT_EQ(answer_to([](Announcement& a) { a.pieces[0].offset = UINT64_MAX - 100; }), PEGA_INVALID);
    EXPECT_EQ(answer_to([](Announcement& a) {
                  a.head.op = PEGA_OP_READ;
                  a.pieces[0].offset = kBytes;
              }),
              PEGA_INVALID);
    EXPECT_EQ(answer_to([](Announcement& a) {
                  a.pieces = {{0, 1U << 20, 0}, {0, 1U << 20, 0}};  // sound, but more than the slot that was agreed on
                  a.head.bytes = 2U << 20;
              }),
              PEGA_INVALID);
}

TEST_F(NcclHostile, FramesThatHaveNoPlace) {
    std::mt19937_64 random(4);
    for (int round = 0; round < 24; ++round) {
        Stranger stranger(address_);
        if (!greet(stranger)) GTEST_SKIP() << "the library here is not the fake";
        Announcement bad = announcement();
        switch (round % 4) {
            case 0:
                bad.head.bytes = 1;
                stranger.send(FrameType::kAnnounce, ByteSpan(encode(bad)));
                break;
            case 1:
                stranger.send(FrameType::kAnswer, Answer{1, 0, 0});
                break;
            case 2: {  // the same part twice
                bad.regions[0].key = 12345;
                stranger.send(FrameType::kAnnounce, ByteSpan(encode(bad)));
                EXPECT_EQ(stranger.next(), FrameType::kAnswer);
                stranger.send(FrameType::kAnnounce, ByteSpan(encode(bad)));
                break;
            }
            default: {
                Bytes bytes(200);
                for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
                stranger.send(bytes);
            }
        }
        EXPECT_TRUE(stranger.ended()) << round;
    }
}

// It was let in and its part was taken, and then it goes: the region must come free again.
TEST_F(NcclHostile, APeerThatGoesAfterItsPartWasTaken) {
    Region region = *side_->device().allocate(PEGA_MEMORY_GPU, kBytes);
    const auto bytes = *region.export_descriptor();
    Descriptor named{};
    ASSERT_EQ(read_descriptor(bytes.data(), bytes.size(), named), PEGA_OK);
    {
        Stranger stranger(address_);
        if (!greet(stranger)) GTEST_SKIP() << "the library here is not the fake";
        Announcement fair = announcement();
        fair.regions = {{named.key, named.generation}};
        stranger.send(FrameType::kAnnounce, ByteSpan(encode(fair)));
        ASSERT_EQ(stranger.next(), FrameType::kAnswer);
    }
    const auto* table = side_->device().info().backend.c_str();
    EXPECT_STREQ(table, "nccl");
    Transfer probe;
    probe.flat(side_->region(), region).range(0, 0, 16);
    Channel self = *side_->device().open_channel();
    EXPECT_TRUE(run(self, probe));
    region = {};  // ends the program when it is still pinned after the device's close
}

}  // namespace
}  // namespace pegaflow::nccl_test
