// SPDX-License-Identifier: Apache-2.0

#include "bind.hpp"
#include "convert.hpp"
#include "fabric.hpp"

namespace pegaflow::python {
namespace {

py::bytes export_region(const RegionHandle& region) {
    const auto bytes = take_unlocked([&] { return region.region.export_descriptor(); });
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// memoryview(region), numpy.frombuffer(region): the bytes of host memory.
py::buffer_info buffer(RegionHandle& region) {
    if (region.region.kind() != PEGA_MEMORY_HOST || region.region.address() == nullptr) {
        throw py::buffer_error(text("a region of kind {} on {} has no bytes that the host can address",
                                    kind_name(region.region.kind()), region.device_name));
    }
    const auto length = static_cast<py::ssize_t>(region.region.length());
    return {region.region.address(), 1, py::format_descriptor<std::uint8_t>::format(), 1, {length}, {1}, region.read_only};
}

py::dict cuda_array_interface(const RegionHandle& region) {
    if (region.region.kind() != PEGA_MEMORY_GPU || region.region.address() == nullptr)
        throw py::attribute_error("__cuda_array_interface__: this region is not memory of a GPU");
    py::dict out;
    out["version"] = 3;
    out["typestr"] = "|u1";
    out["shape"] = py::make_tuple(region.region.length());
    out["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(region.region.address()), region.read_only);
    out["strides"] = py::none();
    return out;
}

}  // namespace

void bind_region(py::module_& module) {
    py::class_<RegionHandle, RegionPtr>(module, "Region", py::buffer_protocol())
        .def_buffer(&buffer)
        .def_property_readonly("length", [](const RegionHandle& r) { return r.region.length(); })
        .def_property_readonly("kind", [](const RegionHandle& r) { return kind_name(r.region.kind()); })
        .def_property_readonly("address",
                               [](const RegionHandle& r) { return reinterpret_cast<std::uintptr_t>(r.region.address()); })
        .def_property_readonly("device_name", [](const RegionHandle& r) { return r.device_name; })
        .def_property_readonly("read_only", [](const RegionHandle& r) { return r.read_only; })
        .def_property_readonly("__cuda_array_interface__", &cuda_array_interface)
        .def("__len__", [](const RegionHandle& r) { return r.region.length(); })
        .def("export", &export_region);
}

}  // namespace pegaflow::python
