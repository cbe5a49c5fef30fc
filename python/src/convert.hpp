// SPDX-License-Identifier: Apache-2.0
// convert.hpp - the arguments that many calls share, from Python's lists and bytes, with refusals that say which item is wrong.
//
// What these return borrows the bytes objects that it holds; make and destroy it with the interpreter lock held.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "errors.hpp"
#include "pegaflow/engine.hpp"

namespace pegaflow::python {

using Ids = std::vector<std::uint32_t>;
using Indices = std::vector<std::uint64_t>;

// Unsigned integers of any iterable. `what` names the argument in a TypeError or ValueError.
Ids to_ids(py::handle items, const std::string& what, bool none_allowed = false);
Indices to_indices(py::handle items, const std::string& what);

struct Hashes {
    std::vector<py::object> owners;
    std::vector<std::string_view> views;
};
Hashes to_hashes(py::handle items, const std::string& what);

LeaseId to_lease(py::handle bytes, const std::string& what);
py::bytes from_lease(const std::optional<LeaseId>& lease);  // b"" when there is none

std::uint32_t to_kind(const std::string& name);  // "host", "gpu", "file", "remote"
const char* kind_name(std::uint32_t kind);

// [(layer name, [block id], [hash])]
struct Saves {
    explicit Saves(py::handle items);
    std::deque<std::string> names;
    std::deque<Ids> ids;
    std::deque<Hashes> hashes;
    std::vector<SaveLayer> layers;
};

// [[layer name]] and [(lease, [[block id or None]])]
struct Loads {
    Loads(py::handle layer_groups, py::handle items);
    std::deque<std::vector<std::string>> names;
    std::deque<std::vector<std::string_view>> name_views;
    std::vector<std::span<const std::string_view>> groups;
    std::deque<Ids> ids;
    std::deque<std::vector<std::span<const std::uint32_t>>> targets;
    std::vector<LeaseLoad> loads;
};

}  // namespace pegaflow::python
