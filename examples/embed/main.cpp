// SPDX-License-Identifier: Apache-2.0
// The engine inside a program of one's own: one worker with one layer, a block saved and loaded back.
#include <pegaflow/engine.hpp>
#include <pegaflow/transfer.hpp>

#include <cstdio>
#include <numeric>
#include <vector>

int main() {
    auto fabric = pegaflow::Fabric::open({.backends = {"host"}});
    if (!fabric) return std::fprintf(stderr, "%s\n", fabric.error().message.c_str()), 1;
    auto engine = pegaflow::Engine::create({.pool_bytes = 16 << 20}, **fabric);
    if (!engine) return std::fprintf(stderr, "%s\n", engine.error().message.c_str()), 1;

    // The worker's KV memory: 8 blocks of 4 KiB.
    std::vector<unsigned char> memory(8 * 4096);
    std::iota(memory.begin(), memory.begin() + 4096, static_cast<unsigned char>(1));
    pegaflow::LayerRegistration layer;
    layer.name = "layer.0";
    layer.memory.kind = PEGA_MEMORY_HOST;
    layer.memory.source = PEGA_SOURCE_ADDRESS;
    layer.memory.address = memory.data();
    layer.memory.length = memory.size();
    layer.num_blocks = 8;
    layer.bytes_per_block = 4096;
    pegaflow::WorkerRegistration worker;
    worker.instance_id = "embedded";
    worker.name_space = "example";
    worker.layers = {layer};
    if (auto done = (*engine)->register_worker(worker); !done)
        return std::fprintf(stderr, "%s\n", done.error().message.c_str()), 1;

    const std::uint32_t source[] = {0};
    const std::string_view hashes[] = {"content-hash-of-the-block"};
    const pegaflow::SaveLayer layers[] = {{"layer.0", source, hashes}};
    if (auto saved = (*engine)->save({.instance_id = "embedded", .layers = layers}); !saved) return 1;

    const auto found = (*engine)->query({.instance_id = "embedded", .hashes = hashes, .request_id = "request-1"});
    if (!found || found->hit_blocks != 1) return 1;
    const std::string_view names[] = {"layer.0"};
    const std::span<const std::string_view> groups[] = {names};
    const std::uint32_t target[] = {5};
    const std::span<const std::uint32_t> targets[] = {target};
    const pegaflow::LeaseLoad loads[] = {{*found->lease, targets}};
    if (auto loaded = (*engine)->load({.instance_id = "embedded", .layer_groups = groups, .loads = loads}); !loaded) return 1;
    const bool same = std::equal(memory.begin(), memory.begin() + 4096, memory.begin() + 5 * 4096);
    std::printf("block 0 came back as block 5: %s\n", same ? "every byte is right" : "WRONG");
    return same ? 0 : 2;
}
