// SPDX-License-Identifier: Apache-2.0
// lane.hpp - a channel with a bounded queue in front: transfers beyond the channel's depth wait their turn in order.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <set>

#include "pegaflow/transfer.hpp"

namespace pegaflow::engine {

class Lane {
public:
    using Done = std::function<void(pega_status status, std::uint64_t bytes)>;

    Lane(Channel channel, std::uint32_t max_queued) : channel_(std::move(channel)), max_queued_(max_queued) {}

    // Submits now or when there is room. `done` runs exactly once unless this fails, on the progress thread or within a call of
    // the lane; it must not block. `transfer` stays borrowed until then. kQueueFull when the queue is at its bound. [any]
    Result<void> submit(Transfer& transfer, Done done);
    // Ends a transfer early; its `done` still runs. [any]
    void cancel(Transfer& transfer);
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
    std::uint32_t max_queued_;
};

}  // namespace pegaflow::engine
