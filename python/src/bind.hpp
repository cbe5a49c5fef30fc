// SPDX-License-Identifier: Apache-2.0
// bind.hpp - one function a file: each adds its classes to the module. Brings the conversions of lists, dicts and None along.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace pegaflow::python {

void bind_fabric(pybind11::module_& module);
void bind_device(pybind11::module_& module);
void bind_event(pybind11::module_& module);
void bind_region(pybind11::module_& module);
void bind_channel(pybind11::module_& module);
void bind_transfer(pybind11::module_& module);
void bind_layer(pybind11::module_& module);
void bind_query(pybind11::module_& module);
void bind_engine(pybind11::module_& module);
void bind_engine_info(pybind11::module_& module);
void bind_load(pybind11::module_& module);
void bind_load_state(pybind11::module_& module);
void bind_rpc_client(pybind11::module_& module);

}  // namespace pegaflow::python
