// SPDX-License-Identifier: Apache-2.0
// The calibration table for those who want to see it (abi/ext/calibration.h).
#include <cstdio>

#include "device.hpp"
#include "pegaflow/abi/ext/calibration.h"

namespace cuda_backend {
namespace {

// Where the host's side is one run, as the pool lays blocks out for page-first layouts.
Path chosen(const PathTable& table, bool to_gpu, std::uint64_t fragment, std::uint64_t bytes) {
    unsigned usable = 0;
    for (std::size_t p = 0; p < kPaths; ++p) {
        const Path path = static_cast<Path>(p);
        const Workload workload{to_gpu, fragment, bytes, bytes};
        if (table.expect(path, workload) > 0) usable |= 1U << p;
    }
    return table.choose({to_gpu, fragment, bytes, bytes}, usable).path;
}

pega_status rates(pega_device* device, pega_path_rate* out, std::uint32_t capacity, std::uint32_t* count) {
    if (device == nullptr || count == nullptr || (out == nullptr && capacity != 0)) return PEGA_INVALID;
    const PathTable& table = device->table;
    const std::uint32_t stride = out == nullptr ? 0 : out->size;
    *count = 0;
    for (const bool to_gpu : {false, true}) {
        for (std::size_t f = 0; f < kFragments.size(); ++f) {
            for (std::size_t b = 0; b < kBatches.size(); ++b) {
                const Path best = chosen(table, to_gpu, kFragments[f], kBatches[b]);
                for (std::size_t p = 0; p < kPaths; ++p, ++*count) {
                    if (*count >= capacity) continue;
                    const Path path = static_cast<Path>(p);
                    pega_path_rate rate{};
                    rate.size = stride;
                    rate.op = to_gpu ? PEGA_OP_READ : PEGA_OP_WRITE;
                    rate.flags = (path == best ? PEGA_RATE_CHOSEN : 0) | (table.measured ? PEGA_RATE_MEASURED : 0);
                    std::snprintf(rate.path, sizeof rate.path, "%s", name_of(path));
                    rate.fragment_bytes = kFragments[f];
                    rate.batch_bytes = kBatches[b];
                    rate.bytes_per_second = static_cast<std::uint64_t>(table.at(to_gpu, path, f, b));
                    auto* element = reinterpret_cast<pega_path_rate*>(reinterpret_cast<unsigned char*>(out) +
                                                                      static_cast<std::size_t>(*count) * stride);
                    element->size = stride;
                    pegaflow::backend::copy_out(element, rate);
                }
            }
        }
    }
    return PEGA_OK;
}

}  // namespace

const pega_ext_calibration kCalibrationTable = {sizeof(pega_ext_calibration), 0, &rates};

}  // namespace cuda_backend
