// SPDX-License-Identifier: Apache-2.0
// Events are CUDA's; notifications are counted per device.
#include <cstring>

#include "device.hpp"

namespace nccl_backend {
namespace {

using cuda_backend::Event;
using cuda_backend::IpcHandle;
using cuda_backend::kSuccess;

pega_status adopt(pega_device* device, Event event, bool owned, pega_event** out) {
    *out = std::make_unique<pega_event>(pega_event{device, event, owned}).release();
    return PEGA_OK;
}

pega_status create(pega_device* device, std::uint32_t flags, pega_event** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    const Current current(*device->driver, device->context);
    const unsigned shared = (flags & PEGA_EVENT_SHARED) != 0 ? cuda_backend::kEventInterprocess : 0;
    Event event = nullptr;
    const CudaResult result = device->driver->cuEventCreate(&event, cuda_backend::kEventDisableTiming | shared);
    return result == kSuccess ? adopt(device, event, true, out) : to_status(result);
}

pega_status wrap(pega_device* device, void* native, pega_event** out) {
    return device == nullptr || native == nullptr || out == nullptr ? PEGA_INVALID : adopt(device, native, false, out);
}

pega_status export_event(pega_event* event, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (event == nullptr || length == nullptr || (bytes == nullptr && capacity != 0)) return PEGA_INVALID;
    *length = sizeof(IpcHandle);
    if (capacity < sizeof(IpcHandle)) return PEGA_NO_MEMORY;
    const Current current(*event->device->driver, event->device->context);
    IpcHandle handle{};
    if (event->device->driver->cuIpcGetEventHandle(&handle, event->event) != kSuccess) return PEGA_UNSUPPORTED;
    std::memcpy(bytes, handle.bytes, sizeof handle.bytes);
    return PEGA_OK;
}

pega_status import_event(pega_device* device, const void* bytes, std::uint64_t length, pega_event** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    IpcHandle handle{};
    if (length != sizeof handle.bytes) return PEGA_CORRUPT;
    std::memcpy(handle.bytes, bytes, sizeof handle.bytes);
    const Current current(*device->driver, device->context);
    Event event = nullptr;
    const CudaResult result = device->driver->cuIpcOpenEventHandle(&event, handle);
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
    return to_status(event->device->driver->cuEventQuery(event->event));
}

void destroy(pega_event* event) {
    if (event == nullptr) return;
    if (event->owned) {
        const Current current(*event->device->driver, event->device->context);
        event->device->driver->cuEventDestroy_v2(event->event);
    }
    delete event;
}

std::uint64_t count(pega_device* device, std::uint32_t value) {
    const std::lock_guard lock(device->mutex);
    const auto it = device->arrived.find(value);
    return it == device->arrived.end() ? 0 : it->second;
}

pega_status consume(pega_device* device, std::uint32_t value, std::uint64_t wanted) {
    const std::lock_guard lock(device->mutex);
    if (wanted == 0) return PEGA_OK;
    const auto it = device->arrived.find(value);
    if (it == device->arrived.end() || it->second < wanted) return PEGA_RETRY;
    it->second -= wanted;
    if (it->second == 0) device->arrived.erase(it);
    return PEGA_OK;
}

}  // namespace

const pega_ext_stream kStreamTable = {sizeof(pega_ext_stream), 0,       &create, &wrap,   &export_event,
                                      &import_event,           &signal, &query,  &destroy};
const pega_ext_notify kNotifyTable = {sizeof(pega_ext_notify), 0, &count, &consume};

}  // namespace nccl_backend
