// SPDX-License-Identifier: Apache-2.0
#include "query.hpp"

#include "bind.hpp"
#include "convert.hpp"

namespace pegaflow::python {
namespace {

QueryReady make_ready(std::uint64_t num_hit_blocks, const py::bytes& lease, std::vector<std::uint32_t> hit_positions) {
    return {num_hit_blocks, lease, std::move(hit_positions)};
}

std::string describe(const QueryReady& ready) {
    return "QueryReady(num_hit_blocks=" + std::to_string(ready.num_hit_blocks) +
           ", lease=" + py::repr(py::bytes(ready.lease)).cast<std::string>() +
           ", hit_positions=" + py::repr(py::cast(ready.hit_positions)).cast<std::string>() + ")";
}

}  // namespace

py::object to_python(const QueryOutcome& outcome) {
    if (outcome.loading) return py::cast(QueryLoading());
    return py::cast(QueryReady{outcome.hit_blocks, from_lease(outcome.lease), outcome.hit_positions});
}

void bind_query(py::module_& module) {
    py::class_<QueryLoading>(module, "QueryLoading").def(py::init()).def("__repr__", [](const QueryLoading&) {
        return "QueryLoading()";
    });
    py::class_<QueryReady>(module, "QueryReady")
        .def(py::init(&make_ready), py::arg("num_hit_blocks"), py::arg("lease"),
             py::arg("hit_positions") = std::vector<std::uint32_t>())
        .def_readonly("num_hit_blocks", &QueryReady::num_hit_blocks)
        .def_property_readonly("lease", [](const QueryReady& r) { return py::bytes(r.lease); })
        .def_readonly("hit_positions", &QueryReady::hit_positions)
        .def("__repr__", &describe);
}

}  // namespace pegaflow::python
