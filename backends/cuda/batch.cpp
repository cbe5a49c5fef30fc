// SPDX-License-Identifier: Apache-2.0
#include "batch.hpp"

#include <algorithm>

#include "pegaflow/batch_check.hpp"

namespace cuda_backend {

pega_status Batch::accept(pega_channel* owner, const pega_batch& from) {
    channel = owner;
    if (!pegaflow::backend::whole(from) || (from.op != PEGA_OP_READ && from.op != PEGA_OP_WRITE)) return PEGA_INVALID;
    has_notify = false;
    wait = record = nullptr;
    digest = {};
    for (const pega_batch_option* o = from.options; o != nullptr; o = o->next) {
        if (o->kind == PEGA_OPTION_NOTIFY) {
            has_notify = true;
            notify_value = reinterpret_cast<const pega_notify_option*>(o)->value;
        } else if (o->kind == PEGA_OPTION_STREAM) {
            const auto& stream = *reinterpret_cast<const pega_stream_option*>(o);
            wait = stream.wait == nullptr ? nullptr : stream.wait->event;
            record = stream.record == nullptr ? nullptr : stream.record->event;
        } else if (o->kind == PEGA_OPTION_DIGEST && o->size >= PEGA_SIZE_TO(pega_digest_option, computed)) {
            const auto& wanted = *reinterpret_cast<const pega_digest_option*>(o);
            digest.sums = wanted.sums;
            digest.computed = wanted.computed;
        } else if ((o->flags & PEGA_OPTION_HINT) == 0) {
            return PEGA_UNSUPPORTED;
        }
    }
    if (const pega_status built = plan.build(from, owner->device, digest.sums != nullptr); built != PEGA_OK) return built;
    route = owner->copier.prepare(plan, plan.bytes / plan.groups.size());
    if (!plan.digestible || !route.digests()) digest = {};
    batch = pegaflow::backend::copy_in(from);
    batch.options = nullptr;
    finished_queueing = cancel = false;
    cursor = {};
    bytes = 0;
    end = nullptr;
    digests = {};
    digests_fetched = false;
    status = PEGA_OK;
    native_code = 0;
    return PEGA_OK;
}

void Batch::pin_regions(std::int64_t by) noexcept {
    pegaflow::backend::for_each_region(batch, [by](pega_region* region) {
        region->in_flight.fetch_add(static_cast<std::uint64_t>(by), std::memory_order_acq_rel);
    });
}

// Puts an event behind the group that has just been queued.
void Batch::mark() {
    if (batch.mark_every == 0 || batch.format == PEGA_FORMAT_FLAT || all_queued()) return;
    pega_device& device = *channel->device;
    Event event = device.take_event();
    if (event == nullptr) return;  // progress is told later, or with the end
    if (channel->copier.join(route) != kSuccess || device.driver->cuEventRecord(event, route.end) != kSuccess)
        return device.spare_events.push_back(event);
    marks.emplace_back(plan.groups[cursor.group - 1].spans_after, event);
}

void Batch::queue_steps(int limit) {
    const unsigned multiprocessors = channel->device->multiprocessors(plan);
    for (int step = 0; step < limit && !all_queued(); ++step) {
        const std::uint32_t group = cursor.group;
        const Result result = channel->copier.step(plan, route, multiprocessors, digests.device, cursor, bytes);
        if (result == kNotReady) return;
        if (result != kSuccess) {
            status = to_status(result);
            native_code = result;
            return;
        }
        if (cursor.group != group) mark();
    }
}

void Batch::begin_digests() {
    if (digest.sums != nullptr) digests = channel->copier.take_digests(plan, route);
}

void Batch::fetch_digests() {
    if (digests.device != 0) digests_fetched = channel->copier.fetch_digests(digests, route) == kSuccess;
}

void Batch::end_digests() {
    if (digests_fetched && status == PEGA_OK) {
        if (plan.keeps_order()) {
            std::copy_n(digests.host, digests.count, digest.sums);
        } else {
            for (std::uint64_t i = 0; i < digests.count; ++i) digest.sums[plan.origin(i)] = digests.host[i];
        }
        *digest.computed = 1;
    }
    channel->copier.give_digests(digests);
    digests = {};
}

}  // namespace cuda_backend
