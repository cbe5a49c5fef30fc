// SPDX-License-Identifier: Apache-2.0
// wire.hpp - what travels between processes: addresses, region descriptors, and the frames of the control connection.
//
// Fixed structs, little-endian, natural alignment, sizes pinned below. Everything that is read comes from outside: `read_*`
// says no to what is not exactly what it claims to be.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "nccl_api.hpp"
#include "pegaflow/backend.hpp"

namespace nccl_backend {

using Bytes = std::vector<std::uint8_t>;
using ByteSpan = std::span<const std::uint8_t>;
using Id = std::array<std::uint8_t, 16>;

Id random_id() noexcept;

// How a peer reaches a device. The token is what proves to the device that the peer was given the address.
struct Address {
    char magic[8];
    Id device;
    Id token;
    Id gpu;         // the GPU's uuid
    char host[46];  // numeric IPv4 or IPv6, zero-terminated
    std::uint16_t port;
    std::uint64_t checksum;
};

// What names a region to its owner. `generation` is random: a key that was used again names no older region.
struct Descriptor {
    char magic[8];
    Id device;
    std::uint64_t key, generation;
    std::uint64_t length;
    std::uint32_t kind, flags;  // PEGA_MEMORY_*, PEGA_REGION_*
    std::uint64_t checksum;
};

enum class FrameType : std::uint32_t {
    kHello = 1,  // opener: Hello
    kWelcome,    // target: Welcome; both sides create the communicator now
    kRefuse,     // target: Refuse, then it closes the connection
    kAnnounce,   // opener: Announce, its regions, its pieces
    kAnswer,     // target: Answer; on OK it posts its side
    kDone,       // target: Done; the part's bytes have landed in its memory
    kNotify,     // opener: Notify
    kBye,        // both: nothing follows
};

struct FrameHeader {
    std::uint32_t magic;
    FrameType type;
    std::uint32_t length;  // bytes of the body
    std::uint32_t reserved;
};
struct Hello {
    std::uint32_t protocol, nccl_version;
    std::uint64_t chunk_bytes;  // that fit a slot of the sender of this frame
    Id token, device, gpu;
    char unique_id[kUniqueIdBytes];
};
struct Welcome {
    std::uint32_t protocol, nccl_version;
    std::uint64_t chunk_bytes;
};
struct Refuse {
    std::int32_t status;
    char text[124];  // zero-terminated
};

constexpr std::uint32_t kSeparate = 1;   // each piece is a message of its own; else all pieces are one message
constexpr std::uint32_t kWithValue = 2;  // deliver `value` when this part and all before it of its batch have landed
struct Announce {
    std::uint64_t part, batch;
    std::uint64_t bytes;
    std::uint32_t op;  // PEGA_OP_*, as the opener sees it
    std::uint32_t flags;
    std::uint32_t regions, pieces;  // counts of what follows
    std::uint32_t value, reserved;
};
struct WireRegion {
    std::uint64_t key, generation;
};
struct WirePiece {
    std::uint64_t offset;
    std::uint32_t length, region;
};
struct Answer {
    std::uint64_t part;
    std::int32_t status;
    std::uint32_t reserved;
};
struct Done {
    std::uint64_t part;
};
struct Notify {
    std::uint32_t value, reserved;
};

static_assert(sizeof(Address) == 112 && sizeof(Descriptor) == 64 && sizeof(FrameHeader) == 16 && sizeof(Hello) == 192 &&
              sizeof(Refuse) == 128 && sizeof(Announce) == 48 && sizeof(WirePiece) == 16 && sizeof(Answer) == 16);

constexpr std::uint32_t kProtocol = 1;
constexpr std::uint32_t kMostPieces = 2048;  // in one part
constexpr std::uint32_t kMostRegions = 256;  // likewise
constexpr std::uint64_t kMostPartBytes = 64U << 20;
constexpr std::uint32_t kMostBody = sizeof(Announce) + kMostRegions * sizeof(WireRegion) + kMostPieces * sizeof(WirePiece);

Bytes encode(Address address);        // fills in magic and checksum
Bytes encode(Descriptor descriptor);  // likewise
// CORRUPT when the bytes are none; UNSUPPORTED when they are of a later version.
pega_status read_address(const void* bytes, std::uint64_t length, Address& out) noexcept;
pega_status read_descriptor(const void* bytes, std::uint64_t length, Descriptor& out) noexcept;

// Appends one frame.
void put_frame(Bytes& out, FrameType type, ByteSpan body);
template <class Body>
void put_frame(Bytes& out, FrameType type, const Body& body) {
    put_frame(out, type, ByteSpan(reinterpret_cast<const std::uint8_t*>(&body), sizeof body));
}
// How much of `bytes` is the first frame: 0 = not whole yet, -1 = this is no frame. `most` bounds the body.
std::int64_t frame_length(ByteSpan bytes, std::uint32_t most) noexcept;

template <class Body>
bool read_body(ByteSpan body, Body& out) noexcept {
    if (body.size() != sizeof out) return false;
    std::memcpy(&out, body.data(), sizeof out);
    return true;
}

// An announcement whose counts, sums and references are sound; whether the regions exist is the owner's to say.
struct Announcement {
    Announce head{};
    std::vector<WireRegion> regions;
    std::vector<WirePiece> pieces;
};
Bytes encode(const Announcement& announcement);
bool read_announcement(ByteSpan body, Announcement& out);

}  // namespace nccl_backend
