// SPDX-License-Identifier: Apache-2.0
// driver.hpp - the functions of libcuda that this back end calls, resolved at run time; no CUDA header is needed to build it.
//
// Types and values are those of the CUDA driver API (cuda.h); names with _v2 are the symbols that cuda.h maps the plain names
// to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_backend {

using Result = int;  // CUresult
using Device = int;
using DevicePointer = unsigned long long;
using Context = void*;
using Stream = void*;
using Event = void*;
using Module = void*;
using Function = void*;

constexpr Result kSuccess = 0;
constexpr Result kOutOfMemory = 2;
constexpr Result kNotReady = 600;
constexpr Result kPeerAccessUnsupported = 217;
constexpr Result kPeerAccessAlreadyEnabled = 704;
constexpr Result kHostMemoryAlreadyRegistered = 712;
constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kEventDisableTiming = 2;
constexpr unsigned kEventInterprocess = 4;
constexpr unsigned kHostPortable = 1;
constexpr unsigned kIpcLazyEnablePeerAccess = 1;
constexpr int kPointerDeviceOrdinal = 9;
constexpr int kPointerRangeStart = 11;
constexpr int kPointerRangeSize = 12;
constexpr int kAttributeMultiprocessors = 16, kAttributeMajor = 75, kAttributeMinor = 76, kAttributeSharedOptIn = 97;
constexpr int kFunctionMaxDynamicShared = 8;
constexpr int kAttributePciBus = 33, kAttributePciDevice = 34, kAttributePciDomain = 50;

struct IpcHandle {  // CUipcMemHandle, CUipcEventHandle
    char bytes[64];
};
struct Uuid {
    unsigned char bytes[16];
};

struct CopyAttributes {  // CUmemcpyAttributes: source order, two location hints (type, id), flags
    int source_order;
    int source_hint[2], target_hint[2];
    unsigned flags;
};
constexpr int kSourceOrderStream = 1;
constexpr unsigned kCopyOverlapsCompute = 1;

struct Driver {
    Result (*cuInit)(unsigned) = nullptr;
    Result (*cuDeviceGetCount)(int*) = nullptr;
    Result (*cuDeviceGet)(Device*, int) = nullptr;
    Result (*cuDeviceGetName)(char*, int, Device) = nullptr;
    Result (*cuDeviceGetUuid_v2)(Uuid*, Device) = nullptr;
    Result (*cuDeviceTotalMem_v2)(std::size_t*, Device) = nullptr;
    Result (*cuDeviceGetAttribute)(int*, int, Device) = nullptr;
    Result (*cuDevicePrimaryCtxRetain)(Context*, Device) = nullptr;
    Result (*cuDevicePrimaryCtxRelease_v2)(Device) = nullptr;
    Result (*cuCtxPushCurrent_v2)(Context) = nullptr;
    Result (*cuCtxPopCurrent_v2)(Context*) = nullptr;
    Result (*cuMemAlloc_v2)(DevicePointer*, std::size_t) = nullptr;
    Result (*cuMemFree_v2)(DevicePointer) = nullptr;
    Result (*cuMemHostAlloc)(void**, std::size_t, unsigned) = nullptr;
    Result (*cuMemFreeHost)(void*) = nullptr;
    Result (*cuMemHostRegister_v2)(void*, std::size_t, unsigned) = nullptr;
    Result (*cuMemHostUnregister)(void*) = nullptr;
    Result (*cuMemGetAddressRange_v2)(DevicePointer*, std::size_t*, DevicePointer) = nullptr;
    Result (*cuPointerGetAttribute)(void*, int, DevicePointer) = nullptr;
    Result (*cuIpcGetMemHandle)(IpcHandle*, DevicePointer) = nullptr;
    Result (*cuIpcOpenMemHandle_v2)(DevicePointer*, IpcHandle, unsigned) = nullptr;
    Result (*cuIpcCloseMemHandle)(DevicePointer) = nullptr;
    Result (*cuIpcGetEventHandle)(IpcHandle*, Event) = nullptr;
    Result (*cuIpcOpenEventHandle)(Event*, IpcHandle) = nullptr;
    Result (*cuStreamCreateWithPriority)(Stream*, unsigned, int) = nullptr;
    Result (*cuStreamDestroy_v2)(Stream) = nullptr;
    Result (*cuStreamWaitEvent)(Stream, Event, unsigned) = nullptr;
    Result (*cuStreamSynchronize)(Stream) = nullptr;
    Result (*cuEventCreate)(Event*, unsigned) = nullptr;
    Result (*cuEventDestroy_v2)(Event) = nullptr;
    Result (*cuEventRecord)(Event, Stream) = nullptr;
    Result (*cuEventQuery)(Event) = nullptr;
    Result (*cuEventElapsedTime)(float*, Event, Event) = nullptr;  // milliseconds
    Result (*cuMemcpyAsync)(DevicePointer, DevicePointer, std::size_t, Stream) = nullptr;
    Result (*cuMemsetD8Async)(DevicePointer, unsigned char, std::size_t, Stream) = nullptr;
    Result (*cuGetErrorString)(Result, const char**) = nullptr;
    Result (*cuDriverGetVersion)(int*) = nullptr;
    Result (*cuCtxGetStreamPriorityRange)(int*, int*) = nullptr;
    Result (*cuMemHostGetDevicePointer_v2)(DevicePointer*, void*, unsigned) = nullptr;
    Result (*cuModuleLoadData)(Module*, const void*) = nullptr;
    Result (*cuModuleUnload)(Module) = nullptr;
    Result (*cuModuleGetFunction)(Function*, Module, const char*) = nullptr;
    Result (*cuFuncSetAttribute)(Function, int, int) = nullptr;
    Result (*cuLaunchKernel)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**,
                             void**) = nullptr;
    Result (*cuDeviceCanAccessPeer)(int*, Device, Device) = nullptr;
    Result (*cuCtxEnablePeerAccess)(Context, unsigned) = nullptr;

    // Loads a function now and not at its first launch, in drivers since 12.4; null where it is missing.
    Result (*cuFuncLoad)(Function) = nullptr;
    // Batched copies, in drivers since 12.8; null where they are missing. The first form is that of 13.0.
    Result (*cuMemcpyBatchAsync_v2)(DevicePointer*, DevicePointer*, std::size_t*, std::size_t, CopyAttributes*, std::size_t*,
                                    std::size_t, Stream) = nullptr;
    Result (*cuMemcpyBatchAsync)(DevicePointer*, DevicePointer*, std::size_t*, std::size_t, CopyAttributes*, std::size_t*,
                                 std::size_t, std::size_t*, Stream) = nullptr;
    bool has_batched_copies() const noexcept { return cuMemcpyBatchAsync_v2 != nullptr || cuMemcpyBatchAsync != nullptr; }
    // One call of whichever form there is. Stream order is kept on the source side.
    Result copy_batch(DevicePointer* targets, DevicePointer* sources, std::size_t* lengths, std::size_t count,
                      Stream stream) const noexcept;

    // The process's driver, opened once and kept; null with the reason when there is none. [any]
    static const Driver* get(std::string* why);
};

// Makes a context current on this thread while it lives; what was current before comes back.
class Current {
public:
    Current(const Driver& driver, Context context) : driver_(driver) { driver_.cuCtxPushCurrent_v2(context); }
    ~Current() {
        Context popped = nullptr;
        driver_.cuCtxPopCurrent_v2(&popped);
    }
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

private:
    const Driver& driver_;
};

}  // namespace cuda_backend
