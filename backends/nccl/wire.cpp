// SPDX-License-Identifier: Apache-2.0
#include "wire.hpp"

#include <sys/random.h>

namespace nccl_backend {
namespace {

constexpr char kAddressMagic[8] = {'P', 'G', 'N', 'C', 'A', 'D', 'R', '1'};
constexpr char kRegionMagic[8] = {'P', 'G', 'N', 'C', 'R', 'E', 'G', '1'};
constexpr std::uint32_t kFrameMagic = 0x434e4750U;  // "PGNC"
constexpr std::size_t kFamily = 7;                  // bytes of a magic before the version

template <class Wire>
std::uint64_t checksum(Wire wire) noexcept {
    wire.checksum = 0;
    const auto* bytes = reinterpret_cast<const unsigned char*>(&wire);
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (std::size_t i = 0; i < sizeof wire; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    return hash;
}

template <class Wire>
Bytes seal(Wire wire, const char (&magic)[8]) {
    std::memcpy(wire.magic, magic, sizeof magic);
    wire.checksum = checksum(wire);
    Bytes out(sizeof wire);
    std::memcpy(out.data(), &wire, sizeof wire);
    return out;
}

template <class Wire>
pega_status open(const void* bytes, std::uint64_t length, const char (&magic)[8], Wire& out) noexcept {
    if (bytes == nullptr || length < sizeof magic || std::memcmp(bytes, magic, kFamily) != 0) return PEGA_CORRUPT;
    if (std::memcmp(bytes, magic, sizeof magic) != 0) return PEGA_UNSUPPORTED;
    if (length != sizeof out) return PEGA_CORRUPT;
    std::memcpy(&out, bytes, sizeof out);
    return out.checksum == checksum(out) ? PEGA_OK : PEGA_CORRUPT;
}

template <class Element>
void append(Bytes& out, const Element* elements, std::size_t count) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(elements);
    out.insert(out.end(), bytes, bytes + count * sizeof(Element));
}

}  // namespace

Id random_id() noexcept {
    Id out{};
    for (std::size_t got = 0; got < out.size();) {
        const ssize_t count = ::getrandom(out.data() + got, out.size() - got, 0);
        if (count > 0) got += static_cast<std::size_t>(count);
    }
    return out;
}

Bytes encode(Address address) { return seal(address, kAddressMagic); }
Bytes encode(Descriptor descriptor) { return seal(descriptor, kRegionMagic); }

pega_status read_address(const void* bytes, std::uint64_t length, Address& out) noexcept {
    const pega_status status = open(bytes, length, kAddressMagic, out);
    if (status != PEGA_OK) return status;
    return std::memchr(out.host, 0, sizeof out.host) != nullptr ? PEGA_OK : PEGA_CORRUPT;
}

pega_status read_descriptor(const void* bytes, std::uint64_t length, Descriptor& out) noexcept {
    const pega_status status = open(bytes, length, kRegionMagic, out);
    if (status != PEGA_OK) return status;
    return out.length != 0 && (out.kind == PEGA_MEMORY_GPU || out.kind == PEGA_MEMORY_HOST) ? PEGA_OK : PEGA_CORRUPT;
}

void put_frame(Bytes& out, FrameType type, ByteSpan body) {
    const FrameHeader header{kFrameMagic, type, static_cast<std::uint32_t>(body.size()), 0};
    append(out, &header, 1);
    out.insert(out.end(), body.begin(), body.end());
}

std::int64_t frame_length(ByteSpan bytes, std::uint32_t most) noexcept {
    FrameHeader header{};
    const std::size_t seen = std::min(bytes.size(), sizeof header.magic);
    if (std::memcmp(bytes.data(), &kFrameMagic, seen) != 0) return -1;
    if (bytes.size() < sizeof header) return 0;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.length > most) return -1;
    const std::size_t whole = sizeof header + header.length;
    return bytes.size() < whole ? 0 : static_cast<std::int64_t>(whole);
}

Bytes encode(const Announcement& announcement) {
    Announce head = announcement.head;
    head.regions = static_cast<std::uint32_t>(announcement.regions.size());
    head.pieces = static_cast<std::uint32_t>(announcement.pieces.size());
    Bytes out;
    out.reserve(sizeof head + head.regions * sizeof(WireRegion) + head.pieces * sizeof(WirePiece));
    append(out, &head, 1);
    append(out, announcement.regions.data(), announcement.regions.size());
    append(out, announcement.pieces.data(), announcement.pieces.size());
    return out;
}

bool read_announcement(ByteSpan body, Announcement& out) {
    if (body.size() < sizeof out.head) return false;
    std::memcpy(&out.head, body.data(), sizeof out.head);
    const Announce& head = out.head;
    if (head.op != PEGA_OP_READ && head.op != PEGA_OP_WRITE) return false;
    if (head.regions == 0 || head.regions > kMostRegions || head.pieces == 0 || head.pieces > kMostPieces) return false;
    if (body.size() != sizeof head + head.regions * sizeof(WireRegion) + head.pieces * sizeof(WirePiece)) return false;
    out.regions.resize(head.regions);
    out.pieces.resize(head.pieces);
    const std::uint8_t* at = body.data() + sizeof head;
    std::memcpy(out.regions.data(), at, head.regions * sizeof(WireRegion));
    std::memcpy(out.pieces.data(), at + head.regions * sizeof(WireRegion), head.pieces * sizeof(WirePiece));
    std::uint64_t sum = 0;
    for (const WirePiece& piece : out.pieces) {
        if (piece.region >= head.regions || piece.length == 0) return false;
        sum += piece.length;
    }
    return sum == head.bytes && sum <= kMostPartBytes;
}

}  // namespace nccl_backend
