// SPDX-License-Identifier: Apache-2.0
// forward.hpp - a back end that passes everything to another one, and asks a hook about each batch: the base of interposers.
//
// The wrapped back end is named by the option `inner` and found through the host extension pega.host.modules/1; options that
// begin with "inner." go to it. Regions, channels and events are wrapped, so that several back ends may be wrapped in one
// process.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <string>

#include "pegaflow/backend.hpp"

namespace interposer {

// What happens to a batch.
struct Verdict {
    bool hang = false;           // accepted, and nothing more until it is cancelled, its deadline passes, or its channel closes
    std::int32_t fail = 0;       // accepted, and ended with this status without moving a byte
    std::uint64_t delay_ns = 0;  // its end is held back for so long
    bool drop = false;           // ended as if all were well; no byte is moved and nobody is notified
    bool corrupt = false;        // one byte of what it moved is changed
    bool reorder = false;        // its end is held back until the next one has come
    std::uint64_t stuck_ns =
        0;  // it begins only so much later, and neither a cancel nor its deadline nor a close ends it before
};

// One for each opened device. decide() is called by submitters, concurrently; ended() by the poller.
class Hooks {
public:
    virtual ~Hooks() = default;
    virtual Verdict decide(const pega_batch& batch) = 0;
    virtual void ended(const pega_batch& batch, const pega_completion& record, std::uint64_t submitted_ns) = 0;
    // Whether a verdict may say `corrupt`: a device whose memory cannot be changed is not opened then.
    virtual bool corrupts() const { return false; }
};

// Each interposer defines these two.
extern const char* const kName;
// Null when an option is wrong; the reason is logged.
std::unique_ptr<Hooks> make_hooks(const pega_host* host, const pega_option* options, std::uint32_t count);

// What the entry's `get` returns.
const void* table(const char* id);

}  // namespace interposer
