// SPDX-License-Identifier: Apache-2.0
// Ends: taken from the inner back end, held back or spoilt as the verdict says, and handed to the poller.
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "device.hpp"

namespace interposer {
namespace {

void corrupt_one_byte(const pega_batch& batch) {
    const bool flat = batch.format == PEGA_FORMAT_FLAT;
    if ((flat && batch.flat_count == 0) || (!flat && (batch.span_count == 0 || batch.index_count == 0))) return;
    const bool reads = batch.op == PEGA_OP_READ;
    pega_region* region = flat ? (reads ? batch.local_region : batch.remote_region)
                               : (reads ? batch.spans->local_region : batch.spans->remote_region);
    const std::uint64_t at = flat ? (reads ? batch.local_offsets[0] : batch.remote_offsets[0])
                                  : (reads ? batch.spans->local_base + batch.local_index[0] * batch.spans->local_stride
                                           : batch.spans->remote_base + batch.remote_index[0] * batch.spans->remote_stride);
    pega_region_info where{};
    where.size = sizeof where;
    region_info(region, &where);
    if (where.kind == PEGA_MEMORY_HOST && where.address != nullptr && at < where.length)
        static_cast<std::uint8_t*>(where.address)[at] ^= 0x01;
}

void take_inner(pega_device& device, const pega_completion& record) {
    const auto it = device.pending.find(record.user_data);
    if (it == device.pending.end() || (record.flags & PEGA_COMPLETION_TERMINAL) == 0)
        return device.held.push_back({record, 0, false});
    const Pending& pending = *it->second;
    if (pending.verdict.corrupt && record.status == PEGA_OK) corrupt_one_byte(pending.batch);
    device.held.push_back(
        {record, pending.verdict.delay_ns == 0 ? 0 : device.now() + pending.verdict.delay_ns, pending.verdict.reorder});
}

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    if (capacity == 0) return 0;
    pega_completion records[64];
    records[0].size = sizeof records[0];
    const std::uint32_t got = device->inner.completion->poll(device->device, records, 64);
    const std::uint32_t stride = out->size;
    const std::lock_guard lock(device->mutex);
    const std::uint64_t now = device->now();
    for (const auto& [id, pending] : device->pending) {
        if (pending->verdict.hang && pending->batch.deadline_ns != 0 && now >= pending->batch.deadline_ns)
            end_hanging(*device, pending->channel, &id, ETIMEDOUT);
    }
    for (std::uint32_t i = 0; i < got; ++i) take_inner(*device, records[i]);
    std::uint32_t given = 0;
    for (std::size_t i = 0; i < device->held.size() && given < capacity;) {
        Held& held = device->held[i];
        if (held.due_ns > now) {
            ++i;
            continue;
        }
        if (held.until_next && i + 1 < device->held.size()) {
            held.until_next = false;
            std::swap(device->held[i], device->held[i + 1]);
            continue;
        }
        if (held.until_next && device->pending.size() > 1) {
            ++i;
            continue;
        }
        const pega_completion record = held.record;
        device->held.erase(device->held.begin() + static_cast<std::ptrdiff_t>(i));
        auto* element = reinterpret_cast<pega_completion*>(reinterpret_cast<unsigned char*>(out) +
                                                           static_cast<std::size_t>(given) * stride);
        element->size = stride;
        pegaflow::backend::copy_out(element, record);
        ++given;
        const auto pending = device->pending.find(record.user_data);
        if ((record.flags & PEGA_COMPLETION_TERMINAL) == 0 || pending == device->pending.end()) continue;
        device->hooks->ended(pending->second->batch, record, pending->second->submitted_ns);
        device->pending.erase(pending);
    }
    return given;
}

int wait_fd(pega_device* device) { return device->epoll_fd; }

pega_status arm(pega_device* device) {
    std::uint64_t drained = 0;
    [[maybe_unused]] const auto count = ::read(device->event_fd, &drained, sizeof drained);
    {
        const std::lock_guard lock(device->mutex);
        if (!device->held.empty()) return PEGA_PENDING;
        const bool timed = std::any_of(device->pending.begin(), device->pending.end(), [](const auto& p) {
            return p.second->verdict.hang && p.second->batch.deadline_ns != 0;
        });
        if (timed) return PEGA_PENDING;
    }
    return device->inner.completion->arm(device->device);
}

}  // namespace

const pega_completion_table kCompletionTable = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

}  // namespace interposer
