// SPDX-License-Identifier: Apache-2.0
// format.hpp - what lies on a device of the SSD tier, byte by byte: pure functions between structs and 4 KiB blocks.
//
// A container (a file or a block device) is a superblock, a copy of it, and from kSegmentsAt on segments of equal size. A
// segment is a header, extents one after another, and, once it is sealed, a table of all its records and a trailer in its last
// block. An extent is a descriptor with the table of its records, and their pages. docs/ssd-format.md is the reference.
//
// Every block carries the version and a CRC32C. A decoder says what is wrong, never guesses: kNotFound (not our magic, nor a
// few bits from it), kUnsupported (a version that this program does not know), kCorrupt (checksum, or numbers that contradict
// each other).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::engine::tier {

inline constexpr std::uint32_t kFormatVersion = 2;
inline constexpr std::uint64_t kBlockBytes = 4096;  // everything on the device starts and ends at a multiple of it
inline constexpr std::uint64_t kSuperblockCopyAt = kBlockBytes;
inline constexpr std::uint64_t kSegmentsAt = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kMinSegmentBytes = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kMaxSegmentBytes = std::uint64_t{4} << 30;
inline constexpr std::size_t kMaxScopeText = 4096;                            // of a namespace or a fingerprint
inline constexpr std::uint64_t kMaxTableBytes = std::uint64_t{8} << 20;       // of a segment
inline constexpr std::uint64_t kMaxDescriptorBytes = std::uint64_t{1} << 20;  // of an extent

constexpr std::uint64_t round_up(std::uint64_t bytes) noexcept { return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

using Uuid = std::array<std::byte, 16>;

struct Superblock {
    Uuid container{};
    std::uint64_t segment_bytes = 0;
    std::uint64_t segment_count = 0;
    std::uint64_t created_seconds = 0;
    std::uint64_t segment_at(std::uint64_t slot) const noexcept { return kSegmentsAt + slot * segment_bytes; }
    std::uint64_t total_bytes() const noexcept { return segment_at(segment_count); }
};

struct SegmentHeader {
    Uuid container{};
    std::uint64_t sequence = 0;  // rises with each segment that the container begins; 0 is none
    std::uint64_t slot = 0;
    std::uint64_t written_before = 0;  // bytes that were ever written to the container when the segment began
    std::uint64_t created_seconds = 0;
};

struct ExtentHeader {
    std::uint32_t descriptor_bytes = 0;
    std::uint64_t sequence = 0;  // of the segment
    std::uint32_t number = 0;    // in the segment, from 0
    std::uint32_t chain = 0;     // checksum of the descriptor before, of the segment's header for the first
    std::uint64_t payload_bytes = 0;
    std::uint32_t table_bytes = 0;
};

struct SegmentTrailer {
    std::uint64_t sequence = 0;
    std::uint64_t table_at = 0;  // from the segment's start
    std::uint64_t table_bytes = 0;
    std::uint32_t table_digest = 0;
    std::uint32_t extents = 0;
    std::uint64_t data_end = 0;  // from the segment's start
    std::uint32_t chain = 0;     // of the last extent
};

// A page of a record: how many bytes mean something, and their digest (abi/ext/digest.h). It takes up whole blocks.
struct StoredPage {
    std::uint32_t content = 0;
    std::uint64_t digest = 0;
    std::uint64_t bytes() const noexcept { return round_up(content); }
};

// One block of the cache: its whole identity, and where its pages lie, one after another.
struct Record {
    std::string_view name_space, fingerprint;  // views into the bytes that were decoded, or the caller's
    std::uint32_t group = 0;
    std::string_view hash;
    std::uint64_t offset = 0;  // of the first page, from the segment's start
    std::vector<StoredPage> pages;
    std::uint64_t bytes() const noexcept;
};

inline constexpr std::size_t kExtentHeaderBytes = 48;
// Of one segment, that are on their way to the device at one time: when it loses power, any of them may be missing.
inline constexpr std::uint32_t kMostExtentsUnstored = 12;

// `out` has kBlockBytes.
void encode(const Superblock& from, std::span<std::byte> out);
void encode(const SegmentHeader& from, std::span<std::byte> out);
void encode(const SegmentTrailer& from, std::span<std::byte> out);
Result<Superblock> decode_superblock(std::span<const std::byte> block);
Result<SegmentHeader> decode_segment_header(std::span<const std::byte> block);
Result<SegmentTrailer> decode_segment_trailer(std::span<const std::byte> block);

// The checksum that closes an encoded block or descriptor.
std::uint32_t closing_digest(std::span<const std::byte> encoded);

// How long the table of these records is. Grows by at most the sum of record_bytes and scope_bytes of what is added.
std::size_t table_bytes(std::span<const Record> records);
std::size_t record_bytes(const Record& record);
std::size_t scope_bytes(const Record& record);
// `out` has table_bytes.
void encode_table(std::span<const Record> records, std::span<std::byte> out);
// The records' views point into `table`. Checks that every page lies within [first, end) of the segment. kCorrupt.
Result<std::vector<Record>> decode_table(std::span<const std::byte> table, std::uint64_t first, std::uint64_t end);

// The descriptor of an extent: header, table, padding, checksum. `out` has descriptor_bytes.
std::size_t descriptor_bytes(std::size_t table_length);
void encode_extent(const ExtentHeader& header, std::span<const Record> records, std::span<std::byte> out);
// Only the first kExtentHeaderBytes; what they say is not to be trusted before check_extent.
Result<ExtentHeader> decode_extent_header(std::span<const std::byte> start, std::uint64_t room);
// Whether a few changed bits are all that keeps this from being the start of the extent `expected`, of which sequence, number
// and chain count.
bool almost_extent(std::span<const std::byte> start, const ExtentHeader& expected);
// For looking at what another version wrote as if this one had.
void set_known_version(std::span<std::byte> encoded);
// The whole descriptor. kCorrupt.
Result<std::vector<Record>> decode_extent(const ExtentHeader& header, std::span<const std::byte> descriptor,
                                          std::uint64_t extent_at);

}  // namespace pegaflow::engine::tier
