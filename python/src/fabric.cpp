// SPDX-License-Identifier: Apache-2.0
#include "fabric.hpp"

#include "bind.hpp"
#include "convert.hpp"

namespace pegaflow::python {
namespace {

using Wraps = std::vector<std::pair<std::string, std::string>>;
using Options = std::map<std::string, std::map<std::string, std::string>>;

FabricPtr open_fabric(std::optional<std::vector<std::string>> backends, std::vector<std::string> search_path, Wraps wrap,
                      Options options) {
    FabricOptions wanted{std::move(search_path), backends.value_or(std::vector<std::string>()), std::move(wrap),
                         std::move(options)};
    auto out = std::make_shared<FabricHandle>();
    out->fabric = take_unlocked([&] { return Fabric::open(std::move(wanted)); });
    return out;
}

template <class T>
std::vector<T> copy_of(std::span<const T> items) {
    return {items.begin(), items.end()};
}

std::string describe(const ModuleReport& module) {
    return "ModuleInfo(name='" + module.name + "', version='" + module.version + "', problem='" + module.problem + "')";
}

std::string describe(const DeviceInfo& device) {
    return "DeviceInfo(name='" + device.name + "', kind='" + kind_name(device.kind) + "', text='" + device.text + "')";
}

void bind_infos(py::module_& module) {
    py::class_<DeviceInfo>(module, "DeviceInfo")
        .def_readonly("name", &DeviceInfo::name)
        .def_readonly("backend", &DeviceInfo::backend)
        .def_readonly("index", &DeviceInfo::index)
        .def_property_readonly("kind", [](const DeviceInfo& d) { return kind_name(d.kind); })
        .def_readonly("numa_node", &DeviceInfo::numa_node)
        .def_readonly("memory_bytes", &DeviceInfo::memory_bytes)
        .def_readonly("uuid", &DeviceInfo::uuid)
        .def_readonly("text", &DeviceInfo::text)
        .def("__repr__", [](const DeviceInfo& d) { return describe(d); });
    py::class_<ModuleReport>(module, "ModuleInfo")
        .def_readonly("path", &ModuleReport::path)
        .def_readonly("name", &ModuleReport::name)
        .def_readonly("version", &ModuleReport::version)
        .def_readonly("problem", &ModuleReport::problem)
        .def_readonly("devices", &ModuleReport::devices)
        .def("__repr__", [](const ModuleReport& m) { return describe(m); });
}

}  // namespace

void bind_fabric(py::module_& module) {
    bind_infos(module);
    py::class_<FabricHandle, FabricPtr>(module, "Fabric")
        .def(py::init(&open_fabric), py::arg("backends") = py::none(), py::kw_only(),
             py::arg("search_path") = std::vector<std::string>(), py::arg("wrap") = Wraps(), py::arg("options") = Options())
        .def_property_readonly("modules", [](const FabricHandle& f) { return copy_of(f.fabric->modules()); })
        .def_property_readonly("devices", [](const FabricHandle& f) { return copy_of(f.fabric->devices()); })
        .def(
            "device",
            [](const FabricPtr& f, const std::string& name) {
                return DeviceHandle{f, take_unlocked([&] { return f->fabric->device(name); })};
            },
            py::arg("name"))
        .def(
            "device_by_uuid",
            [](const FabricPtr& f, const std::string& uuid) {
                return DeviceHandle{f, take_unlocked([&] { return f->fabric->device_by_uuid(uuid); })};
            },
            py::arg("uuid"))
        .def(
            "route",
            [](const FabricPtr& f, const std::string& local_device, const std::string& remote_kind) {
                const std::uint32_t kind = to_kind(remote_kind);
                return DeviceHandle{f, take_unlocked([&] { return f->fabric->route(local_device, kind); })};
            },
            py::arg("local_device"), py::arg("remote_kind") = "host");
}

}  // namespace pegaflow::python
