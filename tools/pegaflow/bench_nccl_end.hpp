// SPDX-License-Identifier: Apache-2.0
// bench_nccl_end.hpp - one of the two processes of `bench nccl`: its GPU's memory, and plain NCCL beside the back end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/nccl/nccl_api.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::cli {

// What plain NCCL moves: `messages` of `bytes` each, `iterations` times, on one stream.
struct PlainPlan {
    bool sends = false;
    std::uint64_t bytes = 0, messages = 0;
    std::uint32_t iterations = 0;
};

class NcclEnd {
public:
    static Result<std::unique_ptr<NcclEnd>> open(const FabricOptions& options, const std::string& device, std::uint64_t bytes);
    ~NcclEnd();

    Device& device() noexcept { return *device_; }
    Region& region() noexcept { return region_; }
    // A pattern of the seed, or poison.
    Result<void> fill(bool pattern, std::uint64_t seed);
    // The region's bytes, copied to the host.
    Result<const std::byte*> image();

    // A communicator of this library's own, made by blocking calls; the other process does the same at the same time.
    Result<void> join(const nccl_backend::UniqueId& id, int rank);
    // Queues it all and waits for the end. Messages of one iteration go in groups, which is the fastest that NCCL offers.
    Result<void> plain(const PlainPlan& plan);

private:
    NcclEnd() = default;
    Result<void> copy(bool to_image);

    struct Plain;
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region region_, image_;
    Channel self_;
    std::unique_ptr<Plain> plain_;
    int rank_ = 0;
};

}  // namespace pegaflow::cli
