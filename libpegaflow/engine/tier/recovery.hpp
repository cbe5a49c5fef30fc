// SPDX-License-Identifier: Apache-2.0
// recovery.hpp - what a container holds: sealed segments by their tables, the others by going from extent to extent.
//
// Pure over a function that reads bytes. The server starts with it; the offline check uses the same.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/tier/format.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine::tier {

using ReadBytes = std::function<Result<void>(std::uint64_t offset, std::span<std::byte> out)>;

// What one segment holds. The records' views point into `text`. Anything of an unknown version in it makes it kForeign.
struct FoundSegment {
    enum class Kind { kEmpty, kForeign, kSealed, kOpen };
    Kind kind = Kind::kEmpty;
    std::uint64_t slot = 0;
    SegmentHeader header;
    std::vector<Record> records;
    // Where the next extent would be, from the segment's start; its number; and what it would be chained to.
    std::uint64_t data_end = 0;
    std::uint32_t extents = 0;
    std::uint32_t chain = 0;
    std::uint64_t closing_bytes = 0;    // of its table and trailer, when it is sealed
    std::uint64_t dropped_records = 0;  // of an open segment: their pages are not what their digests say
    bool damaged = false;               // of an open segment: its log may have gone on
    bool unreadable = false;            // nothing is known of it
    std::vector<std::string> problems;  // in words, with places
    std::vector<std::unique_ptr<std::vector<std::byte>>> text;
};

struct ScanOptions {
    bool verify_open = true;   // read the pages of segments that were not sealed, and drop records that are torn
    bool walk_sealed = false;  // also go from extent to extent where the table would do: for the offline check
};

// Reads one segment. Fails only when reading fails; everything else is a finding. [any]
Result<FoundSegment> scan_segment(const ReadBytes& read, const Superblock& superblock, std::uint64_t slot,
                                  const ScanOptions& options = {});
// All of them, with several threads, in no order. `visit` is called for one at a time and may keep what it gets. A segment that
// cannot be read, tried twice, is kForeign and unreadable, with the problem.
void scan_container(const ReadBytes& read, const Superblock& superblock, unsigned threads, const ScanOptions& options,
                    const std::function<void(FoundSegment)>& visit);

}  // namespace pegaflow::engine::tier
