// SPDX-License-Identifier: Apache-2.0
// contention.hpp - whether a model has the multiprocessors.
//
// Beside a model whose kernels fill the GPU, copy kernels wait for room, and what room they have the model waits for: a kernel
// that needs every multiprocessor starts its last blocks when copies let go of theirs. So it is found out, now and then while
// copies move between GPU and host: a kernel that does nothing, and needs a multiprocessor for itself as copy kernels do, says
// how long it waited. Times of copies do not tell: those of a full link wait as well.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels.hpp"

namespace cuda_backend {

class Contention {
public:
    // Without a kernel nothing is asked, and nothing is ever crowded. The context is current.
    Result open(const Driver& driver, const RoomKernel& kernel);
    void close(const Driver& driver) noexcept;

    // Asks when it is time to, and hears the answer to what was asked before. One thread at a time; the context is current.
    // [data]
    void look(const Driver& driver, std::uint64_t now_ns) noexcept;
    // Whether kernels wait for the model, and it for them. [any]
    bool crowded() const noexcept { return crowded_.load(std::memory_order_relaxed); }

private:
    void ask(const Driver& driver) noexcept;
    void hear(double waited_ns) noexcept;

    RoomKernel kernel_;
    Stream stream_ = nullptr;
    Event asked_ = nullptr, answered_ = nullptr;
    bool asking_ = false;
    std::uint64_t look_at_ns_ = 0;
    double waits_ = 0;  // part of the last answers that were long
    std::atomic<bool> crowded_{false};
};

}  // namespace cuda_backend
