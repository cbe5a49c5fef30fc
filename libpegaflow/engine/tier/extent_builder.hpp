// SPDX-License-Identifier: Apache-2.0
// extent_builder.hpp - fills one segment extent by extent: what still fits, where it will lie, and the bytes of descriptors and
// of the closing table. Pure.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/tier/format.hpp"

namespace pegaflow::engine::tier {

class ExtentBuilder {
public:
    struct Limits {
        std::uint64_t segment_bytes = 0;
        std::uint64_t extent_payload = 0;    // of one extent; a single record may be larger
        std::uint64_t descriptor_bytes = 0;  // of one extent
        std::uint64_t table_bytes = 0;       // of the segment's closing table
    };
    struct Extent {
        std::uint64_t at = 0;  // from the segment's start; the payload follows the descriptor
        std::uint64_t descriptor_bytes = 0;
        std::uint64_t payload_bytes = 0;
        std::vector<Record> records;  // with their offsets
    };

    // How far a log goes.
    struct Mark {
        std::uint64_t data_end = 0;
        std::uint32_t extents = 0;
        std::uint32_t chain = 0;  // of the last one
    };

    // A new segment: `chain` is the closing digest of its header block.
    ExtentBuilder(const Limits& limits, std::uint64_t sequence, std::uint32_t chain)
        : limits_(limits), sequence_(sequence), chain_(chain) {}
    // Goes on with a segment that was found open: its records, where its log ends, how many extents it has.
    void resume(std::span<const Record> records, std::uint64_t data_end, std::uint32_t extents);

    // False when the record must go to the next extent, or, when this one is empty, to the next segment.
    bool fits(const Record& record) const;
    // It fits. Views must stay valid until finish.
    void add(Record record);
    bool empty() const noexcept { return extent_.empty(); }
    // The extent as it is now; the next one begins behind it. `descriptor` has room for Limits::descriptor_bytes.
    Extent finish(std::span<std::byte> descriptor);

    std::uint64_t data_end() const noexcept { return at_; }
    bool has_data() const noexcept { return number_ != 0; }
    std::uint64_t sequence() const noexcept { return sequence_; }
    Mark mark() const noexcept { return {at_, number_, chain_}; }
    // What was finished after `mark` will not be on the device. No extent follows: the segment can only be closed.
    void cut_back(const Mark& mark);
    // The bytes that close the segment: table, padding, trailer; they end with the segment. `out` has
    // round_up(limits.table_bytes) and kBlockBytes at least. Returns how many of its leading bytes are used.
    std::uint64_t close(std::span<const Record> records, std::span<std::byte> out) const;

private:
    using Scopes = std::set<std::pair<std::string, std::string>>;
    static std::uint64_t growth(const Record& record, const Scopes& scopes);
    static void note(const Record& record, Scopes& scopes);

    const Limits limits_;
    const std::uint64_t sequence_;
    std::uint64_t at_ = kBlockBytes;
    std::uint32_t number_ = 0;
    std::uint32_t chain_;
    std::uint64_t segment_table_ = 8, extent_table_ = 8, payload_ = 0;
    Scopes segment_scopes_, extent_scopes_;
    std::vector<Record> extent_;
};

}  // namespace pegaflow::engine::tier
