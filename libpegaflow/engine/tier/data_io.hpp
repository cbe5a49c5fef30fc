// SPDX-License-Identifier: Apache-2.0
// data_io.hpp - how the pages and tables of a tier get to its container and back; an interface, so that tests can lose power.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "pegaflow/result.hpp"

namespace pegaflow::engine::tier {

class DataIo {
public:
    enum class Op { kRead, kWrite };
    enum class Memory { kPool, kStaging };
    // Bytes that lie in a row on both sides; all three are multiples of kBlockBytes.
    struct Piece {
        std::uint64_t memory_offset = 0, file_offset = 0, length = 0;
    };
    // Runs exactly once, when no byte moves any more; on a thread that must not be blocked, or before `submit` returns.
    using Ended = std::function<void(Result<void>)>;

    virtual ~DataIo() = default;
    // Starts one batch, of at least one piece. The memory belongs to it until `ended`. [any]
    virtual void submit(Op op, Memory memory, std::span<const Piece> pieces, Ended ended) = 0;
    // True when somebody read a moment ago, and may soon again. [any]
    virtual bool reading() const { return false; }
    // Memory for tables and headers; the caller divides it up.
    virtual std::span<std::byte> staging() = 0;
    // Everything whose end was reported when the call began is on the device when `ended` runs with no error. [any]
    virtual void flush(Ended ended) = 0;
    // Space management, as of container.hpp. [any]
    virtual Result<void> reserve(std::uint64_t offset, std::uint64_t length) = 0;
    virtual Result<void> discard(std::uint64_t offset, std::uint64_t length) = 0;
};

}  // namespace pegaflow::engine::tier
