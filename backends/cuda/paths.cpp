// SPDX-License-Identifier: Apache-2.0
#include "paths.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>

namespace cuda_backend {
namespace {

// Kernels take multiprocessors, and beside a busy model they wait for them, while the copy engine goes on undisturbed: they
// must be faster, by more than a measurement errs.
constexpr double kKernelHandicap = 0.98;
// Batched copies below that size are queued by the processor one after the other at about the link's rate: what an idle
// processor managed when it was measured, a busy one does not.
constexpr std::uint64_t kQueuedAtEase = 64U << 10;
constexpr double kQueueingHandicap = 0.95;
// Of the kernels, staged copies need multiprocessors for a third of the time only, and where batches follow each other gain
// more than a short measurement shows; a small batch that somebody waits for gains nothing by them, and takes more calls.
constexpr double kStagedBonus = 1.03;
constexpr std::uint64_t kStagedPays = 16U << 20;
// The copy engine alone is as good as both, and takes nothing from the model, from that part of the kernels' rate on.
constexpr double kEnough = 0.9;

// Where a value stands between the elements of a sorted list: the element before it, and how far towards the next.
template <std::size_t kCount>
std::pair<std::size_t, double> place(const std::array<std::uint64_t, kCount>& list, std::uint64_t value) noexcept {
    if (value <= list.front()) return {0, 0.0};
    if (value >= list.back()) return {kCount - 2, 1.0};
    std::size_t i = 0;
    while (list[i + 1] < value) ++i;
    const double low = std::log2(static_cast<double>(list[i]));
    const double high = std::log2(static_cast<double>(list[i + 1]));
    return {i, (std::log2(static_cast<double>(value)) - low) / (high - low)};
}

}  // namespace

const char* name_of(Path path) noexcept {
    static constexpr const char* kNames[] = {"loop", "batch", "bulk", "vector", "staged", "auto", "shared"};
    return kNames[static_cast<std::size_t>(path)];
}

// Shapes as a PCIe 5 x16 link shows them, in bytes per second; only their order matters, and only until they are measured.
PathTable::PathTable() {
    constexpr double kLink = 55e9;
    struct Shape {
        Path path;
        double per_copy_seconds, per_batch_seconds, ceiling;
    };
    constexpr Shape kShapes[] = {{Path::kLoop, 2.4e-6, 6e-6, 1.00},
                                 {Path::kBatch, 0.6e-6, 10e-6, 0.99},
                                 {Path::kBulk, 0.01e-6, 10e-6, 0.94},
                                 {Path::kVector, 0.06e-6, 10e-6, 0.92},
                                 {Path::kStaged, 0.01e-6, 40e-6, 0.97}};
    for (const Shape& shape : kShapes) {
        for (std::size_t f = 0; f < kFragments.size(); ++f) {
            for (std::size_t b = 0; b < kBatches.size(); ++b) {
                const double bytes = static_cast<double>(kBatches[b]);
                const double copies = std::max(1.0, bytes / static_cast<double>(kFragments[f]));
                const double moving = std::max(bytes / (kLink * shape.ceiling), copies * shape.per_copy_seconds);
                at(false, shape.path, f, b) = at(true, shape.path, f, b) = bytes / (moving + shape.per_batch_seconds);
            }
        }
    }
}

double PathTable::interpolate(Path path, bool to_gpu, std::uint64_t fragment, std::uint64_t bytes) const noexcept {
    const auto [f, along_f] = place(kFragments, fragment);
    const std::size_t b = place(kBatches, bytes).first;
    const auto low_bytes = static_cast<double>(kBatches[b]);
    const auto high_bytes = static_cast<double>(kBatches[b + 1]);
    const double clamped = std::clamp(static_cast<double>(bytes), low_bytes, high_bytes);
    const double along_b = (clamped - low_bytes) / (high_bytes - low_bytes);
    // A batch takes some time by itself and some for each byte: between two batches it is times that lie on a line.
    const auto row = [&](std::size_t i) {
        const double low = at(to_gpu, path, i, b);
        const double high = at(to_gpu, path, i, b + 1);
        if (low <= 0 || high <= 0) return 0.0;
        return clamped / (low_bytes / low * (1 - along_b) + high_bytes / high * along_b);
    };
    return row(f) * (1 - along_f) + row(f + 1) * along_f;
}

double PathTable::expect(Path path, const Workload& workload) const noexcept {
    const double rate = interpolate(path, workload.to_gpu, workload.fragment, workload.bytes);
    if (path != Path::kStaged) return rate;
    const double runs = std::max(interpolate(Path::kLoop, workload.to_gpu, workload.page_run, workload.bytes),
                                 interpolate(Path::kBatch, workload.to_gpu, workload.page_run, workload.bytes));
    return std::min(rate, runs);
}

Choice PathTable::choose(const Workload& workload, unsigned usable) const noexcept {
    const auto best_of = [&](std::initializer_list<Path> paths, double* rate) {
        Path best = Path::kLoop;
        double best_weight = 0;
        for (const Path path : paths) {
            if ((usable & (1U << static_cast<unsigned>(path))) == 0) continue;
            const double expected = expect(path, workload);
            const bool pays = path == Path::kStaged && workload.bytes >= kStagedPays;
            const double weight = expected * (pays ? kStagedBonus : 1.0);
            if (weight <= best_weight) continue;
            best = path;
            best_weight = weight;
            *rate = expected;
        }
        return best;
    };
    double engine_rate = 0;
    double kernel_rate = 0;
    const Path engine = best_of({Path::kLoop, Path::kBatch}, &engine_rate);
    const Path kernel = best_of({Path::kBulk, Path::kVector, Path::kStaged}, &kernel_rate);
    const bool at_ease = workload.fragment >= kQueuedAtEase;
    if (kernel_rate * kKernelHandicap <= engine_rate * (at_ease ? 1.0 : kQueueingHandicap)) return {engine, false};
    if ((usable & (1U << static_cast<unsigned>(Path::kBatch))) == 0) return {kernel, false};
    if (!workload.crowded) return {kernel, false, true};
    // Kernels that move data over the link themselves hold their multiprocessors all the time: one such kernel after the other,
    // and a model's persistent kernel does not get its last ones for long.
    if (kernel != Path::kStaged) return {engine, false, true};
    if (engine_rate >= (at_ease ? kEnough : 1.0) * kernel_rate) return {engine, false, true};
    return {kernel, true, true};
}

}  // namespace cuda_backend
