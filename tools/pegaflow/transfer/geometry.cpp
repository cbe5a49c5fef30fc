// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/geometry.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "pegaflow/digest.hpp"

namespace pegaflow::cli {
namespace {

// layers, segments, and tokens x KV heads x head size x 2 bytes. Sources: the models' published configurations.
const std::array<Geometry, 4>& presets() {
    static const std::array<Geometry, 4> list = {{{"llama-3.1-8b", 32, 2, 16 * 8 * 128 * 2},
                                                  {"llama-3.1-70b-tp8", 80, 2, 16 * 1 * 128 * 2},
                                                  {"deepseek-v3", 61, 1, 64 * 576 * 2},
                                                  {"qwen3-8b", 36, 2, 16 * 8 * 128 * 2}}};
    return list;
}

struct Side {
    std::uint64_t base, stride, segment_stride;
};

Side side(const Shape& shape, Placement placement, std::uint64_t places, std::uint32_t layer) {
    const Geometry& g = shape.geometry;
    if (placement == Placement::kPageFirst) return {layer * g.segments * g.fragment, g.page(), g.fragment};
    const std::uint64_t tensor = places * g.fragment;
    return {layer * g.segments * tensor, g.fragment, tensor};
}

std::vector<std::uint64_t> order(std::uint64_t count, std::uint64_t places, Order how, std::mt19937_64& random) {
    std::vector<std::uint64_t> out(places);
    std::iota(out.begin(), out.end(), 0);
    if (how == Order::kStrided) {
        for (std::uint64_t i = 0; i < count; ++i) out[i] = i * (places / count);
    }
    if (how == Order::kRandom) std::shuffle(out.begin(), out.end(), random);
    out.resize(count);
    return out;
}

}  // namespace

std::string preset_names() {
    std::string out;
    for (const Geometry& g : presets()) out += (out.empty() ? "" : ", ") + g.name;
    return out;
}

Result<Geometry> preset(const std::string& name) {
    for (const Geometry& g : presets()) {
        if (g.name == name) return g;
    }
    return fail(Code::kNotFound, fmt::format("there is no preset {}; there are {}", name, preset_names()));
}

Result<Geometry> model(const ModelShape& m) {
    if (m.layers == 0 || m.tokens == 0 || m.kv_heads == 0 || m.head_dim == 0)
        return fail(Code::kInvalid, "a model needs --layers, --kv-heads and --head-dim (and --tokens-per-block, which is 16)");
    const std::uint64_t bytes = m.dtype == "fp8" ? 1 : (m.dtype == "fp32" ? 4 : 2);
    if (m.dtype != "fp8" && m.dtype != "bf16" && m.dtype != "fp16" && m.dtype != "fp32")
        return fail(Code::kInvalid, fmt::format("--dtype {}: expected fp8, bf16, fp16 or fp32", m.dtype));
    const std::uint64_t fragment = std::uint64_t{m.tokens} * m.kv_heads * m.head_dim * bytes;
    if (fragment % 8 != 0) return fail(Code::kInvalid, fmt::format("{} bytes a layer are no multiple of 8", fragment));
    return Geometry{fmt::format("{}x{}x{}x{}-{}", m.layers, m.tokens, m.kv_heads, m.head_dim, m.dtype), m.layers, 2, fragment};
}

Scatter Scatter::make(const Shape& shape, const Region& local, std::uint64_t local_base, const Region& remote,
                      std::uint64_t remote_base, std::mt19937_64& random) {
    Scatter out;
    const Geometry& g = shape.geometry;
    for (std::uint32_t layer = 0; layer < g.layers; ++layer) {
        const Side l = side(shape, shape.device_placement, shape.device_places(), layer);
        const Side r = side(shape, shape.host_placement, shape.host_places(), layer);
        out.spans.push_back({local.handle(), remote.handle(), local_base + l.base, l.stride, l.segment_stride,
                             remote_base + r.base, r.stride, r.segment_stride, g.fragment, g.segments, 0});
    }
    out.local = order(shape.blocks, shape.device_places(), shape.device_order, random);
    out.remote = order(shape.blocks, shape.host_places(), shape.host_order, random);
    return out;
}

void Scatter::fill(Transfer& transfer, bool read, std::size_t first, std::size_t count) const {
    count = std::min(count, local.size() - first);
    transfer.clear().indices(std::span(local).subspan(first, count), std::span(remote).subspan(first, count));
    for (const pega_span& span : spans) transfer.span(span);
    if (read) transfer.read();
}

std::uint64_t Scatter::wrong_bytes(const std::byte* local_image, const std::byte* remote_image) const {
    std::uint64_t wrong = 0;
    for (const pega_span& s : spans) {
        for (std::size_t i = 0; i < local.size(); ++i) {
            for (std::uint32_t g = 0; g < s.segments; ++g) {
                const std::byte* l = local_image + s.local_base + local[i] * s.local_stride + g * s.local_segment_stride;
                const std::byte* r = remote_image + s.remote_base + remote[i] * s.remote_stride + g * s.remote_segment_stride;
                if (std::memcmp(l, r, s.page_bytes) != 0) wrong += s.page_bytes;
            }
        }
    }
    return wrong;
}

std::uint64_t Scatter::wrong_digests(std::span<const std::uint64_t> sums, const std::byte* remote_image) const {
    std::uint64_t wrong = 0;
    for (std::size_t i = 0; i < sums.size(); ++i) {
        std::uint64_t expected = 0;
        for (const pega_span& s : spans) {
            for (std::uint32_t g = 0; g < s.segments; ++g) {
                const std::uint64_t place = s.remote_base + g * s.remote_segment_stride;
                expected += digest_part(remote_image + place + remote[i] * s.remote_stride, s.page_bytes, place);
            }
        }
        if (sums[i] != expected) ++wrong;
    }
    return wrong;
}

}  // namespace pegaflow::cli
