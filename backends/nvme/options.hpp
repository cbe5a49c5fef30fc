// SPDX-License-Identifier: Apache-2.0
// options.hpp - what the options of the nvme back end say, checked.
#pragma once

#include <cstdint>
#include <string>

#include "pegaflow/abi/host.h"

namespace nvme_backend {

enum class RingKind {
    kAuto,      // deferred when the core polls, shared when the caller does (its poller may change threads)
    kDeferred,  // one thread polls; completion work runs when it asks
    kShared,    // any thread may poll
};

struct Options {
    std::string directory = "/var/tmp";      // of files that the back end allocates; a disk is cut into pieces instead
    std::uint64_t io_bytes = 1 << 20;        // one request at most
    std::uint64_t stripe_bytes = 512 << 10;  // of one path before the next one's turn
    std::uint32_t depth = 256;               // requests in flight
    std::uint64_t depth_bytes = 64 << 20;    // bytes in flight
    std::uint32_t handles = 1;               // devices that probe reports, each with a ring and a poller of its own
    RingKind ring = RingKind::kAuto;
    bool direct = true;        // O_DIRECT
    bool poll = false;         // IOPOLL
    bool passthrough = false;  // /dev/ng*
    bool fixed = true;         // registered files and buffers
    bool fua = true;           // durable batches of one request write through; off: they flush, as longer ones do
};

// Reads the options; those that are not named keep their defaults. False when one is unknown or wrong: `why` says which, and
// what was expected.
bool parse_options(const pega_option* options, std::uint32_t count, Options* out, std::string* why);

}  // namespace nvme_backend
