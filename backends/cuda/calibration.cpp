// SPDX-License-Identifier: Apache-2.0
#include "calibration.hpp"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace cuda_backend {
namespace {

// Twice the largest batch on both sides, so that pages can be scattered.
constexpr std::uint64_t kSideBytes = 2 * kBatches.back();
constexpr std::uint64_t kMostCopies = 512;  // of paths that queue copies one by one: beyond, the rate stays what it is
constexpr int kRepetitions = 2;
constexpr std::uint64_t kMostInFlight = 8;

// A region and a channel for as long as the measurement takes.
class Bench {
public:
    explicit Bench(pega_device& device) : device_(device) {}
    ~Bench() {
        if (channel_ != nullptr) kChannelTable.close(channel_, UINT64_MAX);
        if (gpu_ != nullptr) kRegionTable.unregister(gpu_);
        if (host_ != nullptr) kRegionTable.unregister(host_);
        pega_completion left{};
        left.size = sizeof left;
        while (kCompletionTable.poll(&device_, &left, 1) != 0) left.size = sizeof left;
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    bool open() {
        pega_channel_params params{};
        params.size = sizeof params;
        return allocate(PEGA_MEMORY_GPU, kSideBytes, &gpu_) && allocate(PEGA_MEMORY_HOST, kSideBytes, &host_) &&
               kChannelTable.open(&device_, &params, &channel_) == PEGA_OK;
    }

    // Bytes per second of the best repetition; zero when the copies fail.
    double rate(bool to_gpu, bool scattered, std::uint64_t fragment, std::uint64_t bytes, std::uint64_t in_flight) {
        const std::uint64_t count = bytes / fragment;
        std::vector<std::uint64_t> places(kSideBytes / fragment);
        std::iota(places.begin(), places.end(), 0);
        std::vector<std::uint64_t> pages = places;
        std::shuffle(places.begin(), places.end(), random_);
        if (scattered) std::shuffle(pages.begin(), pages.end(), random_);
        pega_span span{gpu_, host_, 0, fragment, 0, 0, fragment, 0, fragment, 1, 0};
        pega_batch batch{};
        batch.size = sizeof batch;
        batch.op = to_gpu ? PEGA_OP_READ : PEGA_OP_WRITE;
        batch.format = PEGA_FORMAT_SPANS;
        batch.span_size = sizeof span;
        batch.spans = &span;
        batch.span_count = 1;
        batch.local_index = places.data();
        batch.remote_index = pages.data();
        batch.index_count = count;
        std::uint64_t best = UINT64_MAX;
        for (int i = 0; i <= kRepetitions; ++i) {
            const std::uint64_t took = run(batch, in_flight);
            if (took == 0) return 0;
            if (i != 0) best = std::min(best, took);  // the first one warms up
        }
        return static_cast<double>(bytes) * 1e9 / static_cast<double>(best);
    }

private:
    bool allocate(std::uint32_t kind, std::uint64_t length, pega_region** out) {
        pega_memory memory{};
        memory.size = sizeof memory;
        memory.kind = kind;
        memory.source = PEGA_SOURCE_ALLOCATE;
        memory.length = length;
        return kRegionTable.register_memory(&device_, &memory, out) == PEGA_OK;
    }
    std::uint64_t now() const { return device_.host->now_ns(device_.host->context); }
    // Nanoseconds for one batch when several are in flight; zero when one failed.
    std::uint64_t run(pega_batch& batch, std::uint64_t in_flight) {
        const std::uint64_t start = now();
        std::uint64_t submitted = 0;
        std::uint64_t ended = 0;
        bool ok = true;
        while (ended < in_flight) {
            if (submitted < in_flight) {
                batch.user_data = submitted++;
                if (kChannelTable.submit(channel_, &batch) != PEGA_OK) return 0;
            }
            // Between submissions too: in earnest a poller feeds the GPU while the next batch is planned.
            pega_completion done{};
            done.size = sizeof done;
            if (kCompletionTable.poll(&device_, &done, 1) == 0) continue;
            ++ended;
            ok = ok && done.status == PEGA_OK;
        }
        return ok ? std::max<std::uint64_t>((now() - start) / in_flight, 1) : 0;
    }

    pega_device& device_;
    pega_region* gpu_ = nullptr;
    pega_region* host_ = nullptr;
    pega_channel* channel_ = nullptr;
    std::mt19937_64 random_{1};
};

bool can_measure(const pega_device& device, Path path) {
    switch (path) {
        case Path::kBatch:
            return device.driver->has_batched_copies();
        case Path::kBulk:
            return device.kernels.usable(path);
        case Path::kVector:  // where there is the bulk kernel, it is for unaligned copies alone
            return device.kernels.usable(path);
        case Path::kStaged:
            return device.kernels.usable(Path::kVector);
        default:
            return true;
    }
}

}  // namespace

bool measure_paths(pega_device& device, PathTable& table) {
    Bench bench(device);
    if (!bench.open()) return false;
    const Path forced = device.settings.forced;
    PathTable out;
    bool ok = true;
    for (std::size_t p = 0; p < kPaths; ++p) {
        const Path path = static_cast<Path>(p);
        const bool one_by_one = path == Path::kLoop || path == Path::kBatch;
        device.settings.forced = path;
        for (const bool to_gpu : {false, true}) {
            for (std::size_t f = 0; f < kFragments.size(); ++f) {
                for (std::size_t b = 0; b < kBatches.size(); ++b) {
                    std::uint64_t bytes = std::max(kBatches[b], kFragments[f]);
                    if (one_by_one) bytes = std::min(bytes, kMostCopies * kFragments[f]);
                    // Large batches keep the link busy together; small ones are waited for one by one.
                    const std::uint64_t in_flight = b + 1 == kBatches.size() ? kMostInFlight : 1;
                    double& rate = out.at(to_gpu, path, f, b);
                    rate = !can_measure(device, path)
                               ? 0
                               : bench.rate(to_gpu, path != Path::kStaged, kFragments[f], bytes, in_flight);
                    ok = ok && (path != Path::kLoop || rate > 0);
                }
            }
        }
    }
    device.settings.forced = forced;
    if (!ok) return false;
    out.measured = true;
    table = out;
    return true;
}

void calibrate(pega_device& device) {
    if (device.settings.calibrate == Calibrate::kOff) return;
    const std::string identity = calibration_identity(device);
    const std::string path = calibration_path(device);
    if (device.settings.calibrate == Calibrate::kAuto && !path.empty() && read_calibration(path, identity, device.table))
        return;
    if (!measure_paths(device, device.table)) {
        pegaflow::backend::log(device.host, PEGA_LOG_WARNING, "cuda",
                               "GPU %d was not calibrated (128 MiB of pinned and of GPU memory are needed); copy paths are "
                               "chosen by built-in estimates",
                               device.index);
        return;
    }
    if (!path.empty() && !write_calibration(path, identity, device.table)) {
        pegaflow::backend::log(device.host, PEGA_LOG_WARNING, "cuda", "the calibration of GPU %d cannot be kept in %s",
                               device.index, path.c_str());
    }
}

}  // namespace cuda_backend
