// SPDX-License-Identifier: Apache-2.0
// contention.hpp - whether copy kernels get their multiprocessors.
//
// Beside a model whose kernels fill the GPU, copy kernels wait for room, and each of them takes some from the model. What part
// of their measured rate they reach is seen from their batches; while it is little, the planner gives the copy engine, which
// waits for nobody, its part of the work.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace cuda_backend {

class Contention {
public:
    // A batch that kernels alone move between GPU and host has begun: nothing holds it back but room on the GPU. The device's
    // mutex is held for this and for `end`.
    void begin(bool to_gpu, std::uint64_t now_ns) noexcept;
    // Such a batch has ended; alone it takes `expected_ns` at the measured rate. 0: it says nothing (cancelled, failed).
    void end(bool to_gpu, std::uint64_t now_ns, double expected_ns) noexcept;

    // Whether kernels wait for the model. While they do, false is told now and then, so that a batch finds out whether it is
    // still so. [any]
    bool crowded(bool to_gpu, std::uint64_t now_ns) noexcept;

private:
    struct Direction {
        std::uint64_t in_flight = 0, seen_ns = 0, batches = 0;
        double busy_ns = 0, expected_ns = 0;  // since the share was last computed
        std::atomic<double> share{1};         // of the measured rate
        std::atomic<std::uint64_t> try_at_ns{0};
    };
    std::array<Direction, 2> directions_;
};

}  // namespace cuda_backend
