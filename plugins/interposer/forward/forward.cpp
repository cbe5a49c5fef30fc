// SPDX-License-Identifier: Apache-2.0
#include "forward.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "pegaflow/abi/ext/cancel.h"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"

struct pega_region {
    pega_device* device;
    pega_region* inner;
};

struct pega_event {
    pega_device* device;
    pega_event* inner;
};

struct pega_channel {
    pega_device* device;
    pega_channel* inner;
};

namespace interposer {
namespace {

struct InnerTables {
    const pega_backend_table* backend = nullptr;
    const pega_region_table* region = nullptr;
    const pega_channel_table* channel = nullptr;
    const pega_completion_table* completion = nullptr;
};

// A batch under way: what the inner back end was given must stay until its end.
struct Pending {
    pega_channel* channel = nullptr;
    pega_batch batch{};  // as the caller gave it
    std::vector<pega_span> spans;
    Verdict verdict;
    std::uint64_t submitted_ns = 0;
    bool in_hardware = false;
};

struct Held {
    pega_completion record;
    std::uint64_t due_ns;
    bool until_next;
};

}  // namespace
}  // namespace interposer

struct pega_device {
    const pega_host* host = nullptr;
    interposer::InnerTables inner;
    pega_device* device = nullptr;
    std::unique_ptr<interposer::Hooks> hooks;
    int epoll_fd = -1;
    int event_fd = -1;

    std::mutex mutex;
    std::map<std::uint64_t, std::unique_ptr<interposer::Pending>> pending;  // by user_data; guarded by mutex
    std::deque<interposer::Held> held;                                      // guarded by mutex

    ~pega_device() {
        if (epoll_fd >= 0) ::close(epoll_fd);
        if (event_fd >= 0) ::close(event_fd);
    }
    std::uint64_t now() const { return host->now_ns(host->context); }
    void wake() const {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(event_fd, &one, sizeof one);
    }
};

namespace interposer {
namespace {

InnerTables find_inner(const pega_host* host, const pega_option* options, std::uint32_t count,
                       std::vector<pega_option>& inner_options, std::string& why) {
    InnerTables out;
    const char* name = pegaflow::backend::option(options, count, "inner", nullptr);
    const auto* modules = static_cast<const pega_host_modules*>(host->extension(host->context, PEGA_HOST_MODULES));
    if (name == nullptr || modules == nullptr) {
        why = name == nullptr ? "needs the option inner=<back end>" : "needs a host that finds other modules";
        return out;
    }
    const pega_entry* entry = modules->find(host->context, name);
    if (entry == nullptr) {
        why = std::string("there is no back end ") + name;
        return out;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
        if (std::strncmp(options[i].key, "inner.", 6) == 0) inner_options.push_back({options[i].key + 6, options[i].value});
    }
    out.backend = static_cast<const pega_backend_table*>(entry->get(PEGA_BACKEND_TABLE));
    out.region = static_cast<const pega_region_table*>(entry->get(PEGA_REGION_TABLE));
    out.channel = static_cast<const pega_channel_table*>(entry->get(PEGA_CHANNEL_TABLE));
    out.completion = static_cast<const pega_completion_table*>(entry->get(PEGA_COMPLETION_TABLE));
    if (out.backend == nullptr || out.region == nullptr || out.channel == nullptr || out.completion == nullptr) {
        why = std::string(name) + " is no back end";
        out.backend = nullptr;
    }
    return out;
}

// Back end table.

pega_status probe(const pega_host* host, const pega_option* options, std::uint32_t count, pega_device_info* infos,
                  std::uint32_t capacity, std::uint32_t* found, char* reason, std::uint64_t reason_capacity) {
    std::vector<pega_option> inner_options;
    std::string why;
    const InnerTables inner = find_inner(host, options, count, inner_options, why);
    if (inner.backend == nullptr) {
        if (reason != nullptr && reason_capacity > 0) {
            std::strncpy(reason, why.c_str(), reason_capacity - 1);
            reason[reason_capacity - 1] = '\0';
        }
        return PEGA_UNSUPPORTED;
    }
    return inner.backend->probe(host, inner_options.data(), static_cast<std::uint32_t>(inner_options.size()), infos, capacity,
                                found, reason, reason_capacity);
}

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    std::vector<pega_option> inner_options;
    std::string why;
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->inner = find_inner(host, params->options, params->option_count, inner_options, why);
    if (device->inner.backend == nullptr) return PEGA_UNSUPPORTED;
    device->hooks = make_hooks(host, params->options, params->option_count);
    if (!device->hooks) return PEGA_INVALID;
    pega_open_params inner = *params;
    inner.options = inner_options.data();
    inner.option_count = static_cast<std::uint32_t>(inner_options.size());
    const pega_status status = device->inner.backend->open(host, &inner, &device->device);
    if (status != PEGA_OK) return status;
    device->event_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    device->epoll_fd = ::epoll_create1(EPOLL_CLOEXEC);
    for (const int fd : {device->event_fd, device->inner.completion->wait_fd(device->device)}) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (::epoll_ctl(device->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            device->inner.backend->close(device->device);
            return PEGA_NO_MEMORY;
        }
    }
    *out = device.release();
    return PEGA_OK;
}

void close_device(pega_device* device) {
    if (device == nullptr) return;
    device->inner.backend->close(device->device);
    delete device;
}

pega_status capabilities(pega_device* device, pega_capabilities* out) {
    return device == nullptr ? PEGA_INVALID : device->inner.backend->capabilities(device->device, out);
}

pega_status address(pega_device* device, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    return device == nullptr ? PEGA_INVALID : device->inner.backend->address(device->device, bytes, capacity, length);
}

const char* error_text(std::int32_t code) { return ::strerrordesc_np(code) != nullptr ? ::strerrordesc_np(code) : ""; }

// Region table.

pega_status wrap_region(pega_device* device, pega_status status, pega_region* inner, pega_region** out) {
    if (status == PEGA_OK) *out = new pega_region{device, inner};
    return status;
}

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region* inner = nullptr;
    const pega_status status = device->inner.region->register_memory(device->device, memory, &inner);
    return wrap_region(device, status, inner, out);
}

pega_status unregister(pega_region* region) {
    if (region == nullptr) return PEGA_INVALID;
    {
        // What this layer holds back still belongs to its regions.
        const std::lock_guard lock(region->device->mutex);
        for (const auto& [id, pending] : region->device->pending) {
            const pega_batch& b = pending->batch;
            bool used = b.format == PEGA_FORMAT_FLAT && (b.local_region == region || b.remote_region == region);
            for (std::uint64_t i = 0; b.format == PEGA_FORMAT_SPANS && i < b.span_count; ++i) {
                const pega_span& s = pegaflow::backend::span_at(b, i);
                used = used || s.local_region == region || s.remote_region == region;
            }
            if (used) return PEGA_INVALID;
        }
    }
    const pega_status status = region->device->inner.region->unregister(region->inner);
    if (status == PEGA_OK) delete region;
    return status;
}

pega_status info(pega_region* region, pega_region_info* out) {
    return region == nullptr ? PEGA_INVALID : region->device->inner.region->info(region->inner, out);
}

pega_status export_descriptor(pega_region* region, void* bytes, std::uint64_t capacity, std::uint64_t* length) {
    return region == nullptr ? PEGA_INVALID
                             : region->device->inner.region->export_descriptor(region->inner, bytes, capacity, length);
}

pega_status import_descriptor(pega_device* device, const void* bytes, std::uint64_t length, pega_region** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region* inner = nullptr;
    const pega_status status = device->inner.region->import_descriptor(device->device, bytes, length, &inner);
    return wrap_region(device, status, inner, out);
}

// Channel table.

pega_status open_channel(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_channel* inner = nullptr;
    const pega_status status = device->inner.channel->open(device->device, params, &inner);
    if (status == PEGA_OK) *out = new pega_channel{device, inner};
    return status;
}

pega_status state(pega_channel* channel) { return channel->device->inner.channel->state(channel->inner); }

pega_region* inner_of(pega_region* region) { return region == nullptr ? nullptr : region->inner; }

// Options and regions as the inner back end knows them; `storage` keeps what the batch points at.
struct Translated {
    pega_batch batch;
    pega_stream_option stream;
};

void translate(const pega_batch& from, Pending& pending, Translated& out) {
    out.batch = from;
    if (from.format == PEGA_FORMAT_FLAT) {
        out.batch.local_region = inner_of(from.local_region);
        out.batch.remote_region = inner_of(from.remote_region);
    } else if (from.spans != nullptr && from.span_size >= sizeof(pega_span)) {
        pending.spans.resize(from.span_count);
        for (std::uint64_t i = 0; i < from.span_count; ++i) {
            pending.spans[i] = pegaflow::backend::span_at(from, i);
            pending.spans[i].local_region = inner_of(pending.spans[i].local_region);
            pending.spans[i].remote_region = inner_of(pending.spans[i].remote_region);
        }
        out.batch.spans = pending.spans.data();
        out.batch.span_size = sizeof(pega_span);
    }
    const auto* stream = reinterpret_cast<const pega_stream_option*>(pegaflow::backend::find_option(from, PEGA_OPTION_STREAM));
    if (stream == nullptr) return;
    // The chain is rebuilt with the inner events in front; the original stream option is left out by being first.
    out.stream = *stream;
    out.stream.wait = stream->wait == nullptr ? nullptr : stream->wait->inner;
    out.stream.record = stream->record == nullptr ? nullptr : stream->record->inner;
    out.stream.base.next = from.options == &stream->base ? stream->base.next : from.options;
    if (from.options != &stream->base) {
        // The option stands behind another one, of which there is only the notification: put ours behind a copy of it.
        out.stream.base.next = stream->base.next;
    }
    out.batch.options = &out.stream.base;
}

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

pega_status submit(pega_channel* channel, const pega_batch* batch) {
    if (channel == nullptr || batch == nullptr || batch->size < sizeof(pega_batch)) return PEGA_INVALID;
    pega_device& device = *channel->device;
    auto pending = std::make_unique<Pending>();
    Translated inner;
    translate(*batch, *pending, inner);
    pega_notify_option notify{};
    const auto* told = reinterpret_cast<const pega_notify_option*>(pegaflow::backend::find_option(*batch, PEGA_OPTION_NOTIFY));
    if (told != nullptr && inner.batch.options == &inner.stream.base) {
        notify = *told;
        notify.base.next = nullptr;
        inner.stream.base.next = &notify.base;
    }
    pega_durable_option durable{};
    const auto* asked = pegaflow::backend::find_option(*batch, PEGA_OPTION_DURABLE);
    if (asked != nullptr && inner.batch.options == &inner.stream.base) {
        durable.base = *asked;
        durable.base.next = inner.batch.options;
        inner.batch.options = &durable.base;
    }
    pending->channel = channel;
    pending->batch = *batch;
    pending->submitted_ns = device.now();
    pending->verdict = device.hooks->decide(*batch);
    pending->in_hardware = !pending->verdict.hang && pending->verdict.fail == 0;
    const Verdict verdict = pending->verdict;
    Pending& kept = *pending;
    {
        const std::lock_guard lock(device.mutex);
        device.pending[batch->user_data] = std::move(pending);
        if (verdict.fail != 0) device.held.push_back({terminal(kept, verdict.fail, 0), 0, false});
    }
    if (verdict.hang || verdict.fail != 0) {
        device.wake();
        return PEGA_OK;
    }
    const pega_status status = device.inner.channel->submit(channel->inner, &inner.batch);
    if (status != PEGA_OK) {
        const std::lock_guard lock(device.mutex);
        device.pending.erase(batch->user_data);
    }
    return status;
}

// Ends the batches that hang on a channel, or the one with this user_data. The mutex is held. Returns how many.
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

// Completion table.

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
    info(region, &where);
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

// Extensions.

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

constexpr pega_ext_durable kDurable = {sizeof(pega_ext_durable), 0, &flush, &discard};
constexpr pega_ext_cancel kCancel = {sizeof(pega_ext_cancel), 0, &cancel};
constexpr pega_ext_notify kNotify = {sizeof(pega_ext_notify), 0, &notify_count, &notify_consume};
constexpr pega_ext_stream kStream = {
    sizeof(pega_ext_stream), 0, &event_create, &event_wrap, &event_export, &event_import, &event_signal, &event_query,
    &event_destroy};

const void* extension(pega_device* device, const char* id) {
    if (device->inner.backend->extension(device->device, id) == nullptr) return nullptr;
    if (std::strcmp(id, PEGA_EXT_CANCEL) == 0) return &kCancel;
    if (std::strcmp(id, PEGA_EXT_NOTIFY) == 0) return &kNotify;
    if (std::strcmp(id, PEGA_EXT_STREAM) == 0) return &kStream;
    if (std::strcmp(id, PEGA_EXT_DURABLE) == 0) return &kDurable;
    return nullptr;
}

constexpr pega_backend_table kBackend = {
    sizeof(pega_backend_table), 0, &probe, &open_device, &close_device, &capabilities, &address, &extension, &error_text};
constexpr pega_region_table kRegion = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                       &import_descriptor};
constexpr pega_channel_table kChannel = {sizeof(pega_channel_table), 0, &open_channel, &state, &submit, &close_channel};
constexpr pega_completion_table kCompletion = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

}  // namespace

const void* table(const char* id) {
    if (std::strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kBackend;
    if (std::strcmp(id, PEGA_REGION_TABLE) == 0) return &kRegion;
    if (std::strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kChannel;
    if (std::strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kCompletion;
    return nullptr;
}

}  // namespace interposer

const pega_entry pegaflow_entry = {sizeof(pega_entry), PEGA_ABI_MAJOR, PEGA_ABI_MINOR,
                                   interposer::kName,  "1.0",          &interposer::table};
