// SPDX-License-Identifier: Apache-2.0
#include "engine/instance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace pegaflow::engine {
namespace {

constexpr std::size_t kMaxEvents = 256;  // of other processes that stay open per worker

const pega_ext_stream* stream_table(const Device& device) {
    return static_cast<const pega_ext_stream*>(device.extension(PEGA_EXT_STREAM));
}

// One object of the worker's memory, and the part of it in which layers lie.
struct Extent {
    std::uint64_t first = UINT64_MAX;
    std::uint64_t end = 0;
    std::shared_ptr<Region> region;
};

Result<Region> open_region(Device& device, const LayerRegistration& layer, const Extent& extent) {
    const MemoryDescription& d = layer.memory;
    pega_memory memory{};
    memory.size = sizeof memory;
    memory.kind = d.kind;
    memory.source = d.source;
    memory.address = d.address == nullptr ? nullptr : static_cast<std::byte*>(d.address) + extent.first;
    memory.length = extent.end - extent.first;
    memory.offset = extent.first;
    memory.handle = d.handle.data();
    memory.handle_length = d.handle.size();
    auto region = device.register_memory(memory);
    if (!region) {
        Error error = std::move(region).error();
        error.message = fmt::format("layer \"{}\": {}", layer.name, error.message);
        return fail(std::move(error));
    }
    return region;
}

}  // namespace

Result<void> Worker::open_layers() {
    // An object is opened once, however many layers lie in it: a device may refuse to open a handle twice.
    std::map<std::tuple<std::uint32_t, std::string_view, void*>, Extent> objects;
    const auto object_of = [&](const MemoryDescription& m) -> Extent& { return objects[{m.source, m.handle, m.address}]; };
    for (const LayerRegistration& layer : registration_.layers) {
        const MemoryDescription& m = layer.memory;
        std::uint64_t end = 0;
        if (__builtin_add_overflow(m.offset, m.length, &end)) {
            return fail(Code::kInvalid, fmt::format("layer \"{}\": offset {} and length {} of its memory overflow", layer.name,
                                                    m.offset, m.length));
        }
        Extent& extent = object_of(m);
        extent.first = std::min(extent.first, m.offset);
        extent.end = std::max(extent.end, end);
    }
    for (const LayerRegistration& layer : registration_.layers) {
        PEGA_ASSIGN(const LayerGeometry geometry, layer_geometry(layer));
        Extent& extent = object_of(layer.memory);
        if (!extent.region) {
            PEGA_ASSIGN(Region fresh, open_region(device_, layer, extent));
            extent.region = std::make_shared<Region>(std::move(fresh));
        }
        if (!layers_.emplace(layer.name, WorkerLayer{geometry, extent.region, layer.memory.offset - extent.first}).second) {
            return fail(Code::kInvalid,
                        fmt::format("layer \"{}\" is registered twice on device {}", layer.name, registration_.device_id));
        }
    }
    return {};
}

Result<std::unique_ptr<Worker>> Worker::open(const WorkerRegistration& registration, Device& device, DeviceSlices& pool,
                                             std::uint32_t max_queued) {
    std::unique_ptr<Worker> worker(new Worker(registration, device, pool));
    PEGA_TRY(worker->open_layers());
    PEGA_ASSIGN(Channel saves, device.open_channel());
    PEGA_ASSIGN(Channel loads, device.open_channel());
    worker->saves_ = std::make_unique<Lane>(std::move(saves), max_queued);
    worker->loads_ = std::make_unique<Lane>(std::move(loads), max_queued);
    return worker;
}

const WorkerLayer* Worker::layer(std::string_view name) const {
    const auto it = layers_.find(name);
    return it == layers_.end() ? nullptr : &it->second;
}

std::uint64_t Worker::region_bytes() const {
    std::uint64_t bytes = 0;
    for (const LayerRegistration& layer : registration_.layers) bytes += layer.memory.length;
    return bytes;
}

Result<pega_event*> Worker::event(std::string_view exported) {
    const std::lock_guard lock(events_mutex_);
    if (const auto it = events_.find(exported); it != events_.end()) return it->second;
    const pega_ext_stream* table = stream_table(device_);
    if (table == nullptr) return fail(Code::kUnsupported, fmt::format("{} knows no events", device_.info().name));
    if (events_.size() >= kMaxEvents) {
        return fail(Code::kNoMemory,
                    fmt::format("device {} has {} events open; clients reuse a few events, they do not make one a request",
                                registration_.device_id, events_.size()));
    }
    pega_event* event = nullptr;
    const pega_status status = table->import_event(device_.handle(), exported.data(), exported.size(), &event);
    if (status != PEGA_OK) {
        return fail(static_cast<Code>(status),
                    fmt::format("cannot open the event of {} bytes that came with the request", exported.size()));
    }
    events_.emplace(std::string(exported), event);
    return event;
}

void Worker::close() {
    gate_.close();
    gate_.wait_empty();
    if (saves_) saves_->close();
    if (loads_) loads_->close();
    layers_.clear();
    const std::lock_guard lock(events_mutex_);
    for (const auto& [bytes, event] : events_) stream_table(device_)->destroy(event);
    events_.clear();
}

void Instance::publish() {
    InstanceInfo now{id, name_space, tp_size, world_size, page_first, sealed.load(), layout.fingerprint, {}};
    for (const auto& [device, worker] : workers) {
        const WorkerRegistration& w = worker->registration();
        now.workers.push_back({device, w.tp_rank, w.pp_rank, worker->device().info().name, worker->region_bytes()});
    }
    const std::lock_guard lock(info_mutex_);
    info_ = std::move(now);
}

Result<Worker*> Instance::worker(std::int32_t device_id) const {
    if (!sealed.load(std::memory_order_acquire)) {
        const std::lock_guard lock(mutex);  // a worker that joins right now may be the last one
        if (!sealed.load(std::memory_order_acquire)) {
            return fail(Code::kInvalid,
                        fmt::format("registration incomplete: {}/{} workers registered", workers.size(), world_size));
        }
    }
    const auto it = workers.find(device_id);
    if (it == workers.end()) return fail(Code::kNotFound, fmt::format("device {} not found in instance {}", device_id, id));
    return it->second.get();
}

}  // namespace pegaflow::engine
