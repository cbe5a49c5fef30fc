// SPDX-License-Identifier: Apache-2.0
// settings.hpp - the options of this back end, read once when a device is opened.
#pragma once

#include <cstdint>
#include <string>

#include "paths.hpp"
#include "pegaflow/backend.hpp"

namespace cuda_backend {

enum class Calibrate { kAuto, kOff, kForce };

struct Settings {
    // path: "auto" chooses by the table of measured rates; the name of a path forces it wherever it can work at all.
    Path forced = Path::kAuto;
    // max_multiprocessors: how many multiprocessors copies between GPU and host may take at a time, 1 to 64.
    unsigned max_multiprocessors = 4;
    // peer_multiprocessors: the same for copies between GPUs, which are many times faster than a host link.
    unsigned peer_multiprocessors = 64;
    // peer_kernel_bytes: between GPUs, fragments of less than that move by kernels, larger ones by the copy engine.
    std::uint64_t peer_kernel_bytes = 512U << 10;
    // stream_priority: "high" lets copy kernels start as soon as any multiprocessor is free; "normal" queues them like others.
    bool high_priority = true;
    // staging_chunk: bytes that move at a time between the staging ring and the host; the ring has four.
    std::uint64_t staging_chunk = 8U << 20;
    // calibrate: "auto" measures when there is no table for this GPU, driver and version; "off" takes the built-in table;
    // "force" always measures.
    Calibrate calibrate = Calibrate::kAuto;
    // calibration_dir: where tables are kept; default $XDG_CACHE_HOME/pegaflow or ~/.cache/pegaflow. "" = nowhere.
    std::string calibration_dir;

    // Reads them; a value that cannot be is logged with what was expected, and INVALID.
    static pega_status read(const pega_host* host, const pega_option* options, std::uint32_t count, Settings& out);
};

}  // namespace cuda_backend
