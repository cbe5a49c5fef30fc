// SPDX-License-Identifier: Apache-2.0
// transfer.hpp - the memory of a batch and the state of its completion.
#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pegaflow/abi/ext/digest.h"
#include "pegaflow/abi/ext/durable.h"
#include "pegaflow/abi/ext/notify.h"
#include "pegaflow/abi/ext/stream.h"
#include "pegaflow/transfer.hpp"

namespace pegaflow {

// Shared by the Completion, the Transfer that reuses it, and the in-flight table.
struct Completion::State {
    enum Phase : std::uint32_t { kUnderWay, kAwaited, kDone };

    std::atomic<std::uint32_t> phase{kUnderWay};  // awaited: somebody is to be woken
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::coroutine_handle<>> coroutines;  // guarded by mutex
    pega_completion record{};                         // written before kDone, read after
    const char* (*error_text)(std::int32_t) = nullptr;

    bool done() const noexcept { return phase.load(std::memory_order_acquire) == kDone; }
    // For another batch; nobody else has the state.
    void reset(const char* (*text)(std::int32_t));
    // Asks to be woken, with the mutex held. False when it is done.
    bool await() noexcept;
    // Publishes the terminal record and wakes everybody; the last thing that happens to a batch.
    void finish(const pega_completion& terminal);
};

struct Transfer::Impl {
    pega_batch batch{};
    std::vector<std::uint64_t> local_offsets, remote_offsets, lengths;
    std::function<void(const pega_completion&)> on_done;
    // Two, because the progress thread may still hold the last one when a waiter that it woke submits again.
    std::shared_ptr<Completion::State> states[2];
    std::uint64_t user_data = 0;         // while in flight
    std::atomic<std::uint32_t> busy{0};  // 1 from before submit until on_done has returned
    bool has_flat = false;
    bool more = false;  // something of what follows was set

    // What ranges alone do not need, and do not touch.
    struct More {
        std::vector<pega_span> spans;
        std::vector<std::uint64_t> local_index, remote_index;
        pega_stream_option stream{};
        pega_notify_option notify{};
        pega_durable_option durable{};
        pega_digest_option digest{};
        std::vector<std::uint64_t> sums;
        std::uint32_t sums_computed = 0;  // written by the device before the terminal completion
        bool has_stream = false, has_notify = false, has_durable = false, has_digest = false;
        std::function<void(std::uint64_t)> on_mark;
    } rest;

    Impl() = default;
    ~Impl();  // waits

    // Takes the transfer for one batch. kInvalid when it is in flight.
    Result<void> begin();
    // Gives it back.
    void end() noexcept;
    // Runs on_done and gives it back; the callback may destroy the transfer or submit it again. From the progress thread.
    void run_on_done(const pega_completion& record);
    // Waits until hardware has let go of the arrays; at once within on_done.
    void wait_ended() noexcept;
    // A state that nobody else holds.
    std::shared_ptr<Completion::State> fresh_state();
    // Points the batch at the arrays. kInvalid when spans and ranges are mixed or index arrays differ in length.
    Result<void> seal();
    // For what sets something of the rest.
    More& with_more() noexcept { return more = true, rest; }

private:
    void seal_options();
};

}  // namespace pegaflow
