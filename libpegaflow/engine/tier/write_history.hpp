// SPDX-License-Identifier: Apache-2.0
// write_history.hpp - how much was ever written to a container, and when, as its segments' headers say. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/tier/recovery.hpp"

namespace pegaflow::engine::tier {

class WriteHistory {
public:
    // So many bytes, at that time or earlier.
    struct Written {
        std::uint64_t seconds = 0;  // since 1970
        std::uint64_t bytes = 0;
    };

    // One segment of the container; in any order.
    void add(const FoundSegment& found);
    // Bytes that were ever written: of all segments that can be seen, and what the first of them knew of those before it.
    std::uint64_t lifetime_bytes() const;
    // What was written since the first segment was begun, in order of time; nothing of it was written later than it says.
    std::vector<Written> written(std::uint64_t now_seconds) const;
    // True when nothing was written before that.
    bool whole() const;

private:
    struct Begun {  // a segment
        std::uint64_t sequence = 0, seconds = 0;
        std::uint64_t before = 0;  // bytes that were ever written when it was begun
        std::uint64_t bytes = 0;   // of its own
    };
    std::vector<Begun> sorted() const;
    std::vector<Begun> segments_;
};

}  // namespace pegaflow::engine::tier
