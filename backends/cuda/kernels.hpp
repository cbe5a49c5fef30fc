// SPDX-License-Identifier: Apache-2.0
// kernels.hpp - the copy kernels, loaded into one GPU's context, and how they are launched.
#pragma once

#include <array>
#include <cstdint>

#include "driver.hpp"
#include "kernels/job.hpp"
#include "paths.hpp"

namespace cuda_backend {

// How a launch divides its work. Chosen for the largest copy of a job.
struct LaunchShape {
    unsigned warps = 0;        // of a block
    unsigned stage_bytes = 0;  // bulk kernel: also the largest copy that it takes
    bool eight_stages = false;
    unsigned shared_bytes() const noexcept { return warps * (eight_stages ? 8 : 4) * stage_bytes; }
};

// One block that needs a multiprocessor for itself, as copy kernels do, and does nothing. Without a function there is none.
struct RoomKernel {
    Function function = nullptr;
    unsigned threads = 0;
    unsigned shared_bytes = 0;
};

class Kernels {
public:
    // Loads the code that fits the GPU; the context is current. What cannot be loaded is not usable, with the reason.
    void load(const Driver& driver, Device device);
    void unload(const Driver& driver) noexcept;

    bool usable(Path kernel) const noexcept { return (kernel == Path::kBulk ? bulk4_ : vector_)[0] != nullptr; }
    const char* problem() const noexcept { return problem_; }
    // The shape for copies of at most `bytes`. [data]
    LaunchShape shape(Path kernel, std::uint64_t bytes) const noexcept;
    // Queues one job on `multiprocessors` multiprocessors. [data]
    Result launch(const Driver& driver, Path kernel, const LaunchShape& shape, Job job, unsigned multiprocessors,
                  Stream stream) const noexcept;
    // The same by the bulk kernel, with descriptors that travel along. `job` is borrowed for the call. [data]
    Result launch(const Driver& driver, const LaunchShape& shape, InlineJob& job, unsigned multiprocessors,
                  Stream stream) const noexcept;

    RoomKernel room() const noexcept { return room_; }

private:
    Module module_ = nullptr;
    // How many blocks; the rest of how work is divided is written to the job.
    static unsigned divide(const LaunchShape& shape, unsigned multiprocessors, Job& job) noexcept;

    using Pair = std::array<Function, 2>;  // without and with digests
    Pair bulk4_{}, bulk8_{}, vector_{};
    Pair inline_{};  // four and eight stages
    RoomKernel room_;
    unsigned shared_bytes_ = 0;  // dynamic shared memory that a block may have
    const char* problem_ = "";
};

}  // namespace cuda_backend
