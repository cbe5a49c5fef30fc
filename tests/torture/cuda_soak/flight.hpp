// SPDX-License-Identifier: Apache-2.0
// flight.hpp - one transfer of the soak from its choice to its end, and whether the bytes are what its end promises.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "tests/torture/cuda_soak/report.hpp"
#include "tests/torture/cuda_soak/shape.hpp"

namespace pegaflow::soak {

// What is known of the bytes that a transfer moves.
enum class Outcome {
    kNotStarted,  // refused: all are the old ones
    kMoved,       // all are the new ones
    kEither,      // each is the old or the new one
    kUnknown,     // of a dead process: only those beside them are known
};

struct Flight {
    Shape shape;
    std::vector<Buffer*> sources;
    Buffer* target = nullptr;
    Channel* channel = nullptr;
    Kind kind = Kind::kToHost;
    std::uint64_t bytes = 0;
    bool read = false, submitted = false;
    bool may_be_cancelled = false;                   // someone asked for it, or it has a deadline
    const std::atomic<bool>* peer_killed = nullptr;  // of a transfer that needs another process
    Outcome outcome = Outcome::kNotStarted;
    std::string status;
    std::atomic<std::uint32_t> ends{0};
    std::atomic<std::uint64_t> landed{0};
    std::atomic<bool> marks_wrong{false};
    Completion end;
    Transfer transfer;  // the first to go: it waits, and its callbacks use what is above

    // Chooses what it moves from `sources` into that part of `target`.
    void choose(Random& random, std::vector<Buffer*> from, Buffer& to, std::uint64_t first, std::uint64_t length,
                std::uint64_t most_pieces);
    // Chooses pages that make the whole target what the source is; both are as long.
    void choose_all(Random& random, Buffer& from, Buffer& to);
    void submit(Channel& to, Report& report);
    // Waits for the end and judges it. Ends the process when there is none.
    void wait(Report& report, const Where& where);
    std::string describe() const;

private:
    void begin(std::vector<Buffer*> from, Buffer& to, bool reads);
    void judge(const Result<std::uint64_t>& moved, Report& report, const Where& where);
};

// Whether the target's bytes, which began as `window`, are what the flights that have ended make of it. `image` is scratch.
void check_target(Buffer& target, const std::uint8_t* window, std::span<Flight* const> flights,
                  std::vector<std::uint8_t>& image, std::vector<std::uint8_t>& scratch, Report& report, const Where& where);
// Whether the buffer still has what was filled in.
void check_untouched(Buffer& buffer, std::vector<std::uint8_t>& scratch, Report& report, const Where& where);
// Whether each byte is one of the two.
bool either(const std::uint8_t* bytes, const std::uint8_t* one, const std::uint8_t* other, std::uint64_t length);

}  // namespace pegaflow::soak
