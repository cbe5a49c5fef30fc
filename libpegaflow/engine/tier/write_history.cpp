// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/write_history.hpp"

#include <algorithm>
#include <utility>

namespace pegaflow::engine::tier {

void WriteHistory::add(const FoundSegment& found) {
    if (found.kind != FoundSegment::Kind::kSealed && found.kind != FoundSegment::Kind::kOpen) return;
    const SegmentHeader& header = found.header;
    segments_.push_back({header.sequence, header.created_seconds, header.written_before, found.data_end + found.closing_bytes});
}

std::vector<WriteHistory::Begun> WriteHistory::sorted() const {
    std::vector<Begun> out = segments_;
    std::ranges::sort(out, {}, [](const Begun& segment) { return segment.sequence; });
    return out;
}

// A header is written ahead, and does not count what the segments before it still got: their own bytes do.
std::uint64_t WriteHistory::lifetime_bytes() const {
    std::uint64_t total = 0;
    for (const Begun& segment : sorted()) total = std::max(total, segment.before) + segment.bytes;
    return total;
}

std::vector<WriteHistory::Written> WriteHistory::written(std::uint64_t now_seconds) const {
    std::vector<Written> out;
    if (segments_.empty()) return out;
    const std::vector<Begun> segments = sorted();
    std::uint64_t total = segments.front().before;
    std::uint64_t when = 0;  // clocks are set back now and then
    for (const Begun& segment : segments) {
        when = std::clamp(segment.seconds, when, now_seconds);
        const std::uint64_t here = std::max(total, segment.before);
        out.push_back({when, here - std::exchange(total, here)});
    }
    out.push_back({now_seconds, std::max(lifetime_bytes(), total) - total});
    return out;
}

bool WriteHistory::whole() const { return segments_.empty() || sorted().front().before == 0; }

}  // namespace pegaflow::engine::tier
