// SPDX-License-Identifier: Apache-2.0
// query.hpp - the two answers to a query: it is under way, or this is what was found.
#pragma once

#include <string>
#include <vector>

#include "errors.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::python {

struct QueryLoading {};

struct QueryReady {
    std::uint64_t num_hit_blocks = 0;
    std::string lease;  // 16 bytes, or none
    std::vector<std::uint32_t> hit_positions;
};

// A QueryLoading or a QueryReady. The lock is held.
py::object to_python(const QueryOutcome& outcome);

}  // namespace pegaflow::python
