// SPDX-License-Identifier: Apache-2.0
// calibration.hpp - measures the table that paths are chosen by, and keeps it on disk for the GPU, driver and version it is
// true of.
//
// File: <calibration_dir>/cuda-<GPU uuid>.txt. First line "pegaflow-cuda-calibration 1", second line what it was measured with,
// then one line a point: direction, path, fragment bytes, batch bytes, bytes per second. A file that says anything else is
// measured again.
#pragma once

#include <string>

#include "device.hpp"

namespace cuda_backend {

// Gives an opened device its table: the kept one, or a new one, or the built-in one when it cannot be measured (reason logged).
// Takes about a second when it measures, 64 MiB of pinned memory and 128 MiB of GPU memory. The context is current.
void calibrate(pega_device& device);

// Measures. False when memory is short or a copy fails; `table` is then as it was.
bool measure_paths(pega_device& device, PathTable& table);

// What a table is true of: uuid, driver, back end, and the settings that change what is measured.
std::string calibration_identity(const pega_device& device);
std::string calibration_path(const pega_device& device);
bool read_calibration(const std::string& path, const std::string& identity, PathTable& table);
bool write_calibration(const std::string& path, const std::string& identity, const PathTable& table);

}  // namespace cuda_backend
