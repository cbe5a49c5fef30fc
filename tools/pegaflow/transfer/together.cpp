// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/together.hpp"

#include <chrono>
#include <memory>
#include <thread>

#include "tools/pegaflow/transfer/load.hpp"

namespace pegaflow::cli {

double Window::sum() const noexcept {
    double out = 0;
    for (const double rate : bytes_per_second) out += rate;
    return out;
}

Result<Window> run_together(std::vector<Sides*> sides, const std::vector<Plan>& plans, std::optional<std::uint32_t> gpu,
                            double seconds) {
    using Clock = std::chrono::steady_clock;
    std::vector<std::unique_ptr<Flow>> flows;
    for (std::size_t i = 0; i < plans.size(); ++i) {
        flows.push_back(std::make_unique<Flow>(*sides[i], plans[i]));
        PEGA_TRY(flows.back()->open());
    }
    std::unique_ptr<GpuLoad> load;
    if (gpu) {
        PEGA_ASSIGN(load, GpuLoad::open(*gpu));
    }
    std::atomic<bool> stop{false};
    std::vector<Result<void>> outcomes(flows.size() + 1);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < flows.size(); ++i) threads.emplace_back([&, i] { outcomes[i] = flows[i]->run(stop); });
    if (load) threads.emplace_back([&] { outcomes.back() = load->run(stop); });
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    std::vector<std::uint64_t> before;
    for (const auto& flow : flows) before.push_back(flow->bytes());
    const std::uint64_t products = load ? load->products() : 0;
    const auto start = Clock::now();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    Window window;
    for (std::size_t i = 0; i < flows.size(); ++i)
        window.bytes_per_second.push_back(static_cast<double>(flows[i]->bytes() - before[i]) / took);
    if (load) window.products_per_second = static_cast<double>(load->products() - products) / took;
    stop = true;
    for (std::thread& thread : threads) thread.join();
    for (Result<void>& outcome : outcomes) PEGA_TRY(std::move(outcome));
    return window;
}

}  // namespace pegaflow::cli
