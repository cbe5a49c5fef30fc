// SPDX-License-Identifier: Apache-2.0
// Submission: the hook's verdict on a batch, and the batch as the inner back end knows its regions and events.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "device.hpp"
#include "pegaflow/abi/ext/cancel.h"

namespace interposer {
namespace {

pega_status open_channel(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_channel* inner = nullptr;
    const pega_status status = device->inner.channel->open(device->device, params, &inner);
    if (status == PEGA_OK) *out = new pega_channel{device, inner};
    return status;
}

pega_status state(pega_channel* channel) { return channel->device->inner.channel->state(channel->inner); }

pega_region* inner_of(pega_region* region) { return region == nullptr ? nullptr : region->inner; }
pega_event* inner_of(pega_event* event) { return event == nullptr ? nullptr : event->inner; }

// Puts a copy of the caller's option of this kind, when there is one, in front of the inner batch's chain.
template <class Option>
Option* take_option(const pega_batch& from, std::uint32_t kind, Option& copy, pega_batch& to) {
    const pega_batch_option* option = pegaflow::backend::find_option(from, kind);
    if (option == nullptr) return nullptr;
    const std::size_t known = std::min<std::size_t>(option->size, sizeof copy);
    copy = {};
    std::memcpy(&copy, option, known);
    copy.base.size = static_cast<std::uint32_t>(known);
    copy.base.next = to.options;
    to.options = &copy.base;
    return &copy;
}

// An option of another kind may hold handles, which only its reader could unwrap: a hint is left out, others are refused.
bool knows_options(const pega_batch& batch) {
    for (const pega_batch_option* o = batch.options; o != nullptr; o = o->next) {
        if ((o->flags & PEGA_OPTION_HINT) == 0 && o->kind != PEGA_OPTION_STREAM && o->kind != PEGA_OPTION_NOTIFY &&
            o->kind != PEGA_OPTION_DURABLE)
            return false;
    }
    return true;
}

// The caller's spans with inner regions. What they have beyond the pega_span of this layer stays behind, and `span_size` says
// so.
void take_spans(const pega_batch& from, std::vector<pega_span>& copies, pega_batch& to) {
    const std::size_t known = std::min<std::size_t>(from.span_size, sizeof(pega_span));
    copies.resize(from.span_count);
    to.spans = copies.data();
    to.span_size = static_cast<std::uint32_t>(known);
    auto* bytes = reinterpret_cast<unsigned char*>(copies.data());
    for (std::uint64_t i = 0; i < from.span_count; ++i, bytes += known) {
        std::memcpy(bytes, &pegaflow::backend::span_at(from, i), known);
        auto& span = *reinterpret_cast<pega_span*>(bytes);
        span.local_region = inner_of(span.local_region);
        span.remote_region = inner_of(span.remote_region);
    }
}

// The batch with inner regions and events.
pega_batch translate(Pending& pending) {
    const pega_batch& from = pending.batch;
    pega_batch to = from;
    if (from.format == PEGA_FORMAT_FLAT) {
        to.local_region = inner_of(from.local_region);
        to.remote_region = inner_of(from.remote_region);
    } else if (from.spans != nullptr && from.span_size >= pegaflow::backend::kFirstSize<pega_span>) {
        take_spans(from, pending.spans, to);
    }
    to.options = nullptr;
    take_option(from, PEGA_OPTION_DIGEST, pending.digest, to);
    take_option(from, PEGA_OPTION_DURABLE, pending.durable, to);
    take_option(from, PEGA_OPTION_NOTIFY, pending.notify, to);
    if (pega_stream_option* stream = take_option(from, PEGA_OPTION_STREAM, pending.stream, to)) {
        stream->wait = inner_of(stream->wait);
        stream->record = inner_of(stream->record);
    }
    return to;
}

std::uint64_t bytes_of(const pega_batch& batch) {
    std::uint64_t bytes = 0;
    for (std::uint64_t i = 0; batch.format == PEGA_FORMAT_FLAT && i < batch.flat_count; ++i) bytes += batch.lengths[i];
    for (std::uint64_t i = 0; batch.format == PEGA_FORMAT_SPANS && i < batch.span_count; ++i) {
        const pega_span& span = pegaflow::backend::span_at(batch, i);
        bytes += span.page_bytes * span.segments * batch.index_count;
    }
    return bytes;
}

pega_completion dropped(const Pending& pending) {
    pega_completion record = terminal(pending, PEGA_OK, 0);
    record.bytes = bytes_of(pending.batch);
    record.landed_spans = pending.batch.format == PEGA_FORMAT_SPANS ? pending.batch.span_count : 0;
    return record;
}

pega_status submit(pega_channel* channel, const pega_batch* batch) {
    if (channel == nullptr || batch == nullptr || !pegaflow::backend::whole(*batch)) return PEGA_INVALID;
    if (!knows_options(*batch)) return PEGA_UNSUPPORTED;
    pega_device& device = *channel->device;
    auto owned = std::make_unique<Pending>();
    Pending& pending = *owned;
    pending.channel = channel;
    pending.batch = pegaflow::backend::copy_in(*batch);
    pending.submitted_ns = device.now();
    pending.verdict = device.hooks->decide(*batch);
    const pega_batch inner = translate(pending);
    const Verdict verdict = pending.verdict;
    {
        const std::lock_guard lock(device.mutex);
        device.pending[batch->user_data] = std::move(owned);
        if (verdict.fail != 0) device.held.push_back({terminal(pending, verdict.fail, 0), 0, false});
        if (verdict.drop) device.held.push_back({dropped(pending), 0, false});
    }
    if (verdict.hang || verdict.drop || verdict.fail != 0) {
        device.wake();
        return PEGA_OK;
    }
    const pega_status status = device.inner.channel->submit(channel->inner, &inner);
    if (status != PEGA_OK) {
        const std::lock_guard lock(device.mutex);
        device.pending.erase(batch->user_data);
    }
    return status;
}

pega_status close_channel(pega_channel* channel, std::uint64_t deadline_ns) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    {
        const std::lock_guard lock(device.mutex);
        end_hanging(device, channel, nullptr, ECANCELED);
    }
    device.wake();
    const pega_status status = device.inner.channel->close(channel->inner, deadline_ns);
    if (status == PEGA_OK) delete channel;
    return status;
}

}  // namespace

pega_completion terminal(const Pending& pending, std::int32_t status, std::int32_t native) {
    pega_completion record{};
    record.size = sizeof record;
    record.flags = PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED;
    record.user_data = pending.batch.user_data;
    record.status = status;
    record.native_code = native;
    record.first_bad = PEGA_NO_BAD;
    return record;
}

std::size_t end_hanging(pega_device& device, const pega_channel* channel, const std::uint64_t* user_data, std::int32_t native) {
    std::size_t ended = 0;
    for (const auto& [id, pending] : device.pending) {
        if (!pending->verdict.hang || pending->channel != channel || (user_data != nullptr && id != *user_data)) continue;
        pending->verdict.hang = false;
        device.held.push_back({terminal(*pending, PEGA_CANCELED, native), 0, false});
        ++ended;
    }
    return ended;
}

pega_status cancel(pega_channel* channel, std::uint64_t user_data) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    {
        const std::lock_guard lock(device.mutex);
        if (end_hanging(device, channel, &user_data, ECANCELED) != 0) {
            device.wake();
            return PEGA_OK;
        }
    }
    const auto* table = static_cast<const pega_ext_cancel*>(device.inner.backend->extension(device.device, PEGA_EXT_CANCEL));
    return table == nullptr ? PEGA_UNSUPPORTED : table->cancel(channel->inner, user_data);
}

const pega_channel_table kChannelTable = {sizeof(pega_channel_table), 0, &open_channel, &state, &submit, &close_channel};

}  // namespace interposer
