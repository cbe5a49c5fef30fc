// SPDX-License-Identifier: Apache-2.0
// The extension module pegaflow._core. What it offers is documented in pegaflow/_core.pyi.
#include "bind.hpp"

PYBIND11_MODULE(_core, module) {
    module.attr("__version__") = PEGAFLOW_PYTHON_VERSION;
    // Types before the functions that name them.
    pegaflow::python::bind_region(module);
    pegaflow::python::bind_event(module);
    pegaflow::python::bind_transfer(module);
    pegaflow::python::bind_channel(module);
    pegaflow::python::bind_device(module);
    pegaflow::python::bind_fabric(module);
    pegaflow::python::bind_layer(module);
    pegaflow::python::bind_query(module);
    pegaflow::python::bind_engine_info(module);
    pegaflow::python::bind_load(module);
    pegaflow::python::bind_engine(module);
    pegaflow::python::bind_load_state(module);
    pegaflow::python::bind_rpc_client(module);
}
