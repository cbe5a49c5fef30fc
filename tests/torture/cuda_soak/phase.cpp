// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/phase.hpp"

#include "tests/torture/cuda_soak/peers.hpp"
#include "tests/torture/cuda_soak/worker.hpp"

namespace pegaflow::soak {

const std::vector<std::string>& all_paths() {
    static const std::vector<std::string> paths = {"auto", "loop", "batch", "bulk", "vector", "staged", "shared"};
    return paths;
}

std::unique_ptr<Fabric> open_fabric(const std::string& path, Random& random) {
    static const std::vector<std::string> chunks = {"65536", "1048576", "8388608"};
    static const std::vector<std::string> counts = {"1", "2", "4", "16"};
    static const std::vector<std::string> sizes = {"0", "65536", "524288", "1073741824"};
    FabricOptions options;
    options.backends = {"cuda"};
    options.options["cuda"] = {{"path", path},
                               {"calibrate", "off"},
                               {"staging_chunk", random.pick(chunks)},
                               {"max_multiprocessors", random.pick(counts)},
                               {"peer_kernel_bytes", random.pick(sizes)},
                               {"stream_priority", random.chance(50) ? "high" : "normal"}};
    return need(Fabric::open(options), "opening the cuda back end");
}

void run_phase(Phase& phase, std::uint64_t workers, std::chrono::milliseconds time) {
    Random random{phase.report->seed(), phase.id};
    std::vector<std::thread> threads;
    try {
        Watch::Pulse pulse(*phase.watch, phase.name + ", opening devices");
        phase.looking = open_fabric("loop", random);
        for (const std::string& path : all_paths()) phase.pool.push_back(open_fabric(path, random));
        phase.end = std::chrono::steady_clock::now() + time;
    } catch (const Trouble& trouble) {
        return phase.report->fail({phase.name, 0}, trouble.text);
    }
    std::uint64_t number = 0;
    for (const std::string& device : phase.devices) {
        for (std::uint64_t i = 0; i < workers; ++i) threads.emplace_back(run_worker, std::ref(phase), device, number++);
        threads.emplace_back(run_peers, std::ref(phase), device, number++);
    }
    for (std::thread& thread : threads) thread.join();
    Watch::Pulse pulse(*phase.watch, phase.name + ", closing devices");
    phase.pool.clear();
    phase.looking.reset();
}

}  // namespace pegaflow::soak
