// SPDX-License-Identifier: Apache-2.0
// segment_map.hpp - the segments of one container: which are free, open, sealed, and which was written first. Pure.
//
// A segment that is given up while it is being read drains: it is free when its last reader has gone.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace pegaflow::engine::tier {

enum class SegmentState : std::uint8_t {
    kFree,
    kOpen,      // being written
    kSealed,    // full, or given up by its writer
    kDraining,  // given up; somebody still reads it
    kForeign,   // holds what this program does not know: left alone
    kNoSpace    // free, but the file system had no room for it when it was asked
};

class SegmentMap {
public:
    explicit SegmentMap(std::uint64_t count);

    std::uint64_t count() const noexcept { return segments_.size(); }
    SegmentState state(std::uint64_t slot) const { return segments_[slot].state; }
    std::uint64_t sequence(std::uint64_t slot) const { return segments_[slot].sequence; }
    std::uint64_t in_state(SegmentState state) const;

    // The free segment with the lowest number becomes open under `sequence`. None when there is none.
    std::optional<std::uint64_t> begin(std::uint64_t sequence);
    // Puts a segment that was found at the start in its place.
    void restore(std::uint64_t slot, std::uint64_t sequence, SegmentState state);
    std::uint64_t free() const noexcept { return free_.size(); }
    void seal(std::uint64_t slot);
    void reopen(std::uint64_t slot);  // a sealed one
    // The sealed segment that was begun first.
    std::optional<std::uint64_t> oldest() const;
    // An open segment that got no space goes out of use; `retry_space` makes such segments free again.
    void set_aside(std::uint64_t slot) { segments_[slot].state = SegmentState::kNoSpace; }
    void retry_space();
    // Gives a segment up. True when it is free now, false when readers are left: the last unpin makes it free.
    bool release(std::uint64_t slot);
    void pin(std::uint64_t slot) { ++segments_[slot].pins; }
    // True when this freed a segment that drained.
    bool unpin(std::uint64_t slot);

private:
    struct Segment {
        SegmentState state = SegmentState::kFree;
        std::uint64_t sequence = 0;
        std::uint64_t pins = 0;
    };
    std::vector<Segment> segments_;
    std::set<std::uint64_t> free_;
    std::set<std::pair<std::uint64_t, std::uint64_t>> sealed_;  // sequence and slot
};

}  // namespace pegaflow::engine::tier
