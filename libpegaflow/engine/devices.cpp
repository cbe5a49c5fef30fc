// SPDX-License-Identifier: Apache-2.0
// Which devices an engine uses: those whose memory workers may register, found by that memory.
#include <fmt/format.h>

#include <algorithm>

#include "engine/state.hpp"

namespace pegaflow {

Result<void> Engine::State::check_devices() const {
    for (const std::string& name : options.devices) {
        std::vector<std::string_view> known;
        for (const DeviceInfo& info : fabric.devices()) known.push_back(info.name);
        if (std::ranges::find(known, name) != known.end()) continue;
        return fail(Code::kNotFound, fmt::format("no device \"{}\"; there are: {}", name, fmt::join(known, ", ")));
    }
    return {};
}

bool Engine::State::allowed(const DeviceInfo& device) const {
    return options.devices.empty() || std::ranges::find(options.devices, device.name) != options.devices.end();
}

Result<Device*> Engine::State::device_for(const MemoryDescription& memory) {
    const auto refused = [&](std::string_view name) {
        return fail(Code::kInvalid, fmt::format("workers may not register memory of device {}, only of: {}", name,
                                                fmt::join(options.devices, ", ")));
    };
    if (memory.kind == PEGA_MEMORY_GPU) {
        PEGA_ASSIGN(const DeviceInfo* const gpu, fabric.find_by_uuid(memory.device_uuid));
        if (!allowed(*gpu)) return refused(gpu->name);
        return fabric.route(gpu->name, PEGA_MEMORY_HOST);
    }
    const DeviceInfo* other = nullptr;
    for (const DeviceInfo& info : fabric.devices()) {
        if (info.kind != memory.kind) continue;
        if (!allowed(info)) {
            other = &info;
        } else if (auto device = fabric.route(info.name, PEGA_MEMORY_HOST)) {
            return device;
        }
    }
    if (other != nullptr) return refused(other->name);
    return fail(Code::kUnsupported,
                fmt::format("no loaded back end moves bytes between memory of kind {} and host memory", memory.kind));
}

}  // namespace pegaflow
