// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>

namespace cuda_backend {
namespace {

struct Loaded {
    Driver driver;
    bool usable = false;
    std::string why;
};

template <class Function>
bool resolve(void* library, const char* name, Function& out, std::string& why) {
    out = reinterpret_cast<Function>(::dlsym(library, name));
    if (out == nullptr && why.empty()) why = std::string("the CUDA driver lacks ") + name + "; it is too old";
    return out != nullptr;
}

Loaded load() {
    Loaded out;
    const char* chosen = std::getenv("PEGAFLOW_LIBCUDA");
    void* library = ::dlopen(chosen != nullptr ? chosen : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        out.why = "libcuda.so.1 cannot be opened: there is no NVIDIA driver here";
        return out;
    }
    Driver& d = out.driver;
    bool all = true;
#define PEGA_RESOLVE(name) all = resolve(library, #name, d.name, out.why) && all
    PEGA_RESOLVE(cuInit);
    PEGA_RESOLVE(cuDeviceGetCount);
    PEGA_RESOLVE(cuDeviceGet);
    PEGA_RESOLVE(cuDeviceGetName);
    PEGA_RESOLVE(cuDeviceGetUuid_v2);
    PEGA_RESOLVE(cuDeviceTotalMem_v2);
    PEGA_RESOLVE(cuDeviceGetAttribute);
    PEGA_RESOLVE(cuDevicePrimaryCtxRetain);
    PEGA_RESOLVE(cuDevicePrimaryCtxRelease_v2);
    PEGA_RESOLVE(cuCtxPushCurrent_v2);
    PEGA_RESOLVE(cuCtxPopCurrent_v2);
    PEGA_RESOLVE(cuMemAlloc_v2);
    PEGA_RESOLVE(cuMemFree_v2);
    PEGA_RESOLVE(cuMemHostAlloc);
    PEGA_RESOLVE(cuMemFreeHost);
    PEGA_RESOLVE(cuMemHostRegister_v2);
    PEGA_RESOLVE(cuMemHostUnregister);
    PEGA_RESOLVE(cuMemGetAddressRange_v2);
    PEGA_RESOLVE(cuPointerGetAttribute);
    PEGA_RESOLVE(cuIpcGetMemHandle);
    PEGA_RESOLVE(cuIpcOpenMemHandle_v2);
    PEGA_RESOLVE(cuIpcCloseMemHandle);
    PEGA_RESOLVE(cuIpcGetEventHandle);
    PEGA_RESOLVE(cuIpcOpenEventHandle);
    PEGA_RESOLVE(cuStreamCreateWithPriority);
    PEGA_RESOLVE(cuStreamDestroy_v2);
    PEGA_RESOLVE(cuStreamWaitEvent);
    PEGA_RESOLVE(cuStreamSynchronize);
    PEGA_RESOLVE(cuEventCreate);
    PEGA_RESOLVE(cuEventDestroy_v2);
    PEGA_RESOLVE(cuEventRecord);
    PEGA_RESOLVE(cuEventQuery);
    PEGA_RESOLVE(cuEventElapsedTime);
    PEGA_RESOLVE(cuMemcpyAsync);
    PEGA_RESOLVE(cuMemsetD8Async);
    PEGA_RESOLVE(cuGetErrorString);
    PEGA_RESOLVE(cuDriverGetVersion);
    PEGA_RESOLVE(cuCtxGetStreamPriorityRange);
    PEGA_RESOLVE(cuMemHostGetDevicePointer_v2);
    PEGA_RESOLVE(cuModuleLoadData);
    PEGA_RESOLVE(cuModuleUnload);
    PEGA_RESOLVE(cuModuleGetFunction);
    PEGA_RESOLVE(cuFuncSetAttribute);
    PEGA_RESOLVE(cuLaunchKernel);
    PEGA_RESOLVE(cuDeviceCanAccessPeer);
    PEGA_RESOLVE(cuCtxEnablePeerAccess);
#undef PEGA_RESOLVE
    std::string optional;
    if (!resolve(library, "cuMemcpyBatchAsync_v2", d.cuMemcpyBatchAsync_v2, optional))
        resolve(library, "cuMemcpyBatchAsync", d.cuMemcpyBatchAsync, optional);
    resolve(library, "cuFuncLoad", d.cuFuncLoad, optional);
    if (!all) return out;
    if (const Result result = d.cuInit(0); result != kSuccess) {
        const char* text = nullptr;
        d.cuGetErrorString(result, &text);
        out.why = std::string("cuInit failed: ") + (text != nullptr ? text : "unknown error");
        return out;
    }
    out.usable = true;
    return out;
}

}  // namespace

Result Driver::copy_batch(DevicePointer* targets, DevicePointer* sources, std::size_t* lengths, std::size_t count,
                          Stream stream) const noexcept {
    CopyAttributes attributes{kSourceOrderStream, {0, 0}, {0, 0}, kCopyOverlapsCompute};
    std::size_t first = 0;
    if (cuMemcpyBatchAsync_v2 != nullptr)
        return cuMemcpyBatchAsync_v2(targets, sources, lengths, count, &attributes, &first, 1, stream);
    std::size_t failed = 0;
    return cuMemcpyBatchAsync(targets, sources, lengths, count, &attributes, &first, 1, &failed, stream);
}

const Driver* Driver::get(std::string* why) {
    // Never closed: the driver does not support being unloaded.
    static const Loaded loaded = load();
    if (!loaded.usable && why != nullptr) *why = loaded.why;
    return loaded.usable ? &loaded.driver : nullptr;
}

}  // namespace cuda_backend
