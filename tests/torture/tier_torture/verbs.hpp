// SPDX-License-Identifier: Apache-2.0
// verbs.hpp - what tier_torture does: loads that say what is durable, the check of what they said, and containers without
// pages.
#pragma once

#include <iosfwd>

#include "tests/torture/tier_torture/setup.hpp"

namespace pegaflow::torture {

// Both say "begin SEED", then "durable SEED NUMBER" for each block that is stored.
// Writes new blocks for so long, or until there are so many bytes; then waits until they are stored.
Result<void> write_blocks(const Place& place, std::uint64_t seed, double seconds, std::uint64_t most_bytes);
// Writes, reads, and writes again what is gone, until it is killed. Fails on a wrong byte.
Result<void> churn(const Place& place, std::uint64_t seed);

struct Outcome {
    std::uint64_t durable = 0;  // that must be there
    std::uint64_t found = 0, lost = 0;
    std::uint64_t wrong = 0;   // also of those that need not be there
    std::uint64_t beyond = 0;  // found, and never said to be durable, or so long ago that they might have gone
};
// Asks for what the lines say, as far as `recent_bytes` of later lines (0 = all of them) have not pushed it out, and for the
// blocks that the loads may have written without saying so.
Result<Outcome> check(const Place& place, std::istream& lines, std::uint64_t recent_bytes);

// A container with that many blocks in its tables, and no pages.
Result<void> synthesize(const std::string& dir, std::uint64_t gib, std::uint64_t block_kib);
// Times the start of an engine on a container.
Result<void> recover(const std::string& dir);

}  // namespace pegaflow::torture
