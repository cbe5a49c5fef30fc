// SPDX-License-Identifier: Apache-2.0
// load.hpp - a matrix product that keeps a GPU busy beside the copies, and counts how fast it gets on.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "pegaflow/result.hpp"

namespace pegaflow::cli {

// bfloat16 products of two square matrices of random values by cuBLAS, which is opened at run time. [serial] but for
// `products`.
class GpuLoad {
public:
    // kUnsupported with the reason when there is no driver, no cuBLAS (LD_LIBRARY_PATH) or no memory.
    static Result<std::unique_ptr<GpuLoad>> open(std::uint32_t gpu, std::uint32_t size = 8192);
    ~GpuLoad();
    // Runs products until `stop`; the thread that calls it does nothing else.
    Result<void> run(const std::atomic<bool>& stop);
    // That have ended.
    std::uint64_t products() const noexcept { return products_.load(std::memory_order_relaxed); }

private:
    struct State;
    explicit GpuLoad(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
    std::atomic<std::uint64_t> products_{0};
};

}  // namespace pegaflow::cli
