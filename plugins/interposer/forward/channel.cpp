// SPDX-License-Identifier: Apache-2.0
// Submission: the hook's verdict on a batch, and the batch as the inner back end knows its regions and events.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "device.hpp"
#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/batch_check.hpp"

namespace interposer {
namespace {

// How often a close that waits for stuck batches looks at the clock.
constexpr auto kGlance = std::chrono::milliseconds(1);
// After which a stuck batch that found the inner queue full tries again.
constexpr std::uint64_t kAgain = 1'000'000;

pega_status open_channel(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_channel* inner = nullptr;
    const pega_status status = device->inner.channel->open(device->device, params, &inner);
    if (status != PEGA_OK) return status;
    auto channel = std::make_unique<pega_channel>(pega_channel{device, inner});
    *out = channel.get();
    const std::lock_guard lock(device->mutex);
    device->channels.emplace(*out, std::move(channel));
    return PEGA_OK;
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

// What a back end would find before it accepts the batch, as far as that is the same for all: a batch that stays here is judged
// here.
pega_status check(const pega_device& device, const pega_batch& batch) {
    if (batch.op != PEGA_OP_READ && batch.op != PEGA_OP_WRITE) return PEGA_INVALID;
    const auto offers = [&](const char* id) { return device.inner.backend->extension(device.device, id) != nullptr; };
    for (const pega_batch_option* o = batch.options; o != nullptr; o = o->next) {
        if ((o->flags & PEGA_OPTION_HINT) != 0) continue;
        if ((o->kind == PEGA_OPTION_STREAM && !offers(PEGA_EXT_STREAM)) ||
            (o->kind == PEGA_OPTION_NOTIFY && !offers(PEGA_EXT_NOTIFY)) ||
            (o->kind == PEGA_OPTION_DURABLE && !offers(PEGA_EXT_DURABLE))) {
            return PEGA_UNSUPPORTED;
        }
    }
    const auto usable = [&](const pega_region* local, const pega_region* remote) {
        if (local == nullptr || remote == nullptr || local->device != &device || remote->device != &device) return false;
        return !(batch.op == PEGA_OP_READ ? local : remote)->read_only;
    };
    const auto length_of = [](pega_region* region) {
        pega_region_info info{};
        info.size = sizeof info;
        region_info(region, &info);
        return info.length;
    };
    return pegaflow::backend::check_batch(batch, usable, length_of);
}

pega_completion dropped(const Pending& pending) {
    pega_completion record = terminal(pending, PEGA_OK, 0);
    record.bytes = bytes_of(pending.batch);
    record.landed_spans = pending.batch.format == PEGA_FORMAT_SPANS ? pending.batch.span_count : 0;
    return record;
}

// Accepts a batch that the inner back end does not see, or not yet.
pega_status keep(pega_device& device, std::unique_ptr<Pending> owned) {
    {
        const std::lock_guard lock(device.mutex);
        Pending& pending = *owned;
        if (pending.channel->closed) return PEGA_CANCELED;
        const Verdict& verdict = pending.verdict;
        device.pending[pending.batch.user_data] = std::move(owned);
        if (verdict.fail != 0) hold(device, pending, terminal(pending, verdict.fail, 0));
        if (verdict.drop) hold(device, pending, dropped(pending));
        if (verdict.stuck_ns != 0) {
            pending.begin_ns = pending.submitted_ns + verdict.stuck_ns;
            pending.inner.deadline_ns = 0;  // hardware that is stuck knows none
        }
    }
    device.wake();
    return PEGA_OK;
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
    const Verdict& verdict = pending.verdict;
    if (verdict.hang || verdict.drop || verdict.fail != 0 || verdict.stuck_ns != 0) {
        const pega_status sound = check(device, pending.batch);
        if (sound != PEGA_OK) return sound;
        pending.inner = translate(pending);
        return keep(device, std::move(owned));
    }
    const pega_batch inner = translate(pending);
    {
        const std::lock_guard lock(device.mutex);
        if (channel->closed) return PEGA_CANCELED;
        device.pending[batch->user_data] = std::move(owned);
    }
    const std::lock_guard turn(device.submitting);
    const pega_status status = device.inner.channel->submit(channel->inner, &inner);
    if (status != PEGA_OK) {
        const std::lock_guard lock(device.mutex);
        device.pending.erase(batch->user_data);
    }
    return status;
}

// The mutex is held.
bool is_stuck(const pega_device& device, const pega_channel* channel) {
    return std::any_of(device.pending.begin(), device.pending.end(),
                       [channel](const auto& p) { return p.second->channel == channel && p.second->stuck(); });
}

pega_status close_channel(pega_channel* channel, std::uint64_t deadline_ns) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    {
        std::unique_lock lock(device.mutex);
        channel->closed = true;
        end_hanging(device, channel, nullptr, ECANCELED);
        while (is_stuck(device, channel)) {
            if (device.now() >= deadline_ns) return PEGA_PENDING;
            lock.unlock();
            begin_stuck(device);
            lock.lock();
            device.begun.wait_for(lock, kGlance, [&] { return !is_stuck(device, channel); });
        }
    }
    device.wake();
    const pega_status status = device.inner.channel->close(channel->inner, deadline_ns);
    if (status != PEGA_OK) return status;
    const std::lock_guard lock(device.mutex);
    device.channels.erase(channel);
    return PEGA_OK;
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
        hold(device, *pending, terminal(*pending, PEGA_CANCELED, native));
        ++ended;
    }
    return ended;
}

void begin_stuck(pega_device& device) {
    for (;;) {
        Pending* next = nullptr;
        std::uint64_t user_data = 0;
        {
            const std::lock_guard lock(device.mutex);
            for (const auto& [id, pending] : device.pending) {
                if (pending->begin_ns == 0 || pending->begin_ns > device.now()) continue;
                next = pending.get();
                next->begin_ns = 0;
                next->beginning = true;
                user_data = id;
                break;
            }
        }
        if (next == nullptr) return;
        const std::lock_guard turn(device.submitting);
        const pega_status status = device.inner.channel->submit(next->channel->inner, &next->inner);
        const std::lock_guard lock(device.mutex);
        device.begun.notify_all();
        const auto begun = device.pending.find(user_data);
        if (begun == device.pending.end()) continue;  // another thread has polled its end already
        begun->second->beginning = false;
        if (status == PEGA_OK) continue;
        if (status != PEGA_QUEUE_FULL) {
            hold(device, *next, terminal(*next, status, 0));
            continue;
        }
        next->begin_ns = device.now() + kAgain;
        return;
    }
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
        const auto asked = device.pending.find(user_data);
        if (asked != device.pending.end() && asked->second->channel == channel && asked->second->stuck()) return PEGA_OK;
    }
    const auto* table = static_cast<const pega_ext_cancel*>(device.inner.backend->extension(device.device, PEGA_EXT_CANCEL));
    return table == nullptr ? PEGA_UNSUPPORTED : table->cancel(channel->inner, user_data);
}

const pega_channel_table kChannelTable = {sizeof(pega_channel_table), 0, &open_channel, &state, &submit, &close_channel};

}  // namespace interposer
