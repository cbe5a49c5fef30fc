// SPDX-License-Identifier: Apache-2.0
#include "spoiler.hpp"

#include <algorithm>

#include "device.hpp"

namespace interposer {
namespace {

constexpr std::uint64_t kPatience = 1'000'000'000;  // of a copy of a few bytes
constexpr std::uint64_t kBufferBytes = 4096;

bool only_host_memory(const pega_capabilities& c) {
    for (std::uint32_t kind = 0; kind < PEGA_MEMORY_KINDS; ++kind) {
        if ((c.matrix[kind] & ~(1U << PEGA_MEMORY_HOST)) != 0 || (kind != PEGA_MEMORY_HOST && c.matrix[kind] != 0))
            return false;
    }
    return true;
}

}  // namespace

// The byte to change. `local`: its region was the batch's local one, and stays so in the copies.
struct Spoiler::Place {
    pega_region* region = nullptr;
    std::uint64_t offset = 0;
    bool local = false;
};

pega_status Spoiler::open(pega_device& device) {
    pega_capabilities c{};
    c.size = sizeof c;
    device.inner.backend->capabilities(device.device, &c);
    if (only_host_memory(c)) return PEGA_OK;
    unit_ = std::max<std::uint32_t>(c.alignment, 1);
    pega_channel_params params{};
    params.size = sizeof params;
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = PEGA_MEMORY_HOST;
    memory.source = PEGA_SOURCE_ALLOCATE;
    memory.length = std::max(unit_, kBufferBytes);
    pega_region_info info{};
    info.size = sizeof info;
    const bool ready = device.inner.region->register_memory(device.device, &memory, &buffer_) == PEGA_OK &&
                       device.inner.region->info(buffer_, &info) == PEGA_OK && info.address != nullptr &&
                       device.inner.channel->open(device.device, &params, &channel_) == PEGA_OK;
    bytes_ = static_cast<std::uint8_t*>(info.address);
    if (ready) return PEGA_OK;
    close(device);
    pegaflow::backend::log(device.host, PEGA_LOG_ERROR, kName,
                           "the rule corrupt cannot be followed: %s does not copy between its memory and the host's within "
                           "one device",
                           device.inner_name.c_str());
    return PEGA_UNSUPPORTED;
}

void Spoiler::close(pega_device& device) {
    if (channel_ != nullptr) device.inner.channel->close(channel_, UINT64_MAX);
    if (buffer_ != nullptr) device.inner.region->unregister(buffer_);
    channel_ = nullptr;
    buffer_ = nullptr;
}

bool Spoiler::find_place(const pega_batch& b, Place* out) {
    out->local = b.op == PEGA_OP_READ;
    if (b.format == PEGA_FORMAT_FLAT) {
        const std::uint64_t* const page =
            std::find_if(b.lengths, b.lengths + b.flat_count, [](std::uint64_t n) { return n != 0; });
        if (page == b.lengths + b.flat_count) return false;
        out->region = out->local ? b.local_region : b.remote_region;
        out->offset = (out->local ? b.local_offsets : b.remote_offsets)[page - b.lengths];
        return true;
    }
    for (std::uint64_t i = 0; b.index_count != 0 && i < b.span_count; ++i) {
        const pega_span& s = pegaflow::backend::span_at(b, i);
        if (s.page_bytes == 0) continue;
        out->region = out->local ? s.local_region : s.remote_region;
        out->offset =
            out->local ? s.local_base + b.local_index[0] * s.local_stride : s.remote_base + b.remote_index[0] * s.remote_stride;
        return true;
    }
    return false;
}

void Spoiler::spoil(pega_device& device, const pega_batch& batch) {
    Place place;
    if (!find_place(batch, &place)) return;
    pega_region_info info{};
    info.size = sizeof info;
    region_info(place.region, &info);
    if (info.kind == PEGA_MEMORY_HOST && info.address != nullptr) {
        static_cast<std::uint8_t*>(info.address)[place.offset] ^= 0x01;
        return;
    }
    if (channel_ != nullptr && copy(device, place, true)) {
        bytes_[0] ^= 0x01;
        if (copy(device, place, false)) return;
    }
    pegaflow::backend::log(device.host, PEGA_LOG_WARNING, kName,
                           "a batch stays as it is: its target cannot be changed from here");
}

// One unit between the place and the buffer.
bool Spoiler::copy(pega_device& device, const Place& place, bool to_buffer) {
    const std::uint64_t at_place = place.offset - place.offset % unit_;
    const std::uint64_t at_buffer = 0;
    pega_batch batch{};
    batch.size = sizeof batch;
    batch.format = PEGA_FORMAT_FLAT;
    batch.span_size = sizeof(pega_span);
    batch.op = place.local == to_buffer ? PEGA_OP_WRITE : PEGA_OP_READ;
    batch.user_data = reinterpret_cast<std::uintptr_t>(this);
    batch.local_region = place.local ? place.region->inner : buffer_;
    batch.remote_region = place.local ? buffer_ : place.region->inner;
    batch.local_offsets = place.local ? &at_place : &at_buffer;
    batch.remote_offsets = place.local ? &at_buffer : &at_place;
    batch.lengths = &unit_;
    batch.flat_count = 1;
    batch.deadline_ns = device.now() + kPatience;
    if (device.inner.channel->submit(channel_, &batch) != PEGA_OK) return false;
    for (;;) {
        poll_inner(device);
        const auto end = std::find_if(device.arrived.begin(), device.arrived.end(), [&](const pega_completion& record) {
            return record.user_data == batch.user_data && (record.flags & PEGA_COMPLETION_TERMINAL) != 0;
        });
        if (end == device.arrived.end()) continue;
        const bool well = end->status == PEGA_OK;
        device.arrived.erase(end);
        return well;
    }
}

}  // namespace interposer
