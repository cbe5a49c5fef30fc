// SPDX-License-Identifier: Apache-2.0
// Extensions of the inner back end, with inner handles in place of the wrappers.
#include <cstring>

#include "device.hpp"
#include "pegaflow/abi/ext/calibration.h"
#include "pegaflow/abi/ext/cancel.h"

namespace interposer {
namespace {

template <class T>
const T* inner_extension(pega_device* device, const char* id) {
    return static_cast<const T*>(device->inner.backend->extension(device->device, id));
}

std::uint64_t notify_count(pega_device* device, std::uint32_t value) {
    return inner_extension<pega_ext_notify>(device, PEGA_EXT_NOTIFY)->count(device->device, value);
}
pega_status notify_consume(pega_device* device, std::uint32_t value, std::uint64_t count) {
    return inner_extension<pega_ext_notify>(device, PEGA_EXT_NOTIFY)->consume(device->device, value, count);
}

const pega_ext_stream* stream_of(pega_device* device) { return inner_extension<pega_ext_stream>(device, PEGA_EXT_STREAM); }

pega_status wrap_event(pega_device* device, pega_status status, pega_event* inner, pega_event** out) {
    if (status == PEGA_OK) *out = new pega_event{device, inner};
    return status;
}
pega_status event_create(pega_device* device, std::uint32_t flags, pega_event** out) {
    pega_event* inner = nullptr;
    const pega_status status = stream_of(device)->create(device->device, flags, &inner);
    return wrap_event(device, status, inner, out);
}
pega_status event_wrap(pega_device* device, void* native, pega_event** out) {
    pega_event* inner = nullptr;
    const pega_status status = stream_of(device)->wrap(device->device, native, &inner);
    return wrap_event(device, status, inner, out);
}
pega_status event_export(pega_event* event, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    return event == nullptr ? PEGA_INVALID : stream_of(event->device)->export_event(event->inner, bytes, capacity, length);
}
pega_status event_import(pega_device* device, const void* bytes, std::uint64_t length, pega_event** out) {
    pega_event* inner = nullptr;
    const pega_status status = stream_of(device)->import_event(device->device, bytes, length, &inner);
    return wrap_event(device, status, inner, out);
}
pega_status event_signal(pega_event* event, void* stream) {
    return event == nullptr ? PEGA_INVALID : stream_of(event->device)->signal(event->inner, stream);
}
pega_status event_query(pega_event* event) {
    return event == nullptr ? PEGA_INVALID : stream_of(event->device)->query(event->inner);
}
void event_destroy(pega_event* event) {
    if (event == nullptr) return;
    stream_of(event->device)->destroy(event->inner);
    delete event;
}

pega_status flush(pega_region* region) {
    if (region == nullptr) return PEGA_INVALID;
    return inner_extension<pega_ext_durable>(region->device, PEGA_EXT_DURABLE)->flush(region->inner);
}
pega_status discard(pega_region* region, std::uint64_t offset, std::uint64_t length) {
    if (region == nullptr) return PEGA_INVALID;
    return inner_extension<pega_ext_durable>(region->device, PEGA_EXT_DURABLE)->discard(region->inner, offset, length);
}

pega_status rates(pega_device* device, pega_path_rate* out, std::uint32_t capacity, std::uint32_t* count) {
    if (device == nullptr) return PEGA_INVALID;
    return inner_extension<pega_ext_calibration>(device, PEGA_EXT_CALIBRATION)->rates(device->device, out, capacity, count);
}

constexpr pega_ext_calibration kCalibration = {sizeof(pega_ext_calibration), 0, &rates};
constexpr pega_ext_durable kDurable = {sizeof(pega_ext_durable), 0, &flush, &discard};
constexpr pega_ext_cancel kCancel = {sizeof(pega_ext_cancel), 0, &cancel};
constexpr pega_ext_notify kNotify = {sizeof(pega_ext_notify), 0, &notify_count, &notify_consume};
constexpr pega_ext_stream kStream = {
    sizeof(pega_ext_stream), 0, &event_create, &event_wrap, &event_export, &event_import, &event_signal, &event_query,
    &event_destroy};

}  // namespace

const void* extension(pega_device* device, const char* id) {
    if (device->inner.backend->extension(device->device, id) == nullptr) return nullptr;
    if (std::strcmp(id, PEGA_EXT_CANCEL) == 0) return &kCancel;
    if (std::strcmp(id, PEGA_EXT_NOTIFY) == 0) return &kNotify;
    if (std::strcmp(id, PEGA_EXT_STREAM) == 0) return &kStream;
    if (std::strcmp(id, PEGA_EXT_DURABLE) == 0) return &kDurable;
    if (std::strcmp(id, PEGA_EXT_CALIBRATION) == 0) return &kCalibration;
    return nullptr;
}

}  // namespace interposer
