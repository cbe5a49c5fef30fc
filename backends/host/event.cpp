// SPDX-License-Identifier: Apache-2.0
// Events: a word in memory that several processes map. Workers look at the words of parked batches.
#include <algorithm>
#include <cstring>
#include <new>

#include "device.hpp"

namespace host_backend {
namespace {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

pega_status adopt(pega_device* device, SharedObject object, pega_event** out) {
    auto event = std::make_unique<pega_event>();
    event->device = device;
    event->word = reinterpret_cast<std::atomic<std::uint32_t>*>(object.data());
    event->shared = std::move(object);
    *out = event.release();
    return PEGA_OK;
}

pega_status create(pega_device* device, std::uint32_t, pega_event** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    SharedObject object;
    const pega_status status = SharedObject::create(sizeof(std::uint32_t), &object);
    return status == PEGA_OK ? adopt(device, std::move(object), out) : status;
}

pega_status wrap(pega_device*, void*, pega_event**) { return PEGA_UNSUPPORTED; }

pega_status export_event(pega_event* event, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    if (event == nullptr) return PEGA_INVALID;
    const std::vector<std::uint8_t> descriptor = event->shared.describe(kEventType);
    return pegaflow::backend::give_bytes(descriptor.data(), descriptor.size(), bytes, capacity, length);
}

pega_status import_event(pega_device* device, const void* bytes, std::uint64_t length, pega_event** out) {
    if (device == nullptr || bytes == nullptr || out == nullptr) return PEGA_INVALID;
    SharedObject object;
    std::string why;
    const pega_status status =
        SharedObject::import({static_cast<const std::uint8_t*>(bytes), length}, kEventType, &object, &why);
    if (!why.empty()) pegaflow::backend::log(device->host, PEGA_LOG_WARNING, "host", "event of a peer: %s", why.c_str());
    if (status != PEGA_OK) return status;
    if (object.length() < sizeof(std::uint32_t) || reinterpret_cast<std::uintptr_t>(object.data()) % sizeof(std::uint32_t) != 0)
        return PEGA_CORRUPT;
    return adopt(device, std::move(object), out);
}

pega_status signal(pega_event* event, void*) {
    if (event == nullptr) return PEGA_INVALID;
    event->word->store(1, std::memory_order_release);
    event->device->work.notify_one();
    return event->shared.lost() ? PEGA_REGION_LOST : PEGA_OK;
}

pega_status query(pega_event* event) {
    if (event == nullptr) return PEGA_INVALID;
    if (event->word->load(std::memory_order_acquire) != 0) return PEGA_OK;
    return event->shared.lost() ? PEGA_REGION_LOST : PEGA_PENDING;
}

void destroy(pega_event* event) { delete event; }

}  // namespace

const pega_ext_stream kStreamTable = {sizeof(pega_ext_stream), 0,       &create, &wrap,   &export_event,
                                      &import_event,           &signal, &query,  &destroy};

}  // namespace host_backend
