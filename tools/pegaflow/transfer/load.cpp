// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/load.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <random>
#include <vector>

namespace pegaflow::cli {
namespace {

constexpr int kBfloat16 = 14;      // CUDA_R_16BF
constexpr int kComputeFloat = 68;  // CUBLAS_COMPUTE_32F
constexpr int kDefaultGemm = -1;   // CUBLAS_GEMM_DEFAULT
constexpr int kNoTranspose = 0;    // CUBLAS_OP_N
constexpr int kInFlight = 2;       // products queued ahead, so that the GPU never waits for the host

template <class Function>
bool find(void* library, const char* name, Function& out) {
    out = reinterpret_cast<Function>(::dlsym(library, name));
    return out != nullptr;
}

}  // namespace

struct GpuLoad::State {
    int (*retain)(void**, int) = nullptr;
    int (*release)(int) = nullptr;
    int (*set_current)(void*) = nullptr;
    int (*allocate)(unsigned long long*, std::size_t) = nullptr;
    int (*free)(unsigned long long) = nullptr;
    int (*upload)(unsigned long long, const void*, std::size_t) = nullptr;
    int (*stream_create)(void**, unsigned) = nullptr;
    int (*event_create)(void**, unsigned) = nullptr;
    int (*event_record)(void*, void*) = nullptr;
    int (*event_wait)(void*) = nullptr;
    int (*stream_wait)(void*) = nullptr;
    int (*create)(void**) = nullptr;
    int (*destroy)(void*) = nullptr;
    int (*set_stream)(void*, void*) = nullptr;
    int (*gemm)(void*, int, int, int, int, int, const void*, const void*, int, int, const void*, int, int, const void*, void*,
                int, int, int, int) = nullptr;

    int gpu = 0;
    int size = 0;
    void* context = nullptr;
    void* stream = nullptr;
    void* blas = nullptr;
    void* ends[kInFlight] = {};
    unsigned long long matrices[3] = {};

    bool resolve(void* cuda, void* cublas) {
        return find(cuda, "cuDevicePrimaryCtxRetain", retain) && find(cuda, "cuDevicePrimaryCtxRelease_v2", release) &&
               find(cuda, "cuCtxSetCurrent", set_current) && find(cuda, "cuMemAlloc_v2", allocate) &&
               find(cuda, "cuMemFree_v2", free) && find(cuda, "cuMemcpyHtoD_v2", upload) &&
               find(cuda, "cuStreamCreate", stream_create) && find(cuda, "cuEventCreate", event_create) &&
               find(cuda, "cuEventRecord", event_record) && find(cuda, "cuEventSynchronize", event_wait) &&
               find(cuda, "cuStreamSynchronize", stream_wait) && find(cublas, "cublasCreate_v2", create) &&
               find(cublas, "cublasDestroy_v2", destroy) && find(cublas, "cublasSetStream_v2", set_stream) &&
               find(cublas, "cublasGemmEx", gemm);
    }
    bool fill() {
        const auto elements = static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
        std::vector<std::uint16_t> values(elements);
        std::mt19937 random(1);
        // Sign and mantissa at random, exponents around one: real data, which costs more power than zeros.
        for (auto& value : values) value = static_cast<std::uint16_t>((random() & 0x807f) | 0x3f00);
        for (unsigned long long& matrix : matrices) {
            if (allocate(&matrix, elements * 2) != 0 || upload(matrix, values.data(), elements * 2) != 0) return false;
        }
        return true;
    }
    bool multiply() {
        const float one = 1;
        const float zero = 0;
        const auto at = [&](int i) { return reinterpret_cast<void*>(matrices[i]); };
        return gemm(blas, kNoTranspose, kNoTranspose, size, size, size, &one, at(0), kBfloat16, size, at(1), kBfloat16, size,
                    &zero, at(2), kBfloat16, size, kComputeFloat, kDefaultGemm) == 0;
    }
    ~State() {
        if (context == nullptr) return;
        set_current(context);
        if (blas != nullptr) destroy(blas);
        for (const unsigned long long matrix : matrices) {
            if (matrix != 0) free(matrix);
        }
        release(gpu);
    }
};

GpuLoad::GpuLoad(std::unique_ptr<State> state) : state_(std::move(state)) {}
GpuLoad::~GpuLoad() = default;

Result<std::unique_ptr<GpuLoad>> GpuLoad::open(std::uint32_t gpu, std::uint32_t size) {
    void* cuda = ::dlopen("libcuda.so.1", RTLD_NOW);
    void* cublas = nullptr;
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
        if (cublas == nullptr) cublas = ::dlopen(name, RTLD_NOW);
    }
    auto state = std::make_unique<State>();
    if (cuda == nullptr || cublas == nullptr || !state->resolve(cuda, cublas))
        return fail(Code::kUnsupported, "a matrix product needs libcuda and libcublas; put the latter on LD_LIBRARY_PATH");
    State& s = *state;
    s.gpu = static_cast<int>(gpu);
    s.size = static_cast<int>(size);
    if (s.retain(&s.context, s.gpu) != 0) return fail(Code::kUnsupported, fmt::format("GPU {} cannot be used", gpu));
    s.set_current(s.context);
    bool ok = s.stream_create(&s.stream, 1) == 0 && s.create(&s.blas) == 0 && s.set_stream(s.blas, s.stream) == 0 && s.fill();
    for (void*& end : s.ends) ok = ok && s.event_create(&end, 2) == 0;
    if (!ok) return fail(Code::kNoMemory, fmt::format("three {0}x{0} matrices or cuBLAS do not fit on GPU {1}", size, gpu));
    return std::unique_ptr<GpuLoad>(new GpuLoad(std::move(state)));
}

Result<void> GpuLoad::run(const std::atomic<bool>& stop) {
    State& s = *state_;
    s.set_current(s.context);
    for (std::uint64_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        void* end = s.ends[i % kInFlight];
        if (i >= kInFlight) {
            if (s.event_wait(end) != 0) return fail(Code::kInternal, "the matrix product failed on the GPU");
            products_.fetch_add(1, std::memory_order_relaxed);
        }
        if (!s.multiply() || s.event_record(end, s.stream) != 0) return fail(Code::kInternal, "cublasGemmEx failed");
    }
    s.stream_wait(s.stream);
    return {};
}

}  // namespace pegaflow::cli
