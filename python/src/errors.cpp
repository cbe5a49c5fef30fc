// SPDX-License-Identifier: Apache-2.0
#include "errors.hpp"

namespace pegaflow::python {

void raise(const Error& error) {
    const py::object make = py::module_::import("pegaflow.errors").attr("from_code");
    const py::object exception = make(to_string(error.code), error.message, error.native_code);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    throw py::error_already_set();
}

void raise_invalid(const std::string& message) { raise({Code::kInvalid, message}); }

}  // namespace pegaflow::python
