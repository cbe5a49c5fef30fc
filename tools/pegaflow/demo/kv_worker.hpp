// SPDX-License-Identifier: Apache-2.0
// kv_worker.hpp - one worker of a pretended serving replica: KV memory in the layout of a model, in shared memory or on a GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pegaflow/client.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::cli {

// What the replica's KV cache looks like.
struct DemoModel {
    std::string name;
    std::uint32_t layers = 32;
    std::uint32_t segments = 2;
    std::uint64_t segment_bytes = 16 * 8 * 128 * 2;  // of one block: tokens x KV heads x head dimension x bfloat16
    std::uint32_t state_layers = 0;                  // further layers of storage group 1
    std::uint64_t state_bytes = 0;                   // of one block of these
    std::uint32_t tp = 1;                            // shards
    std::uint32_t replicas = 1;                      // workers that hold the same bytes (latent attention)
    bool page_first = false;

    std::uint32_t workers() const noexcept { return tp * replicas; }
    std::uint64_t block_bytes() const noexcept { return layers * segments * segment_bytes + state_layers * state_bytes; }
};

class KvWorker {
public:
    // `device`: "cuda:0", or "" for shared memory.
    static Result<std::unique_ptr<KvWorker>> create(const DemoModel& model, std::uint32_t number, std::uint32_t blocks,
                                                    const std::string& device);
    ~KvWorker();

    Result<WorkerRegistration> registration(const std::string& instance) const;
    std::vector<std::string_view> layer_names(std::uint32_t group) const;
    std::uint32_t tp_rank() const noexcept { return model_.tp == 1 ? 0 : number_; }
    std::int32_t device_id() const noexcept { return static_cast<std::int32_t>(number_); }
    std::uint64_t bytes() const noexcept { return bytes_; }

    // Fills all blocks with the cache that `seed` names (replicas hold the same), or with poison.
    Result<void> fill(std::uint64_t seed);
    Result<void> poison();
    Result<std::uint64_t> wrong_words(std::uint64_t seed);

private:
    struct Gpu;
    struct Place {
        std::uint64_t offset, stride, segment_stride, bytes;  // of a layer within the memory; bytes of one segment of a block
        std::uint32_t segments;
    };
    KvWorker(const DemoModel& model, std::uint32_t number, std::uint32_t blocks);
    Result<void> map_shared_memory();
    Place place(std::uint32_t layer) const noexcept;
    std::uint64_t shard_seed(std::uint64_t seed) const noexcept;

    DemoModel model_;
    std::uint32_t number_ = 0, blocks_ = 0;
    std::vector<std::string> names_;
    std::string shm_name_;
    std::uint64_t bytes_ = 0;
    std::uint8_t* data_ = nullptr;  // of the shared memory, or of the GPU's staging memory
    std::unique_ptr<Gpu> gpu_;
};

}  // namespace pegaflow::cli
