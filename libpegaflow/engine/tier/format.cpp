// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/crc32c.hpp"
#include "engine/tier/wire.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::string_view kSuperblockMagic = "PEGATIER";
constexpr std::string_view kSegmentMagic = "PEGASEGM";
constexpr std::string_view kExtentMagic = "PEGAEXTN";
constexpr std::string_view kTrailerMagic = "PEGATRLR";
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kDescriptorBytesAt = 12;
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 62;  // of a container
constexpr int kFewBits = 4;                                   // that another block's bytes are not away from ours by chance
constexpr std::size_t kChecksumBytes = 4;
constexpr std::size_t kRecordFixedBytes = 14;  // without hash and pages
constexpr std::size_t kPageBytes = 12;
constexpr std::size_t kTableFixedBytes = 8;
constexpr std::size_t kWordBytes = 8;  // of digests

std::string_view text_of(const Uuid& uuid) { return {reinterpret_cast<const char*>(uuid.data()), uuid.size()}; }

void close_block(std::span<std::byte> block, std::size_t used) {
    std::fill(block.begin() + static_cast<std::ptrdiff_t>(used), block.end(), std::byte{0});
    const std::uint32_t digest = base::crc32c(block.data(), block.size() - kChecksumBytes);
    store_le(block.data() + block.size() - kChecksumBytes, digest);
}

int bits_between(std::string_view a, std::string_view b) {
    int bits = 0;
    for (std::size_t i = 0; i < a.size(); ++i) bits += std::popcount(static_cast<unsigned char>(a[i] ^ b[i]));
    return bits;
}

// Magic, version, checksum; in this order, so that what a later version changed is never called corrupt.
Result<void> check_start(std::span<const std::byte> block, std::string_view magic, std::string_view what) {
    Decoder in(block);
    if (const std::string_view there = in.bytes(magic.size()); there != magic) {
        if (there.size() == magic.size() && bits_between(there, magic) <= kFewBits)
            return fail(Code::kCorrupt, fmt::format("the magic of the {} is damaged", what));
        return fail(Code::kNotFound, fmt::format("no {} is there", what));
    }
    const auto version = in.number<std::uint32_t>();
    if (version != kFormatVersion) {
        return fail(Code::kUnsupported,
                    fmt::format("a {} of format version {}, this program knows version {}", what, version, kFormatVersion));
    }
    return {};
}

// A version that was written has a checksum of its own: when that of this program's fits, bits of the number have changed.
bool fits_with_known_version(std::span<const std::byte> encoded) {
    std::vector<std::byte> known(encoded.begin(), encoded.end());
    set_known_version(known);
    return base::crc32c(known.data(), known.size() - kChecksumBytes) == closing_digest(encoded);
}

Result<void> check_block(std::span<const std::byte> block, std::string_view magic, std::string_view what) {
    if (block.size() != kBlockBytes) return fail(Code::kCorrupt, fmt::format("the {} is cut off", what));
    const auto start = check_start(block, magic, what);
    if (!start && start.error().code == Code::kUnsupported && fits_with_known_version(block))
        return fail(Code::kCorrupt, fmt::format("the version of the {} is damaged", what));
    PEGA_TRY(start);
    const std::uint32_t digest = base::crc32c(block.data(), block.size() - kChecksumBytes);
    if (digest != closing_digest(block)) return fail(Code::kCorrupt, fmt::format("the checksum of the {} does not fit", what));
    return {};
}

Uuid read_uuid(Decoder& in) {
    Uuid out{};
    const std::string_view bytes = in.bytes(out.size());
    if (bytes.size() == out.size()) std::memcpy(out.data(), bytes.data(), out.size());
    return out;
}

struct Scope {
    std::string_view name_space, fingerprint;
    bool operator==(const Scope&) const = default;
};

Scope scope_of(const Record& record) { return {record.name_space, record.fingerprint}; }

std::vector<Scope> scopes_of(std::span<const Record> records) {
    std::vector<Scope> out;
    for (const Record& record : records) {
        if (!out.empty() && out.back() == scope_of(record)) continue;
        if (std::find(out.begin(), out.end(), scope_of(record)) == out.end()) out.push_back(scope_of(record));
    }
    return out;
}

std::size_t scope_bytes(const Scope& scope) { return 4 + scope.name_space.size() + scope.fingerprint.size(); }

Result<Record> decode_record(Decoder& in, const std::vector<Scope>& scopes) {
    const auto wrong = [](const char* what) { return fail(Code::kCorrupt, fmt::format("a record has {}", what)); };
    const auto scope = in.number<std::uint16_t>();
    const auto hash_bytes = in.number<std::uint16_t>();
    Record record;
    record.group = in.number<std::uint32_t>();
    record.hash = in.bytes(hash_bytes);
    record.offset = std::uint64_t{in.number<std::uint32_t>()} * kBlockBytes;
    const auto pages = in.number<std::uint16_t>();
    if (!in.ok() || scope >= scopes.size()) return wrong("an unknown scope, or is cut off");
    if (hash_bytes == 0 || hash_bytes > kMaxHashBytes) return wrong("a hash of an impossible length");
    if (pages == 0 || pages > in.left() / kPageBytes) return wrong("an impossible number of pages");
    record.name_space = scopes[scope].name_space;
    record.fingerprint = scopes[scope].fingerprint;
    for (std::uint16_t i = 0; i < pages; ++i) {
        const auto content = in.number<std::uint32_t>();
        record.pages.push_back({content, in.number<std::uint64_t>()});
        if (content == 0 || content % kWordBytes != 0) return wrong("a page of an impossible length");
    }
    return record;
}

}  // namespace

std::uint64_t Record::bytes() const noexcept {
    std::uint64_t sum = 0;
    for (const StoredPage& page : pages) sum += page.bytes();
    return sum;
}

std::uint32_t closing_digest(std::span<const std::byte> encoded) {
    return load_le<std::uint32_t>(encoded.data() + encoded.size() - kChecksumBytes);
}

void encode(const Superblock& from, std::span<std::byte> out) {
    Encoder to(out);
    to.bytes(kSuperblockMagic).number(kFormatVersion).number(static_cast<std::uint32_t>(kBlockBytes));
    to.bytes(text_of(from.container)).number(from.segment_bytes).number(kSegmentsAt).number(from.segment_count);
    to.number(from.created_seconds);
    close_block(out, to.size());
}

Result<Superblock> decode_superblock(std::span<const std::byte> block) {
    PEGA_TRY(check_block(block, kSuperblockMagic, "superblock"));
    Decoder in(block);
    in.bytes(kSuperblockMagic.size() + 4);
    const auto block_bytes = in.number<std::uint32_t>();
    Superblock out;
    out.container = read_uuid(in);
    out.segment_bytes = in.number<std::uint64_t>();
    const auto segments_at = in.number<std::uint64_t>();
    out.segment_count = in.number<std::uint64_t>();
    out.created_seconds = in.number<std::uint64_t>();
    const bool sane = block_bytes == kBlockBytes && segments_at == kSegmentsAt && out.segment_bytes % kBlockBytes == 0 &&
                      out.segment_bytes >= kMinSegmentBytes && out.segment_bytes <= kMaxSegmentBytes &&
                      out.segment_count <= kMostBytes / out.segment_bytes;
    if (!sane) return fail(Code::kCorrupt, "the superblock has impossible numbers");
    return out;
}

void encode(const SegmentHeader& from, std::span<std::byte> out) {
    Encoder to(out);
    to.bytes(kSegmentMagic).number(kFormatVersion).number(std::uint32_t{0}).bytes(text_of(from.container));
    to.number(from.sequence).number(from.slot).number(from.written_before).number(from.created_seconds);
    close_block(out, to.size());
}

Result<SegmentHeader> decode_segment_header(std::span<const std::byte> block) {
    PEGA_TRY(check_block(block, kSegmentMagic, "segment header"));
    Decoder in(block);
    in.bytes(kSegmentMagic.size() + 8);
    SegmentHeader out;
    out.container = read_uuid(in);
    out.sequence = in.number<std::uint64_t>();
    out.slot = in.number<std::uint64_t>();
    out.written_before = in.number<std::uint64_t>();
    out.created_seconds = in.number<std::uint64_t>();
    return out;
}

void encode(const SegmentTrailer& from, std::span<std::byte> out) {
    Encoder to(out);
    to.bytes(kTrailerMagic).number(kFormatVersion).number(std::uint32_t{0}).number(from.sequence).number(from.table_at);
    to.number(from.table_bytes).number(from.table_digest).number(from.extents).number(from.data_end).number(from.chain);
    close_block(out, to.size());
}

Result<SegmentTrailer> decode_segment_trailer(std::span<const std::byte> block) {
    PEGA_TRY(check_block(block, kTrailerMagic, "segment trailer"));
    Decoder in(block);
    in.bytes(kTrailerMagic.size() + 8);
    SegmentTrailer out;
    out.sequence = in.number<std::uint64_t>();
    out.table_at = in.number<std::uint64_t>();
    out.table_bytes = in.number<std::uint64_t>();
    out.table_digest = in.number<std::uint32_t>();
    out.extents = in.number<std::uint32_t>();
    out.data_end = in.number<std::uint64_t>();
    out.chain = in.number<std::uint32_t>();
    return out;
}

std::size_t record_bytes(const Record& record) {
    return kRecordFixedBytes + record.hash.size() + kPageBytes * record.pages.size();
}

std::size_t scope_bytes(const Record& record) { return scope_bytes(scope_of(record)); }

std::size_t table_bytes(std::span<const Record> records) {
    std::size_t bytes = kTableFixedBytes;
    for (const Scope& scope : scopes_of(records)) bytes += scope_bytes(scope);
    for (const Record& record : records) bytes += record_bytes(record);
    return bytes;
}

void encode_table(std::span<const Record> records, std::span<std::byte> out) {
    const std::vector<Scope> scopes = scopes_of(records);
    Encoder to(out);
    to.number(static_cast<std::uint32_t>(scopes.size()));
    for (const Scope& scope : scopes) {
        to.number(static_cast<std::uint16_t>(scope.name_space.size())).bytes(scope.name_space);
        to.number(static_cast<std::uint16_t>(scope.fingerprint.size())).bytes(scope.fingerprint);
    }
    to.number(static_cast<std::uint32_t>(records.size()));
    std::size_t scope = 0;
    for (const Record& record : records) {
        if (scopes[scope] != scope_of(record))
            scope = static_cast<std::size_t>(std::find(scopes.begin(), scopes.end(), scope_of(record)) - scopes.begin());
        to.number(static_cast<std::uint16_t>(scope)).number(static_cast<std::uint16_t>(record.hash.size()));
        to.number(record.group).bytes(record.hash).number(static_cast<std::uint32_t>(record.offset / kBlockBytes));
        to.number(static_cast<std::uint16_t>(record.pages.size()));
        for (const StoredPage& page : record.pages) to.number(page.content).number(page.digest);
    }
}

Result<std::vector<Record>> decode_table(std::span<const std::byte> table, std::uint64_t first, std::uint64_t end) {
    Decoder in(table);
    const auto scope_count = in.number<std::uint32_t>();
    if (scope_count > in.left() / 4) return fail(Code::kCorrupt, "a record table names an impossible number of scopes");
    std::vector<Scope> scopes;
    for (std::uint32_t i = 0; i < scope_count; ++i) {
        const std::string_view name_space = in.bytes(in.number<std::uint16_t>());
        scopes.push_back({name_space, in.bytes(in.number<std::uint16_t>())});
    }
    const auto count = in.number<std::uint32_t>();
    if (!in.ok() || count > in.left() / kRecordFixedBytes)
        return fail(Code::kCorrupt, "a record table names an impossible number of records");
    std::vector<Record> out;
    out.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        PEGA_ASSIGN(Record record, decode_record(in, scopes));
        if (record.offset < first || record.offset > end || record.bytes() > end - record.offset)
            return fail(Code::kCorrupt, fmt::format("record {} reaches outside of its segment", i));
        out.push_back(std::move(record));
    }
    if (!in.ok()) return fail(Code::kCorrupt, "a record table is cut off");
    if (in.left() != 0) return fail(Code::kCorrupt, "a record table has something behind its end");
    return out;
}

std::size_t descriptor_bytes(std::size_t table_length) { return round_up(kExtentHeaderBytes + table_length + kChecksumBytes); }

void encode_extent(const ExtentHeader& header, std::span<const Record> records, std::span<std::byte> out) {
    Encoder to(out);
    to.bytes(kExtentMagic).number(kFormatVersion).number(header.descriptor_bytes).number(header.sequence);
    to.number(header.number).number(header.chain).number(header.payload_bytes).number(header.table_bytes);
    to.number(std::uint32_t{0});
    encode_table(records, out.subspan(kExtentHeaderBytes, header.table_bytes));
    close_block(out, kExtentHeaderBytes + header.table_bytes);
}

Result<ExtentHeader> decode_extent_header(std::span<const std::byte> start, std::uint64_t room) {
    PEGA_TRY(check_start(start, kExtentMagic, "extent"));
    Decoder in(start);
    in.bytes(kExtentMagic.size() + 4);
    ExtentHeader out;
    out.descriptor_bytes = in.number<std::uint32_t>();
    out.sequence = in.number<std::uint64_t>();
    out.number = in.number<std::uint32_t>();
    out.chain = in.number<std::uint32_t>();
    out.payload_bytes = in.number<std::uint64_t>();
    out.table_bytes = in.number<std::uint32_t>();
    const bool sane = in.ok() && out.descriptor_bytes % kBlockBytes == 0 && out.payload_bytes % kBlockBytes == 0 &&
                      out.descriptor_bytes <= std::min(room, kMaxDescriptorBytes) &&
                      out.payload_bytes <= room - out.descriptor_bytes &&
                      out.descriptor_bytes == descriptor_bytes(out.table_bytes);
    if (!sane) return fail(Code::kCorrupt, "an extent has impossible numbers");
    return out;
}

bool almost_extent(std::span<const std::byte> start, const ExtentHeader& expected) {
    std::array<std::byte, kExtentHeaderBytes> wanted{};
    Encoder to(wanted);
    to.bytes(kExtentMagic).number(kFormatVersion).number(std::uint32_t{0}).number(expected.sequence);
    to.number(expected.number).number(expected.chain);
    // But for how long it is, which nobody knows.
    std::copy_n(start.begin() + kDescriptorBytesAt, sizeof(std::uint32_t), wanted.begin() + kDescriptorBytesAt);
    const auto text = [&](const auto& bytes) {
        return std::string_view(reinterpret_cast<const char*>(bytes.data()), to.size());
    };
    return bits_between(text(start), text(wanted)) <= kFewBits;
}

void set_known_version(std::span<std::byte> encoded) { store_le(&encoded[kVersionAt], kFormatVersion); }

Result<std::vector<Record>> decode_extent(const ExtentHeader& header, std::span<const std::byte> descriptor,
                                          std::uint64_t extent_at) {
    if (descriptor.size() != header.descriptor_bytes) return fail(Code::kCorrupt, "an extent's descriptor is cut off");
    if (base::crc32c(descriptor.data(), descriptor.size() - kChecksumBytes) != closing_digest(descriptor))
        return fail(Code::kCorrupt, "the checksum of an extent's descriptor does not fit");
    const std::uint64_t payload = extent_at + header.descriptor_bytes;
    return decode_table(descriptor.subspan(kExtentHeaderBytes, header.table_bytes), payload, payload + header.payload_bytes);
}

}  // namespace pegaflow::engine::tier
