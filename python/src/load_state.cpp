// SPDX-License-Identifier: Apache-2.0

#include <memory>

#include "bind.hpp"
#include "pegaflow/client.hpp"
#include "time.hpp"

namespace pegaflow::python {
namespace {

void wait(const LoadState& state, Seconds timeout) {
    const bool ended =
        wait_in_steps(timeout, [&](std::chrono::nanoseconds step) { return state.wait(step).has_value() || state.ready(); });
    if (!ended) raise({Code::kDeadlineExceeded, "the load has not ended yet"});
    take(state.wait(std::chrono::nanoseconds(0)));
}

}  // namespace

void bind_load_state(py::module_& module) {
    py::class_<LoadState>(module, "PyLoadState")
        .def(py::init([] { return std::make_unique<LoadState>(take(LoadState::create())); }))
        .def("shm_name", &LoadState::shm_name)
        .def("get_state", &LoadState::state)
        .def("is_ready", &LoadState::ready)
        .def("wait", &wait, py::arg("timeout") = py::none());
}

}  // namespace pegaflow::python
