// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <algorithm>
#include <bit>

extern "C" const char pega_copy_sm80_ptx[];  // zero-terminated; ptx.S
extern "C" const char pega_copy_sm90_ptx[];

namespace cuda_backend {
namespace {

constexpr unsigned kStaticShared = 16U << 10;  // what the kernels themselves declare, rounded up
constexpr unsigned kSmallestStage = 512;
constexpr unsigned kLargestStage = 16U << 10;

}  // namespace

void Kernels::load(const Driver& driver, Device device) {
    int major = 0;
    int shared = 0;
    driver.cuDeviceGetAttribute(&major, kAttributeMajor, device);
    driver.cuDeviceGetAttribute(&shared, kAttributeSharedOptIn, device);
    if (major < 8) {
        problem_ = "the GPU is older than compute capability 8.0";
        return;
    }
    if (driver.cuModuleLoadData(&module_, major >= 9 ? pega_copy_sm90_ptx : pega_copy_sm80_ptx) != kSuccess) {
        module_ = nullptr;
        problem_ = "the driver does not take the kernels";
        return;
    }
    const auto find = [&](const char* name) {
        Function function = nullptr;
        if (driver.cuModuleGetFunction(&function, module_, name) != kSuccess) return Function{};
        // Else the first copy by it would wait for that.
        if (driver.cuFuncLoad != nullptr) driver.cuFuncLoad(function);
        return function;
    };
    vector_ = {find("pega_copy_vector"), find("pega_copy_vector_digest")};
    if (static_cast<unsigned>(shared) < 4 * kStaticShared) return;
    shared_bytes_ = static_cast<unsigned>(shared) - kStaticShared;
    room_ = {find("pega_room"), kMostWarps * 32, shared_bytes_};
    if (room_.function != nullptr &&
        driver.cuFuncSetAttribute(room_.function, kFunctionMaxDynamicShared, static_cast<int>(shared_bytes_)) != kSuccess)
        room_ = {};
    if (major < 9) return;
    bulk4_ = {find("pega_copy_bulk_4"), find("pega_copy_bulk_4_digest")};
    bulk8_ = {find("pega_copy_bulk_8"), find("pega_copy_bulk_8_digest")};
    inline_ = {find("pega_copy_bulk_4_inline"), find("pega_copy_bulk_8_inline")};
    for (const Function function : {bulk4_[0], bulk4_[1], bulk8_[0], bulk8_[1], inline_[0], inline_[1]}) {
        if (function == nullptr ||
            driver.cuFuncSetAttribute(function, kFunctionMaxDynamicShared, static_cast<int>(shared_bytes_)) != kSuccess)
            bulk4_ = bulk8_ = {};
    }
}

void Kernels::unload(const Driver& driver) noexcept {
    if (module_ != nullptr) driver.cuModuleUnload(module_);
    *this = {};
}

LaunchShape Kernels::shape(Path kernel, std::uint64_t bytes) const noexcept {
    if (kernel == Path::kVector) return {32, 1U << 20, false};
    const auto stage = std::clamp(static_cast<unsigned>(std::bit_ceil(std::min<std::uint64_t>(bytes, kLargestStage))),
                                  kSmallestStage, kLargestStage);
    // Small copies need many in flight, large ones fill the rings with fewer.
    const bool eight = stage <= 2048;
    const unsigned warps = std::clamp(shared_bytes_ / (stage * (eight ? 8 : 4)), 1U, kMostWarps);
    return {warps, stage, eight};
}

unsigned Kernels::divide(const LaunchShape& shape, unsigned multiprocessors, Job& job) noexcept {
    const std::uint64_t count = static_cast<std::uint64_t>(job.tile_count) * job.pair_count;
    const std::uint64_t warps = static_cast<std::uint64_t>(shape.warps) * multiprocessors;
    job.stage_bytes = shape.stage_bytes;
    job.group = static_cast<unsigned>(std::clamp<std::uint64_t>(count / (warps * 4), 1, 32));
    return static_cast<unsigned>(std::min<std::uint64_t>(multiprocessors, (count + job.group - 1) / job.group));
}

Result Kernels::launch(const Driver& driver, Path kernel, const LaunchShape& shape, Job job, unsigned multiprocessors,
                       Stream stream) const noexcept {
    if (job.tile_count == 0 || job.pair_count == 0) return kSuccess;
    const unsigned blocks = divide(shape, multiprocessors, job);
    const auto& functions = kernel == Path::kVector ? vector_ : (shape.eight_stages ? bulk8_ : bulk4_);
    const unsigned shared = kernel == Path::kVector ? 0 : shape.shared_bytes();
    void* parameters[] = {&job};
    return driver.cuLaunchKernel(functions[job.sums != nullptr ? 1 : 0], blocks, 1, 1, shape.warps * 32, 1, 1, shared, stream,
                                 parameters, nullptr);
}

Result Kernels::launch(const Driver& driver, const LaunchShape& shape, InlineJob& job, unsigned multiprocessors,
                       Stream stream) const noexcept {
    if (job.job.tile_count == 0 || job.job.pair_count == 0) return kSuccess;
    const unsigned blocks = divide(shape, multiprocessors, job.job);
    void* parameters[] = {&job};
    return driver.cuLaunchKernel(inline_[shape.eight_stages ? 1 : 0], blocks, 1, 1, shape.warps * 32, 1, 1,
                                 shape.shared_bytes(), stream, parameters, nullptr);
}

}  // namespace cuda_backend
