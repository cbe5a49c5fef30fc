// SPDX-License-Identifier: Apache-2.0
#include "peer.hpp"

#include <cstring>

namespace cuda_backend {
namespace {

pega_status refuse(const pega_device& device, const char* other) {
    pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "cuda",
                           "GPU %d has no peer access to the memory of %s: this machine, or the container, does not let one "
                           "address the other. Use the nccl back end between them",
                           device.index, other);
    return PEGA_UNSUPPORTED;
}

// The GPU with this uuid, when this process may see it.
bool find_device(const Driver& driver, const Uuid& uuid, Device* out) {
    int count = 0;
    driver.cuDeviceGetCount(&count);
    for (int i = 0; i < count; ++i) {
        Uuid other{};
        if (driver.cuDeviceGet(out, i) == kSuccess && driver.cuDeviceGetUuid_v2(&other, *out) == kSuccess &&
            std::memcmp(other.bytes, uuid.bytes, sizeof uuid.bytes) == 0) {
            return true;
        }
    }
    return false;
}

bool can_access(const pega_device& device, Device other) {
    int can = 0;
    return other == device.device || (device.driver->cuDeviceCanAccessPeer(&can, device.device, other) == kSuccess && can != 0);
}

pega_status place(pega_region& region, DevicePointer base, std::uint64_t size, std::uint64_t offset) {
    if (size != 0 && !pegaflow::backend::in_range(offset, region.length, size)) return PEGA_REGION_LOST;
    region.base = base + offset;
    return PEGA_OK;
}

// Memory of this very process, which the driver does not open.
pega_status alias(pega_device& device, pega_region& region, Export found, std::uint64_t offset) {
    Device other = 0;
    if (device.driver->cuDeviceGet(&other, found.ordinal) != kSuccess) return PEGA_REGION_LOST;
    if (const pega_status reached = reach(device, other); reached != PEGA_OK) return reached;
    region.imported = true;
    region.memory = std::move(found.owner);
    return place(region, found.base, found.size, offset);
}

pega_status open_new(pega_device& device, OpenHandle& open, const IpcHandle& handle, const Uuid* owner) {
    const Driver& driver = *device.driver;
    const std::string name = owner != nullptr ? uuid_text(*owner) : "the GPU that owns the handle";
    if (Device other = 0; owner != nullptr && find_device(driver, *owner, &other) && !can_access(device, other))
        return refuse(device, name.c_str());
    const Result result = driver.cuIpcOpenMemHandle_v2(&open.base, handle, kIpcLazyEnablePeerAccess);
    if (result == kPeerAccessUnsupported) return refuse(device, name.c_str());
    if (result != kSuccess) {
        pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "cuda",
                               "an IPC handle cannot be opened (%d). Its process may be gone. %s", result, kNoHandleRemedy);
        return PEGA_REGION_LOST;
    }
    DevicePointer start = 0;
    std::size_t size = 0;
    driver.cuMemGetAddressRange_v2(&start, &size, open.base);
    open.size = size;
    return PEGA_OK;
}

}  // namespace

pega_status reach(pega_device& device, Device other) {
    if (other == device.device || device.peers.contains(other)) return PEGA_OK;
    const Driver& driver = *device.driver;
    Uuid uuid{};
    driver.cuDeviceGetUuid_v2(&uuid, other);
    if (!can_access(device, other)) return refuse(device, uuid_text(uuid).c_str());
    Context context = nullptr;
    if (const Result result = driver.cuDevicePrimaryCtxRetain(&context, other); result != kSuccess) return to_status(result);
    const Result result = driver.cuCtxEnablePeerAccess(context, 0);
    if (result != kSuccess && result != kPeerAccessAlreadyEnabled) {
        driver.cuDevicePrimaryCtxRelease_v2(other);
        return refuse(device, uuid_text(uuid).c_str());
    }
    device.peers.insert(other);
    return PEGA_OK;
}

void leave_peers(pega_device& device) {
    for (const Device other : device.peers) device.driver->cuDevicePrimaryCtxRelease_v2(other);
    device.peers.clear();
}

pega_status open_handle(pega_device& device, pega_region& region, const std::string& bytes, std::uint64_t offset,
                        const Uuid* owner) {
    IpcHandle handle{};
    if (bytes.size() != sizeof handle.bytes) return PEGA_INVALID;
    std::memcpy(handle.bytes, bytes.data(), sizeof handle.bytes);
    if (Export own; find_export(*device.driver, handle, &own)) return alias(device, region, std::move(own), offset);
    OpenHandle& open = device.opened[bytes];
    if (open.users == 0) {
        if (const pega_status opened = open_new(device, open, handle, owner); opened != PEGA_OK) {
            device.opened.erase(bytes);
            return opened;
        }
    }
    ++open.users;
    region.imported = true;
    region.ipc_handle = bytes;
    return place(region, open.base, open.size, offset);
}

void close_handle(pega_device& device, pega_region& region) {
    const auto open = device.opened.find(region.ipc_handle);
    if (region.ipc_handle.empty() || open == device.opened.end()) return;
    region.ipc_handle.clear();
    if (--open->second.users != 0) return;
    device.driver->cuIpcCloseMemHandle(open->second.base);
    device.opened.erase(open);
}

}  // namespace cuda_backend
