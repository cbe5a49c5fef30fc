// SPDX-License-Identifier: Apache-2.0
// settings.hpp - the options of this back end, read once when a device is opened.
#pragma once

#include <cstdint>
#include <string>

#include "pegaflow/backend.hpp"

namespace nccl_backend {

struct Settings {
    // bind: the numeric address that control connections come in on. Peers of other nodes need one that they can reach.
    std::string bind = "127.0.0.1";
    // port: of the same; 0 = any.
    std::uint64_t port = 0;
    // chunk_bytes: that are packed at a time; a link's ring has four of them on each side, allocated when first needed.
    std::uint64_t chunk_bytes = 16U << 20;
    // direct_bytes: pages from this size on, in GPU memory on both sides, are messages of their own and are not packed.
    std::uint64_t direct_bytes = 1U << 20;
    // multiprocessors: that one packing kernel may take.
    std::uint64_t multiprocessors = 16;
    // max_ctas: of a communicator's kernels; 0 = the library's choice.
    std::uint64_t max_ctas = 0;
    // timeout_ms: for connecting, and for each part of a batch once it was announced; then the peer counts as lost.
    std::uint64_t timeout_ms = 30'000;

    // Reads them; a value that cannot be is logged with what was expected, and INVALID.
    static pega_status read(const pega_host* host, const pega_option* options, std::uint32_t count, Settings& out);
};

}  // namespace nccl_backend
