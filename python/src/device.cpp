// SPDX-License-Identifier: Apache-2.0

#include "bind.hpp"
#include "convert.hpp"
#include "event.hpp"
#include "time.hpp"

namespace pegaflow::python {
namespace {

RegionPtr wrap(const DeviceHandle& device, Region region, bool read_only, std::optional<Array> array = {}) {
    auto out = std::make_shared<RegionHandle>();
    out->fabric = device.fabric;
    out->device_name = device.device->info().name;
    out->read_only = read_only;
    out->array = std::move(array);
    out->region = std::move(region);
    return out;
}

RegionPtr register_with(const DeviceHandle& device, pega_memory memory, bool read_only, std::optional<Array> array = {}) {
    memory.size = sizeof memory;
    if (read_only) memory.flags |= PEGA_REGION_READ_ONLY;
    Region region = take_unlocked([&] { return device.device->register_memory(memory); });
    return wrap(device, std::move(region), read_only, std::move(array));
}

RegionPtr allocate(const DeviceHandle& device, std::uint64_t length, const std::optional<std::string>& kind, bool shared) {
    pega_memory memory{};
    memory.kind = kind ? to_kind(*kind) : device.device->info().kind;
    memory.source = PEGA_SOURCE_ALLOCATE;
    memory.flags = shared ? PEGA_REGION_SHARED : 0;
    memory.length = length;
    return register_with(device, memory, false);
}

RegionPtr register_array(const DeviceHandle& device, const py::object& object, bool read_only) {
    Array array = Array::of(object);
    if (array.read_only && !read_only)
        raise_invalid("the array is read-only; say read_only=True when no transfer is to write into it");
    array.packed_bytes(0);  // a region has no gaps
    pega_memory memory{};
    memory.kind = array.kind;
    memory.source = PEGA_SOURCE_ADDRESS;
    memory.address = reinterpret_cast<void*>(array.address);
    memory.length = array.extent();
    return register_with(device, memory, read_only, std::move(array));
}

RegionPtr register_address(const DeviceHandle& device, std::uintptr_t address, std::uint64_t length,
                           const std::optional<std::string>& kind, bool read_only) {
    pega_memory memory{};
    memory.kind = kind ? to_kind(*kind) : device.device->info().kind;
    memory.source = PEGA_SOURCE_ADDRESS;
    memory.address = reinterpret_cast<void*>(address);
    memory.length = length;
    return register_with(device, memory, read_only);
}

RegionPtr open_shm(const DeviceHandle& device, const std::string& name, std::uint64_t length, std::uint64_t offset,
                   bool read_only) {
    pega_memory memory{};
    memory.kind = PEGA_MEMORY_HOST;
    memory.source = PEGA_SOURCE_SHM;
    memory.handle = name.data();
    memory.handle_length = name.size();
    memory.length = length;
    memory.offset = offset;
    return register_with(device, memory, read_only);
}

RegionPtr import_region(const DeviceHandle& device, const std::string& descriptor) {
    const auto bytes = std::as_bytes(std::span(descriptor));
    return wrap(device, take_unlocked([&] { return device.device->import_region(bytes); }), false);
}

py::bytes address(const DeviceHandle& device) {
    const auto bytes = take_unlocked([&] { return device.device->address(); });
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ChannelPtr open_channel(const DeviceHandle& device, const std::string& peer, std::uint32_t queue_depth) {
    auto out = std::make_shared<ChannelHandle>();
    out->fabric = device.fabric;
    out->channel = take_unlocked([&] { return device.device->open_channel(std::as_bytes(std::span(peer)), queue_depth); });
    return out;
}

py::dict capabilities(const DeviceHandle& device) {
    const pega_capabilities& c = device.device->capabilities();
    py::dict out;
    const std::pair<const char*, std::uint32_t> flags[] = {
        {"read", PEGA_CAP_READ},     {"write", PEGA_CAP_WRITE}, {"cancel", PEGA_CAP_CANCEL}, {"notify", PEGA_CAP_NOTIFY},
        {"stream", PEGA_CAP_STREAM}, {"marks", PEGA_CAP_MARKS}, {"peers", PEGA_CAP_PEERS}};
    for (const auto& [name, flag] : flags) out[name] = (c.flags & flag) != 0;
    out["alignment"] = c.alignment;
    out["max_descriptors"] = c.max_descriptors;
    out["max_page_bytes"] = c.max_page_bytes;
    out["max_batches"] = c.max_batches;
    return out;
}

void wait_notify(const DeviceHandle& device, std::uint32_t value, std::uint64_t count, Seconds timeout) {
    Result<void> last;
    wait_in_steps(timeout, [&](std::chrono::nanoseconds step) {
        last = device.device->wait_notify(value, count, step);
        return last || last.error().code != Code::kDeadlineExceeded;
    });
    take(std::move(last));
}

}  // namespace

void bind_device(py::module_& module) {
    py::class_<DeviceHandle>(module, "Device")
        .def_property_readonly("info", [](const DeviceHandle& d) { return d.device->info(); })
        .def_property_readonly("name", [](const DeviceHandle& d) { return d.device->info().name; })
        .def_property_readonly("capabilities", &capabilities)
        .def("allocate", &allocate, py::arg("length"), py::kw_only(), py::arg("kind") = py::none(), py::arg("shared") = false)
        .def("register", &register_array, py::arg("array"), py::kw_only(), py::arg("read_only") = false)
        .def("register_address", &register_address, py::arg("address"), py::arg("length"), py::kw_only(),
             py::arg("kind") = py::none(), py::arg("read_only") = false)
        .def("open_shm", &open_shm, py::arg("name"), py::arg("length"), py::arg("offset") = 0, py::kw_only(),
             py::arg("read_only") = false)
        .def(
            "import_region", [](const DeviceHandle& d, const py::bytes& descriptor) { return import_region(d, descriptor); },
            py::arg("descriptor"))
        .def("address", &address)
        .def(
            "open_channel",
            [](const DeviceHandle& d, const py::bytes& peer, std::uint32_t depth) { return open_channel(d, peer, depth); },
            py::arg("address") = py::bytes(), py::kw_only(), py::arg("queue_depth") = 0)
        .def("create_event", &create_event, py::kw_only(), py::arg("shared") = false)
        .def("wrap_event", &wrap_event, py::arg("native"))
        .def(
            "import_event", [](const DeviceHandle& d, const py::bytes& exported) { return import_event(d, exported); },
            py::arg("exported"))
        .def("wait_notify", &wait_notify, py::arg("value"), py::arg("count") = 1, py::arg("timeout") = py::none());
}

}  // namespace pegaflow::python
