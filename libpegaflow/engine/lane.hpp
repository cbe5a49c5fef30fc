// SPDX-License-Identifier: Apache-2.0
// lane.hpp - a channel with a bounded queue in front: transfers beyond the channel's depth wait their turn in order.
//
// Room is reserved before anything else of a request happens, so that a full queue is an answer that costs nothing and a
// request of several transfers is taken whole or not at all.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

#include "pegaflow/transfer.hpp"

namespace pegaflow::engine {

class Lane {
public:
    using Done = std::function<void(pega_status status, std::uint64_t bytes)>;

    Lane(Channel channel, std::uint32_t max_transfers) : channel_(std::move(channel)), max_transfers_(max_transfers) {}

    // Makes room for `count` transfers. kQueueFull when that many do not fit beside those that have not ended; a request that
    // is larger than the bound itself fits when the lane is empty but for the `held` that it has reserved before. [any]
    Result<void> reserve(std::size_t count, std::size_t held = 0);
    // Gives back room for `count` transfers that will not be submitted. [any]
    void unreserve(std::size_t count) noexcept;
    // Submits into reserved room, now or when the channel takes it. When it succeeds, `done` runs exactly once, on the progress
    // thread or within a call of the lane, and must not block; the room is free again by then. When it fails, the room stays
    // reserved. `transfer` stays borrowed until `done`. [any]
    Result<void> submit(Transfer& transfer, Done done);
    // Ends a transfer early; its `done` still runs. Harmless for one that has ended or a lane that is closed. [any]
    void cancel(Transfer& transfer);
    // How the channel is: PEGA_OK, PEGA_PENDING, or how it broke. [any]
    pega_status state() {
        const std::lock_guard lock(mutex_);
        return channel_ ? channel_.state() : PEGA_CANCELED;
    }
    // Closes the channel; everything has ended by then. [serial]
    void close();

private:
    struct Waiting {
        Transfer* transfer;
        Done done;
    };
    // Submits with the lane's completion hooked in. The mutex is held.
    Result<void> start(Transfer& transfer, const Done& done);
    void pump();

    std::mutex mutex_;
    Channel channel_;              // guarded by mutex_
    std::deque<Waiting> waiting_;  // guarded by mutex_
    std::size_t outstanding_ = 0;  // reserved or not ended; guarded by mutex_
    const std::uint32_t max_transfers_;
};

}  // namespace pegaflow::engine
