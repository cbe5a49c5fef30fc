// SPDX-License-Identifier: Apache-2.0
// bench_save.hpp - what a save costs in processor time besides its copy: names, pages, index, evictions; and digests.
#pragma once

#include <cstdint>

#include "pegaflow/result.hpp"

namespace pegaflow::cli {

// Microseconds of processor time a block, of all threads of the process; medians over saves of some thousand blocks.
struct SaveCost {
    std::uint64_t block_bytes = 0;
    double copy_us = 0;                   // the same bytes through a channel, nothing else
    double save_us = 0;                   // besides the copy, into a pool with room
    double save_evicting_us = 0;          // besides the copy, into a full pool
    double digest_us = 0;                 // what digests add, into a pool with room
    double save_evicting_digests_us = 0;  // besides the copy, into a full pool, with digests
};

// Needs the host back end and about 600 MiB. [any]
Result<SaveCost> save_cost();

}  // namespace pegaflow::cli
