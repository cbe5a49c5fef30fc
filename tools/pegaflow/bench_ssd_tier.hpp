// SPDX-License-Identifier: Apache-2.0
// bench_ssd_tier.hpp - `pegaflow bench ssd --tier`: blocks through the whole SSD tier, with digests made and checked.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tools/pegaflow/bench_ssd.hpp"

namespace pegaflow::cli::ssd {

// A tier in a directory of its own below the first of Arguments::paths, with its file deleted at the end.
class TierBench {
public:
    struct State;
    // kInvalid for what a tier decides itself: where blocks lie, how many go together, its threads.
    static Result<void> check(const Arguments& arguments);
    static Result<std::unique_ptr<TierBench>> open(const Arguments& arguments);
    ~TierBench();

    std::uint64_t capacity() const noexcept;
    bool huge_memory() const;  // what moves is in huge pages

    // Reads: blocks at random, `depth` under way, each landed in the pool and checked against its digest. Writes: new blocks
    // get digests and are offered; what counts is what is stored, and a sample of them is read back afterwards. Mixed: both at
    // once, in the proportion that was asked for. What is read was written just before; with `again`, before the first run of
    // this load, if nothing was written since.
    Result<Run> run(const Load& load, bool again);

private:
    explicit TierBench(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace pegaflow::cli::ssd
