// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/extent_builder.hpp"

#include <algorithm>

#include "base/crc32c.hpp"

namespace pegaflow::engine::tier {

std::uint64_t ExtentBuilder::growth(const Record& record, const Scopes& scopes) {
    const bool known = scopes.contains({std::string(record.name_space), std::string(record.fingerprint)});
    return record_bytes(record) + (known ? 0 : scope_bytes(record));
}

void ExtentBuilder::note(const Record& record, Scopes& scopes) {
    scopes.emplace(std::string(record.name_space), std::string(record.fingerprint));
}

void ExtentBuilder::resume(std::span<const Record> records, std::uint64_t data_end, std::uint32_t extents) {
    for (const Record& record : records) {
        segment_table_ += growth(record, segment_scopes_);
        note(record, segment_scopes_);
    }
    at_ = data_end;
    number_ = extents;
}

bool ExtentBuilder::fits(const Record& record) const {
    const std::uint64_t payload = payload_ + record.bytes();
    if (!extent_.empty() && payload > limits_.extent_payload) return false;
    const std::uint64_t descriptor = descriptor_bytes(extent_table_ + growth(record, extent_scopes_));
    const std::uint64_t table = segment_table_ + growth(record, segment_scopes_);
    if (descriptor > limits_.descriptor_bytes || table > limits_.table_bytes) return false;
    return at_ + descriptor + payload + round_up(table) + kBlockBytes <= limits_.segment_bytes;
}

void ExtentBuilder::add(Record record) {
    extent_table_ += growth(record, extent_scopes_);
    segment_table_ += growth(record, segment_scopes_);
    note(record, extent_scopes_);
    note(record, segment_scopes_);
    payload_ += record.bytes();
    extent_.push_back(std::move(record));
}

ExtentBuilder::Extent ExtentBuilder::finish(std::span<std::byte> descriptor) {
    Extent out;
    out.at = at_;
    const std::size_t table = table_bytes(extent_);
    out.descriptor_bytes = tier::descriptor_bytes(table);
    out.payload_bytes = payload_;
    std::uint64_t offset = at_ + out.descriptor_bytes;
    for (Record& record : extent_) {
        record.offset = offset;
        offset += record.bytes();
    }
    ExtentHeader header;
    header.descriptor_bytes = static_cast<std::uint32_t>(out.descriptor_bytes);
    header.sequence = sequence_;
    header.number = number_++;
    header.chain = chain_;
    header.payload_bytes = payload_;
    header.table_bytes = static_cast<std::uint32_t>(table);
    const auto bytes = descriptor.first(out.descriptor_bytes);
    encode_extent(header, extent_, bytes);
    chain_ = closing_digest(bytes);
    at_ = offset;
    out.records = std::move(extent_);
    extent_.clear();
    extent_scopes_.clear();
    extent_table_ = 8;
    payload_ = 0;
    return out;
}

void ExtentBuilder::cut_back(const Mark& mark) {
    at_ = mark.data_end;
    number_ = mark.extents;
    chain_ = mark.chain;
}

std::uint64_t ExtentBuilder::close(std::span<const Record> records, std::span<std::byte> out) const {
    SegmentTrailer trailer;
    const std::size_t table = table_bytes(records);
    const std::uint64_t padded = round_up(table);
    std::fill_n(out.begin(), padded, std::byte{0});
    encode_table(records, out.first(table));
    trailer.sequence = sequence_;
    trailer.table_at = limits_.segment_bytes - kBlockBytes - padded;
    trailer.table_bytes = table;
    trailer.table_digest = base::crc32c(out.data(), table);
    trailer.extents = number_;
    trailer.data_end = at_;
    trailer.chain = chain_;
    encode(trailer, out.subspan(padded, kBlockBytes));
    return padded + kBlockBytes;
}

}  // namespace pegaflow::engine::tier
