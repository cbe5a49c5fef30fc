// SPDX-License-Identifier: Apache-2.0
// replay_tier.hpp - a trace through the real index, catalog and segment writer of an SSD tier, over a device that only counts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::cli {

struct TierReplayOptions {
    std::uint64_t memory_blocks = 0, ssd_blocks = 0;
    std::uint64_t block_bytes = std::uint64_t{64} << 10;
    std::uint64_t segment_bytes = std::uint64_t{64} << 20;
};

struct TierReplay {
    std::uint64_t memory_hits = 0, ssd_hits = 0;  // blocks of prefixes
    std::uint64_t stored_blocks = 0, rewritten_blocks = 0, evicted_blocks = 0, segments = 0, evicted_segments = 0;
    std::uint64_t block_bytes = 0, rewritten_bytes = 0, table_bytes = 0;
    double memory_pct = 0, ssd_pct = 0, memory_hit_pct = 0, ssd_hit_pct = 0;  // for whoever tells it
    double write_amplification() const {
        return block_bytes == 0
                   ? 1
                   : static_cast<double>(block_bytes + rewritten_bytes + table_bytes) / static_cast<double>(block_bytes);
    }
};

// Each request is a prefix of block numbers; `hash` names them. What is missing is saved afterwards.
Result<TierReplay> replay_tier(const std::vector<std::vector<std::uint32_t>>& requests,
                               const std::function<std::string(std::uint32_t)>& hash, const TierReplayOptions& options);

}  // namespace pegaflow::cli
