// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "device.hpp"

namespace cuda_backend {
namespace {

pega_status adopt(pega_device* device, Event event, bool owned, pega_event** out) {
    auto made = std::make_unique<pega_event>();
    made->device = device;
    made->event = event;
    made->owned = owned;
    *out = made.release();
    return PEGA_OK;
}

pega_status create(pega_device* device, std::uint32_t flags, pega_event** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    const Current current(*device->driver, device->context);
    Event event = nullptr;
    const unsigned shared = (flags & PEGA_EVENT_SHARED) != 0 ? kEventInterprocess : 0;
    const Result result = device->driver->cuEventCreate(&event, kEventDisableTiming | shared);
    return result == kSuccess ? adopt(device, event, true, out) : to_status(result);
}

pega_status wrap(pega_device* device, void* native, pega_event** out) {
    return device == nullptr || native == nullptr || out == nullptr ? PEGA_INVALID : adopt(device, native, false, out);
}

pega_status export_event(pega_event* event, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (event == nullptr) return PEGA_INVALID;
    IpcHandle handle{};
    if (bytes != nullptr) {
        const Current current(*event->device->driver, event->device->context);
        if (event->device->driver->cuIpcGetEventHandle(&handle, event->event) != kSuccess) return PEGA_UNSUPPORTED;
    }
    return pegaflow::backend::give_bytes(handle.bytes, sizeof handle.bytes, bytes, capacity, length);
}

pega_status import_event(pega_device* device, const void* bytes, std::uint64_t length, pega_event** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    IpcHandle handle{};
    if (length != sizeof handle.bytes) return PEGA_CORRUPT;
    std::memcpy(handle.bytes, bytes, sizeof handle.bytes);
    const Current current(*device->driver, device->context);
    Event event = nullptr;
    const Result result = device->driver->cuIpcOpenEventHandle(&event, handle);
    return result == kSuccess ? adopt(device, event, true, out) : PEGA_REGION_LOST;
}

pega_status signal(pega_event* event, void* stream) {
    if (event == nullptr) return PEGA_INVALID;
    const Current current(*event->device->driver, event->device->context);
    return to_status(event->device->driver->cuEventRecord(event->event, stream));
}

pega_status query(pega_event* event) {
    if (event == nullptr) return PEGA_INVALID;
    const Current current(*event->device->driver, event->device->context);
    const Result result = event->device->driver->cuEventQuery(event->event);
    return result == kNotReady ? PEGA_PENDING : to_status(result);
}

void destroy(pega_event* event) {
    if (event == nullptr) return;
    if (event->owned) {
        const Current current(*event->device->driver, event->device->context);
        event->device->driver->cuEventDestroy_v2(event->event);
    }
    delete event;
}

}  // namespace

const pega_ext_stream kStreamTable = {sizeof(pega_ext_stream), 0,       &create, &wrap,   &export_event,
                                      &import_event,           &signal, &query,  &destroy};
const pega_ext_notify kNotifyTable = backend_common::notify_table<&pega_device::mailbox>();

}  // namespace cuda_backend
