// SPDX-License-Identifier: Apache-2.0
// paths.hpp - the ways to copy, and the table of measured rates that one is chosen by.
//
// Rates are measured for a direction, a fragment size and a batch size at a time (calibration.hpp); between measured sizes the
// logarithm of the size is interpolated.
#pragma once

#include <array>
#include <cstdint>

namespace cuda_backend {

enum class Path : std::uint8_t {
    kLoop,    // one queued copy a run, by the copy engine
    kBatch,   // the driver's batched copies, by the copy engine
    kBulk,    // kernel, cp.async.bulk through shared memory
    kVector,  // kernel, loads and stores of 16 bytes a thread
    kStaged,  // kernel between scattered GPU memory and a ring in GPU memory, copy engine between ring and host
    kCount,
    kAuto = kCount,
    kShared,  // not in the table: one of the kernel paths and batched copies, each with a part of the same batch
};

const char* name_of(Path path) noexcept;

constexpr std::size_t kPaths = static_cast<std::size_t>(Path::kCount);
constexpr std::array<std::uint64_t, 8> kFragments = {2U << 10,  8U << 10,   16U << 10,  32U << 10,
                                                     64U << 10, 128U << 10, 512U << 10, 2U << 20};
constexpr std::array<std::uint64_t, 3> kBatches = {1U << 20, 8U << 20, 64U << 20};

// What a choice depends on.
struct Workload {
    bool to_gpu = false;
    std::uint64_t fragment = 0;  // mean bytes of a run that is consecutive on both sides
    std::uint64_t page_run = 0;  // mean consecutive bytes on the host
    std::uint64_t bytes = 0;     // that move before anyone waits: the batch, or what lies between two marks
    bool crowded = false;        // a model has the multiprocessors (contention.hpp)
};

struct Choice {
    Path path = Path::kLoop;
    bool shared = false;      // with the copy engine
    bool needs_room = false;  // kernels are the fastest: whether there is room for them decides
};

class PathTable {
public:
    // Bytes per second; zero = cannot be used here.
    using Rates = std::array<std::array<std::array<std::array<double, kBatches.size()>, kFragments.size()>, kPaths>, 2>;

    PathTable();  // the built-in estimate, for when nothing was measured

    double& at(bool to_gpu, Path path, std::size_t fragment, std::size_t batch) noexcept {
        return rates_[to_gpu][static_cast<std::size_t>(path)][fragment][batch];
    }
    double at(bool to_gpu, Path path, std::size_t fragment, std::size_t batch) const noexcept {
        return rates_[to_gpu][static_cast<std::size_t>(path)][fragment][batch];
    }
    // Expected bytes per second. For the staged path also bounded by what the copy engine makes of the host's runs. [data]
    double expect(Path path, const Workload& workload) const noexcept;
    // The fastest path among those in `usable` (bit per path), kLoop when none is known. Kernels must be faster, not as fast:
    // they take multiprocessors, and beside a busy model they wait for them. They share the work with the copy engine where
    // they wait, and where they alone do not fill the link. [data]
    Choice choose(const Workload& workload, unsigned usable) const noexcept;

    bool measured = false;

private:
    double interpolate(Path path, bool to_gpu, std::uint64_t fragment, std::uint64_t bytes) const noexcept;
    Rates rates_{};
};

}  // namespace cuda_backend
