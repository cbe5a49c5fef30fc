// SPDX-License-Identifier: Apache-2.0

#include "event.hpp"
#include "bind.hpp"

namespace pegaflow::python {
namespace {

[[noreturn]] void refuse(pega_status status, const char* what) {
    raise({static_cast<Code>(status), text("cannot {}: {}", what, to_string(static_cast<Code>(status)))});
}

EventPtr make(const DeviceHandle& device) {
    const auto* table = static_cast<const pega_ext_stream*>(device.device->extension(PEGA_EXT_STREAM));
    if (table == nullptr) raise({Code::kUnsupported, text("{} has no events", device.device->info().name)});
    auto out = std::make_shared<EventHandle>();
    out->fabric = device.fabric;
    out->table = table;
    return out;
}

}  // namespace

EventPtr create_event(const DeviceHandle& device, bool shared) {
    EventPtr out = make(device);
    const pega_status status = out->table->create(device.device->handle(), shared ? PEGA_EVENT_SHARED : 0, &out->event);
    if (status != PEGA_OK) refuse(status, "make an event");
    return out;
}

EventPtr wrap_event(const DeviceHandle& device, std::uintptr_t native) {
    EventPtr out = make(device);
    const pega_status status = out->table->wrap(device.device->handle(), reinterpret_cast<void*>(native), &out->event);
    if (status != PEGA_OK) refuse(status, "wrap the native event");
    return out;
}

EventPtr import_event(const DeviceHandle& device, const std::string& bytes) {
    EventPtr out = make(device);
    const pega_status status =
        unlocked([&] { return out->table->import_event(device.device->handle(), bytes.data(), bytes.size(), &out->event); });
    if (status != PEGA_OK) refuse(status, "open the exported event");
    return out;
}

namespace {

py::bytes export_event(const EventHandle& event) {
    std::string bytes(256, '\0');
    std::uint64_t length = 0;
    const pega_status status = event.table->export_event(event.event, bytes.data(), bytes.size(), &length);
    if (status != PEGA_OK) refuse(status, "export the event");
    return py::bytes(bytes.data(), length);
}

void signal(const EventHandle& event, std::uintptr_t stream) {
    const pega_status status = unlocked([&] { return event.table->signal(event.event, reinterpret_cast<void*>(stream)); });
    if (status != PEGA_OK) refuse(status, "signal the event");
}

bool query(const EventHandle& event) {
    const pega_status status = event.table->query(event.event);
    if (status != PEGA_OK && status != PEGA_PENDING) refuse(status, "query the event");
    return status == PEGA_OK;
}

}  // namespace

void bind_event(py::module_& module) {
    py::class_<EventHandle, EventPtr>(module, "Event")
        .def("export", &export_event)
        .def("signal", &signal, py::arg("stream") = 0)
        .def("query", &query);
}

}  // namespace pegaflow::python
