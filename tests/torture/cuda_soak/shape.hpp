// SPDX-License-Identifier: Apache-2.0
// shape.hpp - random transfers: byte ranges and pages in every form that the interface has.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/torture/cuda_soak/memory.hpp"

namespace pegaflow::soak {

// Bytes that one transfer moves.
struct Piece {
    std::uint32_t source = 0;  // index of the source buffer
    std::uint64_t from = 0, to = 0, length = 0;
};

// Where a transfer may take bytes from, and the part of one buffer that is its alone to write.
struct Ends {
    std::span<Buffer* const> sources;
    const Buffer* target = nullptr;
    std::uint64_t first = 0, length = 0;  // of the target; at least 64 KiB
    bool read = false;                    // the target is the local side
};

struct Shape {
    const char* format = "";
    std::vector<Piece> pieces;  // disjoint in the target
    std::uint32_t spans = 0, mark_every = 0;
};

// Chooses ranges or spans, fills the transfer, and says what it is to make of the target. Never more than `most_pieces`.
void choose_shape(Random& random, const Ends& ends, std::uint64_t most_pieces, Transfer& transfer, Shape& out);

}  // namespace pegaflow::soak
