// SPDX-License-Identifier: Apache-2.0
// Our declarations of the CUDA driver against its header. Compiled where a cuda.h is found; what compiles is right.
#include <cstddef>
#include <type_traits>

#include "driver.hpp"

namespace {

// cuda.h makes macros of some names, for later forms of the functions: ours are taken down before.
#define PEGA_FUNCTIONS(VISIT)           \
    VISIT(cuInit)                       \
    VISIT(cuDeviceGetCount)             \
    VISIT(cuDeviceGet)                  \
    VISIT(cuDeviceGetName)              \
    VISIT(cuDeviceGetUuid_v2)           \
    VISIT(cuDeviceTotalMem_v2)          \
    VISIT(cuDeviceGetAttribute)         \
    VISIT(cuDevicePrimaryCtxRetain)     \
    VISIT(cuDevicePrimaryCtxRelease_v2) \
    VISIT(cuCtxPushCurrent_v2)          \
    VISIT(cuCtxPopCurrent_v2)           \
    VISIT(cuMemAlloc_v2)                \
    VISIT(cuMemFree_v2)                 \
    VISIT(cuMemHostAlloc)               \
    VISIT(cuMemFreeHost)                \
    VISIT(cuMemHostRegister_v2)         \
    VISIT(cuMemHostUnregister)          \
    VISIT(cuMemGetAddressRange_v2)      \
    VISIT(cuPointerGetAttribute)        \
    VISIT(cuIpcGetMemHandle)            \
    VISIT(cuIpcOpenMemHandle_v2)        \
    VISIT(cuIpcCloseMemHandle)          \
    VISIT(cuIpcGetEventHandle)          \
    VISIT(cuIpcOpenEventHandle)         \
    VISIT(cuStreamCreateWithPriority)   \
    VISIT(cuStreamDestroy_v2)           \
    VISIT(cuStreamWaitEvent)            \
    VISIT(cuStreamSynchronize)          \
    VISIT(cuEventCreate)                \
    VISIT(cuEventDestroy_v2)            \
    VISIT(cuEventRecord)                \
    VISIT(cuEventQuery)                 \
    VISIT(cuEventElapsedTime)           \
    VISIT(cuMemcpyAsync)                \
    VISIT(cuMemsetD8Async)              \
    VISIT(cuGetErrorString)             \
    VISIT(cuDriverGetVersion)           \
    VISIT(cuCtxGetStreamPriorityRange)  \
    VISIT(cuMemHostGetDevicePointer_v2) \
    VISIT(cuModuleLoadData)             \
    VISIT(cuModuleUnload)               \
    VISIT(cuModuleGetFunction)          \
    VISIT(cuFuncSetAttribute)           \
    VISIT(cuLaunchKernel)               \
    VISIT(cuDeviceCanAccessPeer)        \
    VISIT(cuCtxEnablePeerAccess)

#define PEGA_TAKE_DOWN(name) using Our_##name = decltype(cuda_backend::Driver::name);
PEGA_FUNCTIONS(PEGA_TAKE_DOWN)
PEGA_TAKE_DOWN(cuFuncLoad)
PEGA_TAKE_DOWN(cuMemcpyBatchAsync)
PEGA_TAKE_DOWN(cuMemcpyBatchAsync_v2)

}  // namespace

#include <cuda.h>

namespace {

// Whether a value of ours is passed and read as theirs: numbers, enums and structs by size, pointers by what they point to.
// Their handles point to what only they know, ours to void.
template <class Ours, class Theirs>
constexpr bool alike() {
    if constexpr (std::is_function_v<Ours> || std::is_void_v<Ours>) {
        return true;
    } else if constexpr (std::is_pointer_v<Ours> && std::is_pointer_v<Theirs>) {
        return alike<std::remove_pointer_t<Ours>, std::remove_pointer_t<Theirs>>();
    } else {
        return sizeof(Ours) == sizeof(Theirs) && std::is_class_v<Ours> == std::is_class_v<Theirs> &&
               std::is_floating_point_v<Ours> == std::is_floating_point_v<Theirs> &&
               std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>;
    }
}

template <class Ours, class Theirs>
constexpr bool kSameCall = false;
template <class... Ours, class... Theirs>
constexpr bool kSameCall<cuda_backend::Result (*)(Ours...), CUresult (*)(Theirs...)> = [] {
    if constexpr (sizeof...(Ours) == sizeof...(Theirs)) {
        return (alike<Ours, Theirs>() && ...);
    } else {
        return false;
    }
}();

#define PEGA_COMPARE(name) static_assert(kSameCall<Our_##name, decltype(&name)>, #name);
PEGA_FUNCTIONS(PEGA_COMPARE)
#if CUDA_VERSION >= 12040
PEGA_COMPARE(cuFuncLoad)
#endif
#if CUDA_VERSION >= 13000
static_assert(kSameCall<Our_cuMemcpyBatchAsync_v2, decltype(&cuMemcpyBatchAsync)>, "the form of 13.0");
#elif CUDA_VERSION >= 12080
static_assert(kSameCall<Our_cuMemcpyBatchAsync, decltype(&cuMemcpyBatchAsync)>, "the form of 12.8");
#endif
static_assert(sizeof(CUresult) == sizeof(cuda_backend::Result));

#define PEGA_VALUE(ours, theirs) \
    static_assert(static_cast<long long>(cuda_backend::ours) == static_cast<long long>(theirs), #theirs)
PEGA_VALUE(kSuccess, CUDA_SUCCESS);
PEGA_VALUE(kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
PEGA_VALUE(kNotReady, CUDA_ERROR_NOT_READY);
PEGA_VALUE(kPeerAccessUnsupported, CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
PEGA_VALUE(kPeerAccessAlreadyEnabled, CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
PEGA_VALUE(kHostMemoryAlreadyRegistered, CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
PEGA_VALUE(kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
PEGA_VALUE(kEventDisableTiming, CU_EVENT_DISABLE_TIMING);
PEGA_VALUE(kEventInterprocess, CU_EVENT_INTERPROCESS);
PEGA_VALUE(kHostPortable, CU_MEMHOSTREGISTER_PORTABLE);
PEGA_VALUE(kHostPortable, CU_MEMHOSTALLOC_PORTABLE);
PEGA_VALUE(kIpcLazyEnablePeerAccess, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
PEGA_VALUE(kPointerDeviceOrdinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
PEGA_VALUE(kPointerRangeStart, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
PEGA_VALUE(kPointerRangeSize, CU_POINTER_ATTRIBUTE_RANGE_SIZE);
PEGA_VALUE(kAttributeMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
PEGA_VALUE(kAttributeMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
PEGA_VALUE(kAttributeMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
PEGA_VALUE(kAttributeSharedOptIn, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
PEGA_VALUE(kFunctionMaxDynamicShared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
PEGA_VALUE(kAttributePciBus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID);
PEGA_VALUE(kAttributePciDevice, CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID);
PEGA_VALUE(kAttributePciDomain, CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID);

static_assert(sizeof(cuda_backend::IpcHandle) == sizeof(CUipcMemHandle) &&
              sizeof(cuda_backend::IpcHandle) == sizeof(CUipcEventHandle));
static_assert(sizeof(cuda_backend::Uuid) == sizeof(CUuuid));
#if CUDA_VERSION >= 12080
using OurAttributes = cuda_backend::CopyAttributes;
static_assert(sizeof(OurAttributes) == sizeof(CUmemcpyAttributes));
static_assert(offsetof(OurAttributes, source_hint) == offsetof(CUmemcpyAttributes, srcLocHint));
static_assert(offsetof(OurAttributes, target_hint) == offsetof(CUmemcpyAttributes, dstLocHint));
static_assert(offsetof(OurAttributes, flags) == offsetof(CUmemcpyAttributes, flags));
PEGA_VALUE(kSourceOrderStream, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
PEGA_VALUE(kCopyOverlapsCompute, CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE);
#endif

}  // namespace
