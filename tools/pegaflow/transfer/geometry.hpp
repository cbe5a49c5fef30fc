// SPDX-License-Identifier: Apache-2.0
// geometry.hpp - what one sample of a transfer benchmark moves: layers, segments and fragments, and where they lie on both
// sides.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"

namespace pegaflow::cli {

// The KV cache of one worker: `layers` tensors of `segments` (2 = K and V apart, 1 = one latent) of `fragment` bytes a block.
struct Geometry {
    std::string name;
    std::uint32_t layers = 1;
    std::uint32_t segments = 1;
    std::uint64_t fragment = 0;
    std::uint64_t page() const noexcept { return layers * segments * fragment; }
};

// kStrided: every second place, in their order.
enum class Order { kContiguous, kStrided, kRandom };
enum class Placement { kPageFirst, kLayerFirst };

struct Shape {
    Geometry geometry;
    std::uint64_t blocks = 0;
    Order device_order = Order::kRandom;
    Order host_order = Order::kContiguous;
    Placement device_placement = Placement::kLayerFirst;
    Placement host_placement = Placement::kPageFirst;
    std::uint64_t bytes() const noexcept { return blocks * geometry.page(); }
    std::uint64_t fragments() const noexcept { return blocks * geometry.layers * geometry.segments; }
    // Places for blocks on each side: strided ones on the device, and scattered pages of the host, have as much unused memory
    // between them.
    std::uint64_t device_places() const noexcept { return device_order == Order::kStrided ? 2 * blocks : blocks; }
    std::uint64_t host_places() const noexcept { return host_order == Order::kRandom ? 2 * blocks : blocks; }
    std::uint64_t device_bytes() const noexcept { return device_places() * geometry.page(); }
    std::uint64_t host_bytes() const noexcept { return host_places() * geometry.page(); }
};

// Models that people know: "llama-3.1-8b", "llama-3.1-70b-tp8", "deepseek-v3", "qwen3-8b"; 16 tokens a block (64 for the latent
// cache of deepseek-v3), bfloat16. kNotFound with the names that exist.
Result<Geometry> preset(const std::string& name);
std::string preset_names();
// A model as its configuration describes it: K and V of `tokens` tokens a block; `dtype` is fp8, bf16, fp16 or fp32. kInvalid.
struct ModelShape {
    std::uint32_t layers = 0, tokens = 16, kv_heads = 0, head_dim = 0;
    std::string dtype = "bf16";
};
Result<Geometry> model(const ModelShape& shape);

// One set of spans and indices; base offsets add to both sides.
struct Scatter {
    std::vector<pega_span> spans;
    std::vector<std::uint64_t> local, remote;

    // The shape's spans between two regions, its indices permuted by `random` as the shape says.
    static Scatter make(const Shape& shape, const Region& local, std::uint64_t local_base, const Region& remote,
                        std::uint64_t remote_base, std::mt19937_64& random);
    // The blocks from `first` on, at most `count`.
    void fill(Transfer& transfer, bool read, std::size_t first = 0, std::size_t count = SIZE_MAX) const;
    // Bytes that differ between the two images, which begin at the regions' starts.
    std::uint64_t wrong_bytes(const std::byte* local_image, const std::byte* remote_image) const;
    // Of the digests that a device gave for the indices, those that are not what the remote image has.
    std::uint64_t wrong_digests(std::span<const std::uint64_t> sums, const std::byte* remote_image) const;
};

}  // namespace pegaflow::cli
