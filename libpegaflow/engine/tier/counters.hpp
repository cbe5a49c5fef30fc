// SPDX-License-Identifier: Apache-2.0
// counters.hpp - what a tier counts; plain atomics that its parts share.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/distribution.hpp"

namespace pegaflow::engine::tier {

using Count = std::atomic<std::uint64_t>;

struct Counters {
    // Blocks that were offered, and what became of them.
    Count stored_blocks{0}, known_blocks{0}, queue_full_blocks{0}, budget_blocks{0}, too_large_blocks{0}, no_space_blocks{0},
        failed_blocks{0}, shed_blocks{0};
    // Bytes written: of new blocks, of blocks that were written again, and of everything else.
    Count block_bytes{0}, rewritten_bytes{0}, table_bytes{0};
    Count rewritten_blocks{0}, evicted_segments{0}, evicted_blocks{0}, discarded_bytes{0};
    Count write_failures{0}, sync_failures{0}, flushes{0};
    Count read_blocks{0}, read_bytes{0}, read_failures{0}, mismatches{0}, quarantined{0};
    Count writes_in_flight{0};  // extents that are being written or flushed
    RateCounter write_rates{kRateBounds}, read_rates{kRateBounds};
    Count recovered_blocks{0}, recovered_bytes{0}, recovery_dropped{0}, recovery_problems{0};
};

}  // namespace pegaflow::engine::tier
