// SPDX-License-Identifier: Apache-2.0
// api.cpp - a libcuda for machines without a GPU: the functions that the cuda back end calls, over host memory. Streams are
// threads and run beside the caller, so that missing waits show. PEGAFLOW_FAKE_GPUS says how many GPUs there are (2),
// PEGAFLOW_FAKE_PEERS=off keeps them from each other's memory, PEGAFLOW_FAKE_HANDLES=off leaves memory without IPC handles,
// PEGAFLOW_FAKE_BUSY=MICROSECONDS makes a kernel that asks for room wait so long, as fake_cuda_set_busy does later on.
// PEGAFLOW_FAKE_CALLS=FILE gets a line for each call that tests count.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"
#include "stream.hpp"

namespace fake_cuda {
namespace {

using cuda_backend::CopyAttributes;
using cuda_backend::kNotReady;
using cuda_backend::kSuccess;
using cuda_backend::Result;
using cuda_backend::Uuid;

constexpr Result kInvalidValue = 1;
constexpr Result kInvalidContext = 201;
constexpr Result kInvalidHandle = 400;

thread_local std::vector<int> contexts;  // device + 1

int devices() {
    const char* text = std::getenv("PEGAFLOW_FAKE_GPUS");
    return text != nullptr ? std::atoi(text) : 2;
}

// PEGAFLOW_FAKE_HANDLES=off: memory is as from expandable segments, which has no handle.
bool handles_allowed() {
    const char* text = std::getenv("PEGAFLOW_FAKE_HANDLES");
    return text == nullptr || std::strcmp(text, "off") != 0;
}

// PEGAFLOW_FAKE_PEERS=off: GPUs that cannot reach each other's memory.
bool peers_allowed() {
    const char* text = std::getenv("PEGAFLOW_FAKE_PEERS");
    return text == nullptr || std::strcmp(text, "off") != 0;
}

std::atomic<int>& busy_us() {
    static const char* const text = std::getenv("PEGAFLOW_FAKE_BUSY");
    static std::atomic<int> value{text != nullptr ? std::atoi(text) : 0};
    return value;
}

void note(const char* call, int device) {
    const char* path = std::getenv("PEGAFLOW_FAKE_CALLS");
    std::FILE* const file = path != nullptr ? std::fopen(path, "ae") : nullptr;
    if (file == nullptr) return;
    std::fprintf(file, "%s %d\n", call, device);
    std::fclose(file);
}

struct EventHandle {
    SharedEvent event = std::make_shared<Event>();
};

Stream& stream_of(void* handle) {
    static Stream default_stream(0);
    return handle == nullptr ? default_stream : *static_cast<Stream*>(handle);
}

void copy(DevicePointer target, DevicePointer source, std::size_t length) {
    if (!Memory::instance().whole(target, length) || !Memory::instance().whole(source, length)) std::abort();
    std::memmove(reinterpret_cast<void*>(target), reinterpret_cast<const void*>(source), length);
}

}  // namespace
}  // namespace fake_cuda

using namespace fake_cuda;

extern "C" {

Result cuInit(unsigned) { return kSuccess; }
Result cuDriverGetVersion(int* out) { return *out = 13000, kSuccess; }
Result cuDeviceGetCount(int* out) { return *out = devices(), kSuccess; }
Result cuDeviceGet(int* out, int index) { return index < devices() ? (*out = index, kSuccess) : kInvalidValue; }
Result cuDeviceGetName(char* out, int capacity, int) { return std::snprintf(out, capacity, "Fake GPU"), kSuccess; }
Result cuDeviceGetUuid_v2(Uuid* out, int device) {
    std::memset(out, 0xfa, sizeof *out);
    out->bytes[15] = static_cast<unsigned char>(device);
    return kSuccess;
}
Result cuDeviceTotalMem_v2(std::size_t* out, int) { return *out = std::size_t{1} << 30, kSuccess; }
Result cuDeviceGetAttribute(int* out, int attribute, int) {
    switch (attribute) {
        case cuda_backend::kAttributeMajor:
            *out = 9;
            break;
        case cuda_backend::kAttributeMultiprocessors:
            *out = 132;
            break;
        case cuda_backend::kAttributeSharedOptIn:
            *out = 227 << 10;
            break;
        default:
            *out = 0;
    }
    return kSuccess;
}
Result cuDeviceCanAccessPeer(int* out, int device, int other) { return *out = peers_allowed() && device != other, kSuccess; }
Result cuCtxEnablePeerAccess(void* context, unsigned) {
    if (contexts.empty()) return kInvalidContext;
    if (!peers_allowed()) return cuda_backend::kPeerAccessUnsupported;
    const int other = static_cast<int>(reinterpret_cast<std::intptr_t>(context)) - 1;
    return Memory::instance().enable_peer(contexts.back() - 1, other) ? kSuccess : cuda_backend::kPeerAccessAlreadyEnabled;
}
Result cuDevicePrimaryCtxRetain(void** out, int device) {
    note("retain", device);
    *out = reinterpret_cast<void*>(static_cast<std::intptr_t>(device + 1));
    return kSuccess;
}
Result cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
Result cuCtxPushCurrent_v2(void* context) {
    contexts.push_back(static_cast<int>(reinterpret_cast<std::intptr_t>(context)));
    return kSuccess;
}
Result cuCtxPopCurrent_v2(void**) { return contexts.empty() ? kInvalidContext : (contexts.pop_back(), kSuccess); }
Result cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, kSuccess; }

Result cuMemAlloc_v2(DevicePointer* out, std::size_t size) {
    if (contexts.empty()) return kInvalidContext;
    return Memory::instance().allocate(contexts.back() - 1, size, out) ? kSuccess : cuda_backend::kOutOfMemory;
}
Result cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    if (contexts.empty()) return kInvalidContext;
    cuDeviceTotalMem_v2(total, 0);
    *free = *total - std::min(*total, Memory::instance().used(contexts.back() - 1));
    return kSuccess;
}
Result cuMemFree_v2(DevicePointer pointer) { return Memory::instance().free(pointer) ? kSuccess : kInvalidValue; }
Result cuMemHostAlloc(void** out, std::size_t size, unsigned) {
    return ::posix_memalign(out, 4096, size) == 0 ? kSuccess : cuda_backend::kOutOfMemory;
}
Result cuMemFreeHost(void* pointer) { return std::free(pointer), kSuccess; }
Result cuMemHostRegister_v2(void*, std::size_t, unsigned) { return kSuccess; }
Result cuMemHostUnregister(void*) { return kSuccess; }
Result cuMemHostGetDevicePointer_v2(DevicePointer* out, void* pointer, unsigned) {
    return *out = reinterpret_cast<DevicePointer>(pointer), kSuccess;
}
Result cuMemGetAddressRange_v2(DevicePointer* base, std::size_t* size, DevicePointer pointer) {
    Allocation allocation;
    if (!Memory::instance().find(pointer, base, &allocation)) return kInvalidValue;
    *size = allocation.size;
    return kSuccess;
}
Result cuPointerGetAttribute(void* out, int attribute, DevicePointer pointer) {
    DevicePointer base = 0;
    Allocation allocation;
    if (!Memory::instance().find(pointer, &base, &allocation)) return kInvalidValue;
    if (attribute == cuda_backend::kPointerDeviceOrdinal) {
        *static_cast<int*>(out) = allocation.device;
    } else if (attribute == cuda_backend::kPointerRangeStart) {
        *static_cast<DevicePointer*>(out) = base;
    } else if (attribute == cuda_backend::kPointerRangeSize) {
        *static_cast<std::size_t*>(out) = allocation.size;
    } else {
        return kInvalidValue;
    }
    return kSuccess;
}
Result cuIpcGetMemHandle(IpcHandle* out, DevicePointer pointer) {
    return handles_allowed() && Memory::instance().export_handle(pointer, out) ? kSuccess : kInvalidValue;
}
Result cuIpcOpenMemHandle_v2(DevicePointer* out, IpcHandle handle, unsigned flags) {
    if (contexts.empty()) return kInvalidContext;
    const int device = contexts.back() - 1;
    const int owner = Memory::instance().owner_of(handle);
    if (owner < 0) return kInvalidContext;  // of this process: the driver refuses those
    if (owner != device && !peers_allowed()) return cuda_backend::kPeerAccessUnsupported;
    if (!Memory::instance().open_handle(handle, out)) return kInvalidValue;
    note("open", owner);
    if ((flags & cuda_backend::kIpcLazyEnablePeerAccess) != 0) Memory::instance().enable_peer(device, owner);
    return kSuccess;
}
Result cuIpcCloseMemHandle(DevicePointer pointer) { return cuMemFree_v2(pointer); }
Result cuIpcGetEventHandle(IpcHandle* out, void* event) {
    return static_cast<EventHandle*>(event)->event->export_handle(out) ? kSuccess : kInvalidHandle;
}
Result cuIpcOpenEventHandle(void** out, IpcHandle handle) {
    auto opened = std::make_unique<EventHandle>();
    if (!opened->event->open(handle)) return kInvalidHandle;
    return *out = opened.release(), kSuccess;
}

Result cuStreamCreateWithPriority(void** out, unsigned, int) {
    if (contexts.empty()) return kInvalidContext;
    return *out = new Stream(contexts.back() - 1), kSuccess;
}
Result cuStreamDestroy_v2(void* stream) { return delete static_cast<Stream*>(stream), kSuccess; }
Result cuStreamSynchronize(void* stream) { return stream_of(stream).synchronize(), kSuccess; }
Result cuStreamWaitEvent(void* stream, void* event, unsigned) {
    const SharedEvent shared = static_cast<EventHandle*>(event)->event;
    const std::uint64_t number = shared->recorded();
    stream_of(stream).push([shared, number] { shared->wait(number); });
    return kSuccess;
}
Result cuEventCreate(void** out, unsigned flags) {
    auto made = std::make_unique<EventHandle>();
    if ((flags & cuda_backend::kEventInterprocess) != 0) {
        if ((flags & cuda_backend::kEventDisableTiming) == 0) return kInvalidValue;  // as the driver has it
        if (!made->event->share()) return cuda_backend::kOutOfMemory;
    }
    return *out = made.release(), kSuccess;
}
Result cuEventDestroy_v2(void* event) { return delete static_cast<EventHandle*>(event), kSuccess; }
Result cuEventRecord(void* event, void* stream) {
    const SharedEvent shared = static_cast<EventHandle*>(event)->event;
    const std::uint64_t number = shared->record();
    stream_of(stream).push([shared, number] { shared->reach(number); });
    return kSuccess;
}
Result cuEventQuery(void* event) { return static_cast<EventHandle*>(event)->event->complete() ? kSuccess : kNotReady; }

Result cuEventElapsedTime(float* out, void* from, void* to) {
    const auto when = [](void* event) { return static_cast<EventHandle*>(event)->event->when(); };
    return *out = std::chrono::duration<float, std::milli>(when(to) - when(from)).count(), kSuccess;
}

Result cuMemcpyAsync(DevicePointer target, DevicePointer source, std::size_t length, void* stream) {
    stream_of(stream).push([=] { copy(target, source, length); });
    return kSuccess;
}
Result cuMemsetD8Async(DevicePointer target, unsigned char value, std::size_t length, void* stream) {
    stream_of(stream).push([=] { std::memset(reinterpret_cast<void*>(target), value, length); });
    return kSuccess;
}
Result cuMemcpyBatchAsync_v2(DevicePointer* targets, DevicePointer* sources, std::size_t* lengths, std::size_t count,
                             CopyAttributes*, std::size_t*, std::size_t, void* stream) {
    for (std::size_t i = 0; i < count; ++i) cuMemcpyAsync(targets[i], sources[i], lengths[i], stream);
    return kSuccess;
}

Result cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    stream_of(stream).push([=] { function(data); });
    return kSuccess;
}

Result cuModuleLoadData(void** out, const void* image) {
    if (std::strstr(static_cast<const char*>(image), ".entry pega_copy_vector") == nullptr) return 218;
    return *out = reinterpret_cast<void*>(1), kSuccess;
}
Result cuModuleUnload(void*) { return kSuccess; }
Result cuModuleGetFunction(void** out, void*, const char* name) {
    const char* names[] = {"pega_copy_bulk_4",        "pega_copy_bulk_8",        "pega_copy_vector",
                           "pega_copy_bulk_4_digest", "pega_copy_bulk_8_digest", "pega_copy_vector_digest",
                           "pega_copy_bulk_4_inline", "pega_copy_bulk_8_inline", "pega_room"};
    for (std::intptr_t i = 0; i < 9; ++i) {
        if (std::strcmp(names[i], name) == 0) return *out = reinterpret_cast<void*>(i + 1), kSuccess;
    }
    return 500;
}
Result cuFuncLoad(void*) { return kSuccess; }
Result cuFuncSetAttribute(void*, int, int) { return kSuccess; }
Result cuLaunchKernel(void* function, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned shared,
                      void* stream, void** parameters, void**) {
    if (grid == 0 || block == 0 || block > 1024 || block % 32 != 0 || shared > (227U << 10)) return kInvalidValue;
    const auto number = reinterpret_cast<std::intptr_t>(function) - 1;
    if (number == 8) {
        stream_of(stream).push([] { std::this_thread::sleep_for(std::chrono::microseconds(busy_us().load())); });
        return kSuccess;
    }
    const auto kernel = static_cast<Kernel>(number % 3);
    const auto job = *static_cast<const cuda_backend::Job*>(parameters[0]);
    const bool inlined = number >= 6;
    if ((number >= 3 && !inlined) != (job.sums != nullptr)) return kInvalidValue;
    const unsigned stages = kernel == Kernel::kBulk8 ? 8 : 4;
    if (kernel != Kernel::kVector && shared < block / 32 * stages * job.stage_bytes) return kInvalidValue;
    const int device = stream_of(stream).device;
    if (inlined) {  // its descriptors are the launch's, not the caller's
        stream_of(stream).push([=, whole = *static_cast<const cuda_backend::InlineJob*>(parameters[0])] {
            cuda_backend::Job own = whole.job;
            own.tiles = reinterpret_cast<const cuda_backend::Tile*>(whole.descriptors);
            own.pairs = whole.descriptors + own.tile_count * sizeof(cuda_backend::Tile);
            run_job(kernel, own, device);
        });
        return kSuccess;
    }
    stream_of(stream).push([=] { run_job(kernel, job, device); });
    return kSuccess;
}
void fake_cuda_set_busy(int microseconds) { busy_us().store(microseconds); }

Result cuGetErrorString(Result, const char** out) { return *out = "an error of the fake driver", kSuccess; }

}  // extern "C"
