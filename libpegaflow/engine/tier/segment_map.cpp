// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/segment_map.hpp"

#include <algorithm>

namespace pegaflow::engine::tier {

SegmentMap::SegmentMap(std::uint64_t count) : segments_(count) {
    for (std::uint64_t slot = 0; slot < count; ++slot) free_.insert(free_.end(), slot);
}

std::uint64_t SegmentMap::in_state(SegmentState state) const {
    return static_cast<std::uint64_t>(
        std::count_if(segments_.begin(), segments_.end(), [state](const Segment& s) { return s.state == state; }));
}

std::optional<std::uint64_t> SegmentMap::begin(std::uint64_t sequence) {
    if (free_.empty()) return std::nullopt;
    const std::uint64_t slot = *free_.begin();
    free_.erase(free_.begin());
    segments_[slot] = {SegmentState::kOpen, sequence, 0};
    return slot;
}

void SegmentMap::restore(std::uint64_t slot, std::uint64_t sequence, SegmentState state) {
    free_.erase(slot);
    segments_[slot] = {state, sequence, 0};
    if (state == SegmentState::kSealed) sealed_.emplace(sequence, slot);
}

void SegmentMap::seal(std::uint64_t slot) {
    Segment& segment = segments_[slot];
    if (segment.state != SegmentState::kOpen) return;
    segment.state = SegmentState::kSealed;
    sealed_.emplace(segment.sequence, slot);
}

void SegmentMap::reopen(std::uint64_t slot) {
    segments_[slot].state = SegmentState::kOpen;
    sealed_.erase({segments_[slot].sequence, slot});
}

std::optional<std::uint64_t> SegmentMap::oldest() const {
    if (sealed_.empty()) return std::nullopt;
    return sealed_.begin()->second;
}

void SegmentMap::retry_space() {
    for (std::uint64_t slot = 0; slot < segments_.size(); ++slot) {
        if (segments_[slot].state != SegmentState::kNoSpace) continue;
        segments_[slot].state = SegmentState::kFree;
        free_.insert(slot);
    }
}

bool SegmentMap::release(std::uint64_t slot) {
    Segment& segment = segments_[slot];
    if (segment.state == SegmentState::kSealed) sealed_.erase({segment.sequence, slot});
    if (segment.pins != 0) {
        segment.state = SegmentState::kDraining;
        return false;
    }
    segment.state = SegmentState::kFree;
    free_.insert(slot);
    return true;
}

bool SegmentMap::unpin(std::uint64_t slot) {
    Segment& segment = segments_[slot];
    if (--segment.pins != 0 || segment.state != SegmentState::kDraining) return false;
    segment.state = SegmentState::kFree;
    free_.insert(slot);
    return true;
}

}  // namespace pegaflow::engine::tier
