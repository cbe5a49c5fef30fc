// SPDX-License-Identifier: Apache-2.0
// bench_query.hpp - what a query costs in an engine that holds very many blocks, on one thread and on several at once.
#pragma once

#include <cstdint>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::cli {

inline constexpr std::size_t kQueryHashes = 1000;

struct QueryCost {
    unsigned threads = 0;
    double lookups_per_second = 0;  // of all threads, while they query
    double p50_us = 0, p99_us = 0;  // of one query, its lease included
};

// Saves `blocks` blocks of one small page each into an engine of its own, then queries runs of kQueryHashes of them at random
// places, on as many threads at once as each element of `threads` says. Needs the host back end and 4 KiB a block. [any]
Result<std::vector<QueryCost>> query_costs(std::uint64_t blocks, const std::vector<unsigned>& threads);

}  // namespace pegaflow::cli
