// SPDX-License-Identifier: Apache-2.0
// template.cpp - the smallest honest back end: host memory, copied inside poll. Copy this file to begin one of your own.
//
// What to change: probe (your devices), register_memory (your memory), run (how bytes move), capabilities (say what is true).
// What to keep: the checks in accept, exactly one terminal completion for each accepted batch, and no access to memory after
// it.
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "pegaflow/backend.hpp"

using pegaflow::backend::copy_in;
using pegaflow::backend::in_range;
using pegaflow::backend::kFirstSize;
using pegaflow::backend::side_in_range;
using pegaflow::backend::span_at;
using pegaflow::backend::whole;

struct pega_region {
    pega_device* device;
    std::uint8_t* base;
    std::uint64_t length;
    bool owned;
    bool read_only;
    std::atomic<std::uint64_t> in_flight{0};
};

struct pega_channel {
    pega_device* device;
    std::uint32_t depth;
    std::uint32_t in_flight = 0;  // guarded by the device's mutex
};

namespace {

struct Batch {
    pega_channel* channel;
    pega_batch batch;
};

}  // namespace

struct pega_device {
    const pega_host* host;
    int event_fd;
    std::mutex mutex;
    std::deque<Batch> queue;                // accepted, not yet copied; guarded by mutex
    std::deque<pega_completion> completed;  // guarded by mutex
    std::set<pega_channel*> channels;       // open; guarded by mutex
    std::set<pega_region*> regions;         // registered; guarded by mutex
};

namespace {

constexpr std::uint32_t kDefaultDepth = 64;

// Calls visit(local region, local offset, remote region, remote offset, length) for each page; stops when it returns false.
template <class Visit>
bool each_page(const pega_batch& b, Visit visit) {
    if (b.format == PEGA_FORMAT_FLAT) {
        for (std::uint64_t i = 0; i < b.flat_count; ++i) {
            if (!visit(b.local_region, b.local_offsets[i], b.remote_region, b.remote_offsets[i], b.lengths[i])) return false;
        }
        return true;
    }
    for (std::uint64_t s = 0; s < b.span_count; ++s) {
        const pega_span& span = span_at(b, s);
        for (std::uint64_t i = 0; i < b.index_count; ++i) {
            for (std::uint64_t k = 0; k < span.segments; ++k) {
                if (!visit(span.local_region,
                           span.local_base + b.local_index[i] * span.local_stride + k * span.local_segment_stride,
                           span.remote_region,
                           span.remote_base + b.remote_index[i] * span.remote_stride + k * span.remote_segment_stride,
                           span.page_bytes)) {
                    return false;
                }
            }
        }
    }
    return true;
}

bool usable(const pega_region* region, const pega_device* device, bool written) {
    return region != nullptr && region->device == device && !(written && region->read_only);
}

// The whole batch is sound, or nothing of it starts.
pega_status check(const pega_device* device, const pega_batch& b) {
    if (!whole(b) || (b.op != PEGA_OP_READ && b.op != PEGA_OP_WRITE)) return PEGA_INVALID;
    for (const pega_batch_option* o = b.options; o != nullptr; o = o->next) {
        if ((o->flags & PEGA_OPTION_HINT) == 0) return PEGA_UNSUPPORTED;
    }
    const bool reads = b.op == PEGA_OP_READ;
    if (b.format == PEGA_FORMAT_FLAT) {
        if (!usable(b.local_region, device, reads) || !usable(b.remote_region, device, !reads)) return PEGA_INVALID;
        if (b.flat_count != 0 && (b.local_offsets == nullptr || b.remote_offsets == nullptr || b.lengths == nullptr))
            return PEGA_INVALID;
        for (std::uint64_t i = 0; i < b.flat_count; ++i) {
            if (!in_range(b.local_offsets[i], b.lengths[i], b.local_region->length)) return PEGA_INVALID;
            if (!in_range(b.remote_offsets[i], b.lengths[i], b.remote_region->length)) return PEGA_INVALID;
        }
        return PEGA_OK;
    }
    if (b.format != PEGA_FORMAT_SPANS) return PEGA_INVALID;
    if (b.span_count != 0 && (b.spans == nullptr || b.span_size < kFirstSize<pega_span>)) return PEGA_INVALID;
    if (b.index_count != 0 && (b.local_index == nullptr || b.remote_index == nullptr)) return PEGA_INVALID;
    std::uint64_t max_local = 0;
    std::uint64_t max_remote = 0;
    for (std::uint64_t i = 0; i < b.index_count; ++i) {
        max_local = std::max(max_local, b.local_index[i]);
        max_remote = std::max(max_remote, b.remote_index[i]);
    }
    for (std::uint64_t i = 0; i < b.span_count; ++i) {
        const pega_span& s = span_at(b, i);
        if (!usable(s.local_region, device, reads) || !usable(s.remote_region, device, !reads) || s.segments == 0)
            return PEGA_INVALID;
        if (b.index_count == 0) continue;
        if (!side_in_range({s.local_base, s.local_stride, s.local_segment_stride}, max_local, s.segments, s.page_bytes,
                           s.local_region->length))
            return PEGA_INVALID;
        if (!side_in_range({s.remote_base, s.remote_stride, s.remote_segment_stride}, max_remote, s.segments, s.page_bytes,
                           s.remote_region->length))
            return PEGA_INVALID;
    }
    return PEGA_OK;
}

void pin(const pega_batch& b, std::uint64_t by) {
    const auto change = [by](pega_region* region) { region->in_flight.fetch_add(by); };
    if (b.format == PEGA_FORMAT_FLAT) {
        change(b.local_region);
        change(b.remote_region);
        return;
    }
    for (std::uint64_t i = 0; i < b.span_count; ++i) {
        change(span_at(b, i).local_region);
        change(span_at(b, i).remote_region);
    }
}

// Copies a batch and reports its end. The mutex is held: this back end does one thing at a time.
void run(pega_device& device, const Batch& work, bool canceled) {
    const pega_batch& b = work.batch;
    pega_completion record{};
    record.size = sizeof record;
    record.flags = PEGA_COMPLETION_TERMINAL | PEGA_COMPLETION_QUIESCED;
    record.user_data = b.user_data;
    record.first_bad = PEGA_NO_BAD;
    const bool late = b.deadline_ns != 0 && device.host->now_ns(device.host->context) >= b.deadline_ns;
    if (canceled || late) {
        record.status = PEGA_CANCELED;
        record.native_code = late ? ETIMEDOUT : ECANCELED;
    } else {
        each_page(b, [&](pega_region* local, std::uint64_t at_local, pega_region* remote, std::uint64_t at_remote,
                         std::uint64_t length) {
            std::uint8_t* here = local->base + at_local;
            std::uint8_t* there = remote->base + at_remote;
            std::memmove(b.op == PEGA_OP_READ ? here : there, b.op == PEGA_OP_READ ? there : here, length);
            record.bytes += length;
            return true;
        });
        record.landed_spans = b.format == PEGA_FORMAT_SPANS ? b.span_count : 1;
    }
    pin(b, static_cast<std::uint64_t>(-1));
    --work.channel->in_flight;
    device.completed.push_back(record);
}

void wake(const pega_device& device) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(device.event_fd, &one, sizeof one);
}

// Back end table.

pega_status probe(const pega_host*, const pega_option*, std::uint32_t, pega_device_info* infos, std::uint32_t capacity,
                  std::uint32_t* count, char*, std::uint64_t) {
    if (count == nullptr) return PEGA_INVALID;
    *count = 1;
    if (infos == nullptr || capacity == 0) return PEGA_OK;
    pega_device_info info{};
    info.size = infos->size;
    info.numa_node = PEGA_NUMA_ANY;
    info.kind = PEGA_MEMORY_FILE;  // so that nobody takes the template for the host's memory; see register_memory
    std::snprintf(info.text, sizeof info.text, "a template to copy; moves host memory inside poll");
    pegaflow::backend::copy_out(infos, info);
    return PEGA_OK;
}

pega_status open_device(const pega_host* host, const pega_open_params* params, pega_device** out) {
    if (host == nullptr || params == nullptr || out == nullptr || params->index != 0) return PEGA_INVALID;
    const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return PEGA_NO_MEMORY;
    auto device = std::make_unique<pega_device>();
    device->host = host;
    device->event_fd = fd;
    *out = device.release();
    return PEGA_OK;
}

void free_region(pega_region* region) {
    if (region->owned) ::munmap(region->base, region->length);
    delete region;
}

void close_device(pega_device* device) {
    if (device == nullptr) return;
    // Nothing is copied outside poll: what is still queued never begins, and what is still open goes with the device.
    for (pega_channel* channel : device->channels) delete channel;
    for (pega_region* region : device->regions) free_region(region);
    ::close(device->event_fd);
    delete device;
}

pega_status capabilities(pega_device* device, pega_capabilities* out) {
    if (device == nullptr || out == nullptr) return PEGA_INVALID;
    pega_capabilities c{};
    c.size = out->size;
    c.flags = PEGA_CAP_READ | PEGA_CAP_WRITE;
    c.matrix[PEGA_MEMORY_FILE] = 1U << PEGA_MEMORY_HOST;
    c.source_mask = (1U << PEGA_SOURCE_ADDRESS) | (1U << PEGA_SOURCE_ALLOCATE);
    c.alignment = 1;
    c.max_batches = kDefaultDepth;
    for (pega_cost& cost : c.cost) cost = {2'000, 30, 5'000'000'000, 2048, 1, 0};
    pegaflow::backend::copy_out(out, c);
    return PEGA_OK;
}

pega_status address(pega_device*, void*, std::uint64_t, std::uint64_t*) { return PEGA_UNSUPPORTED; }
const void* extension(pega_device*, const char*) { return nullptr; }
const char* error_text(std::int32_t code) { return ::strerrordesc_np(code) != nullptr ? ::strerrordesc_np(code) : ""; }

// Region table.

pega_status register_memory(pega_device* device, const pega_memory* memory, pega_region** out) {
    if (device == nullptr || memory == nullptr || out == nullptr || !whole(*memory) || memory->length == 0) return PEGA_INVALID;
    if (memory->kind != PEGA_MEMORY_HOST && memory->kind != PEGA_MEMORY_FILE) return PEGA_UNSUPPORTED;
    void* base = memory->address;
    const bool owned = memory->source == PEGA_SOURCE_ALLOCATE;
    if (owned) {
        base = ::mmap(nullptr, memory->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED) return PEGA_NO_MEMORY;
    } else if (memory->source != PEGA_SOURCE_ADDRESS) {
        return PEGA_UNSUPPORTED;
    }
    if (base == nullptr) return PEGA_INVALID;
    *out = new pega_region{
        device, static_cast<std::uint8_t*>(base), memory->length, owned, (memory->flags & PEGA_REGION_READ_ONLY) != 0, {}};
    const std::lock_guard lock(device->mutex);
    device->regions.insert(*out);
    return PEGA_OK;
}

pega_status unregister(pega_region* region) {
    if (region == nullptr) return PEGA_INVALID;
    {
        const std::lock_guard lock(region->device->mutex);
        if (region->in_flight.load() != 0) return PEGA_INVALID;
        region->device->regions.erase(region);
    }
    free_region(region);
    return PEGA_OK;
}

pega_status info(pega_region* region, pega_region_info* out) {
    if (region == nullptr || out == nullptr) return PEGA_INVALID;
    pega_region_info i{};
    i.size = out->size;
    i.kind = PEGA_MEMORY_HOST;
    i.length = region->length;
    i.address = region->base;
    pegaflow::backend::copy_out(out, i);
    return PEGA_OK;
}

pega_status export_descriptor(pega_region*, void*, std::uint64_t, std::uint64_t*) { return PEGA_UNSUPPORTED; }
pega_status import_descriptor(pega_device*, const void*, std::uint64_t, pega_region**) { return PEGA_UNSUPPORTED; }

// Channel table.

pega_status open_channel(pega_device* device, const pega_channel_params* params, pega_channel** out) {
    if (device == nullptr || params == nullptr || out == nullptr) return PEGA_INVALID;
    if (params->address != nullptr) return PEGA_UNSUPPORTED;
    *out = new pega_channel{device, params->queue_depth != 0 ? params->queue_depth : kDefaultDepth};
    const std::lock_guard lock(device->mutex);
    device->channels.insert(*out);
    return PEGA_OK;
}

pega_status state(pega_channel*) { return PEGA_OK; }

pega_status submit(pega_channel* channel, const pega_batch* batch) {
    if (channel == nullptr || batch == nullptr) return PEGA_INVALID;
    const pega_status status = check(channel->device, *batch);
    if (status != PEGA_OK) return status;
    {
        const std::lock_guard lock(channel->device->mutex);
        if (channel->in_flight >= channel->depth) return PEGA_QUEUE_FULL;
        ++channel->in_flight;
        pin(*batch, 1);
        channel->device->queue.push_back({channel, copy_in(*batch)});
    }
    wake(*channel->device);
    return PEGA_OK;
}

pega_status close_channel(pega_channel* channel, std::uint64_t) {
    if (channel == nullptr) return PEGA_INVALID;
    pega_device& device = *channel->device;
    {
        const std::lock_guard lock(device.mutex);
        for (const Batch& work : device.queue) {
            if (work.channel == channel) run(device, work, true);
        }
        std::erase_if(device.queue, [&](const Batch& work) { return work.channel == channel; });
        device.channels.erase(channel);
    }
    wake(device);
    delete channel;
    return PEGA_OK;
}

// Completion table.

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    if (capacity == 0) return 0;
    const std::uint32_t stride = out->size;
    const std::lock_guard lock(device->mutex);
    if (device->completed.empty() && !device->queue.empty()) {
        run(*device, device->queue.front(), false);
        device->queue.pop_front();
    }
    std::uint32_t count = 0;
    for (; count < capacity && !device->completed.empty(); ++count) {
        auto* element = reinterpret_cast<pega_completion*>(reinterpret_cast<unsigned char*>(out) +
                                                           static_cast<std::size_t>(count) * stride);
        element->size = stride;
        pegaflow::backend::copy_out(element, device->completed.front());
        device->completed.pop_front();
    }
    return count;
}

int wait_fd(pega_device* device) { return device->event_fd; }

pega_status arm(pega_device* device) {
    std::uint64_t drained = 0;
    [[maybe_unused]] const auto count = ::read(device->event_fd, &drained, sizeof drained);
    const std::lock_guard lock(device->mutex);
    return device->queue.empty() && device->completed.empty() ? PEGA_OK : PEGA_PENDING;
}

constexpr pega_backend_table kBackend = {
    sizeof(pega_backend_table), 0, &probe, &open_device, &close_device, &capabilities, &address, &extension, &error_text};
constexpr pega_region_table kRegion = {sizeof(pega_region_table), 0, &register_memory, &unregister, &info, &export_descriptor,
                                       &import_descriptor};
constexpr pega_channel_table kChannel = {sizeof(pega_channel_table), 0, &open_channel, &state, &submit, &close_channel};
constexpr pega_completion_table kCompletion = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

const void* get(const char* id) {
    if (std::strcmp(id, PEGA_BACKEND_TABLE) == 0) return &kBackend;
    if (std::strcmp(id, PEGA_REGION_TABLE) == 0) return &kRegion;
    if (std::strcmp(id, PEGA_CHANNEL_TABLE) == 0) return &kChannel;
    if (std::strcmp(id, PEGA_COMPLETION_TABLE) == 0) return &kCompletion;
    return nullptr;
}

}  // namespace

const pega_entry pegaflow_entry = {sizeof(pega_entry), PEGA_ABI_MAJOR, PEGA_ABI_MINOR, "template", "1.0", &get};
