// SPDX-License-Identifier: Apache-2.0
#include "array.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <charconv>

#include "dlpack.hpp"
#include "pegaflow/abi/region.h"

namespace pegaflow::python {
namespace {

std::vector<std::int64_t> packed_strides(const std::vector<std::int64_t>& shape, std::uint64_t item_bytes) {
    std::vector<std::int64_t> strides(shape.size());
    auto step = static_cast<std::int64_t>(item_bytes);
    for (std::size_t i = shape.size(); i-- > 0;) {
        strides[i] = step;
        step *= shape[i];
    }
    return strides;
}

Array from_buffer(const py::object& object) {
    auto view = std::shared_ptr<Py_buffer>(new Py_buffer{}, [](Py_buffer* buffer) {
        PyBuffer_Release(buffer);
        delete buffer;
    });
    if (PyObject_GetBuffer(object.ptr(), view.get(), PyBUF_STRIDES | PyBUF_FORMAT) != 0) throw py::error_already_set();
    Array out;
    out.protocol = "buffer protocol";
    out.address = reinterpret_cast<std::uintptr_t>(view->buf);
    out.kind = PEGA_MEMORY_HOST;
    out.read_only = view->readonly != 0;
    out.item_bytes = static_cast<std::uint64_t>(view->itemsize);
    out.shape.assign(view->shape, view->shape + view->ndim);
    out.strides.assign(view->strides, view->strides + view->ndim);
    out.buffer = view;
    return out;
}

// Asks for the current version of the protocol, then as producers of the first one expect to be asked.
py::object dlpack_capsule(const py::object& object, std::int32_t device) {
    py::dict arguments;
    if (device == dlpack::kCuda || device == dlpack::kCudaManaged) arguments["stream"] = -1;  // nothing is read now
    const py::object method = object.attr("__dlpack__");
    py::dict versioned = py::reinterpret_steal<py::dict>(PyDict_Copy(arguments.ptr()));
    versioned["max_version"] = py::make_tuple(1, 0);
    try {
        return method(**versioned);
    } catch (py::error_already_set& error) {
        if (!error.matches(PyExc_TypeError)) throw;
    }
    return method(**arguments);
}

Array from_dlpack(const py::object& object) {
    const auto device = object.attr("__dlpack_device__")().cast<std::pair<std::int32_t, std::int32_t>>();
    Array out;
    out.protocol = "DLPack";
    out.owner = dlpack_capsule(object, device.first);
    const dlpack::Tensor* tensor = nullptr;
    if (PyCapsule_IsValid(out.owner.ptr(), "dltensor_versioned") != 0) {
        const auto* managed = static_cast<dlpack::Versioned*>(PyCapsule_GetPointer(out.owner.ptr(), "dltensor_versioned"));
        if (managed->major != 1) raise_invalid(text("DLPack {}.{} is not known here", managed->major, managed->minor));
        tensor = &managed->tensor;
        out.read_only = (managed->flags & dlpack::kReadOnly) != 0;
    } else if (PyCapsule_IsValid(out.owner.ptr(), "dltensor") != 0) {
        tensor = &static_cast<dlpack::Managed*>(PyCapsule_GetPointer(out.owner.ptr(), "dltensor"))->tensor;
    } else {
        throw py::type_error("__dlpack__ returned no DLPack capsule");
    }
    const bool cuda = tensor->device_type == dlpack::kCuda || tensor->device_type == dlpack::kCudaManaged;
    if (!cuda && tensor->device_type != dlpack::kCpu && tensor->device_type != dlpack::kCudaHost)
        raise_invalid(text("DLPack memory of device type {}: only CPU and CUDA are known here", tensor->device_type));
    out.address = reinterpret_cast<std::uintptr_t>(tensor->data) + tensor->byte_offset;
    out.kind = cuda ? PEGA_MEMORY_GPU : PEGA_MEMORY_HOST;
    out.cuda_device = cuda ? tensor->device_id : -1;
    out.item_bytes = (static_cast<std::uint64_t>(tensor->type_bits) * tensor->type_lanes + 7) / 8;
    out.shape.assign(tensor->shape, tensor->shape + tensor->ndim);
    out.strides = packed_strides(out.shape, out.item_bytes);
    if (tensor->strides == nullptr) return out;
    for (std::size_t i = 0; i < out.shape.size(); ++i)
        out.strides[i] = tensor->strides[i] * static_cast<std::int64_t>(out.item_bytes);
    return out;
}

Array from_cuda_array_interface(const py::object& object) {
    const auto description = object.attr("__cuda_array_interface__").cast<py::dict>();
    const auto type = description["typestr"].cast<std::string>();
    const auto data = description["data"].cast<std::pair<std::uintptr_t, bool>>();
    Array out;
    out.protocol = "__cuda_array_interface__";
    out.owner = object;
    out.address = data.first;
    out.read_only = data.second;
    out.kind = PEGA_MEMORY_GPU;
    const char* const digits = type.data() + std::min<std::size_t>(2, type.size());  // after byte order and kind
    const auto [end, error] = std::from_chars(digits, type.data() + type.size(), out.item_bytes);
    if (error != std::errc() || end != type.data() + type.size())
        raise_invalid(text("__cuda_array_interface__: the typestr \"{}\" does not end in a size", type));
    out.shape = description["shape"].cast<std::vector<std::int64_t>>();
    out.strides = packed_strides(out.shape, out.item_bytes);
    if (description.contains("strides") && !description["strides"].is_none())
        out.strides = description["strides"].cast<std::vector<std::int64_t>>();
    return out;
}

Array read(const py::object& object) {
    if (PyObject_CheckBuffer(object.ptr()) != 0) return from_buffer(object);
    if (py::hasattr(object, "__dlpack__") && py::hasattr(object, "__dlpack_device__")) return from_dlpack(object);
    if (py::hasattr(object, "__cuda_array_interface__")) return from_cuda_array_interface(object);
    throw py::type_error(
        text("{} is no array: it has neither the buffer protocol nor __dlpack__ nor "
             "__cuda_array_interface__",
             Py_TYPE(object.ptr())->tp_name));
}

}  // namespace

Array Array::of(const py::object& object) {
    Array out = read(object);
    if (!out.owner) out.owner = object;
    if (out.strides.size() != out.shape.size())
        raise_invalid("an array with other dimensions in its strides than in its shape");
    for (std::size_t i = 0; i < out.shape.size(); ++i) {
        if (out.shape[i] <= 0 || (out.strides[i] < 0 && out.shape[i] > 1))
            raise_invalid(
                text("dimension {} of the array has size {} and stride {} bytes: empty or backward arrays hold "
                     "no memory to move",
                     i, out.shape[i], out.strides[i]));
    }
    if (out.address == 0 || out.item_bytes == 0) raise_invalid("the array has no memory");
    return out;
}

std::uint64_t Array::extent() const {
    std::uint64_t last = item_bytes;
    for (std::size_t i = 0; i < shape.size(); ++i)
        last += static_cast<std::uint64_t>(shape[i] - 1) * static_cast<std::uint64_t>(strides[i]);
    return last;
}

std::uint64_t Array::packed_bytes(std::size_t dimensions) const {
    std::uint64_t bytes = item_bytes;
    for (std::size_t i = shape.size(); i-- > dimensions;) {
        if (shape[i] != 1 && static_cast<std::uint64_t>(strides[i]) != bytes) {
            raise_invalid(
                text("dimension {} of the array has a stride of {} bytes, expected {}: a block's bytes must be "
                     "side by side",
                     i, strides[i], bytes));
        }
        bytes *= static_cast<std::uint64_t>(shape[i]);
    }
    return bytes;
}

}  // namespace pegaflow::python
