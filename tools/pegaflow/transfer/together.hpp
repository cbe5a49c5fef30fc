// SPDX-License-Identifier: Apache-2.0
// together.hpp - what copies and a matrix product lose when they run at the same time.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "tools/pegaflow/transfer/sample.hpp"

namespace pegaflow::cli {

// Rates over one window in which everything named in it ran.
struct Window {
    std::vector<double> bytes_per_second;  // one a flow
    double products_per_second = 0;
    double sum() const noexcept;
};

// Runs the plans' flows, and the matrix product when `gpu` is given, all at once for `seconds`, after half a second of start.
Result<Window> run_together(std::vector<Sides*> sides, const std::vector<Plan>& plans, std::optional<std::uint32_t> gpu,
                            double seconds);

}  // namespace pegaflow::cli
