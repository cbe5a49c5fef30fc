// SPDX-License-Identifier: Apache-2.0
#include "engine/lane.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace pegaflow::engine {

Result<void> Lane::reserve(std::size_t count, std::size_t held) {
    const std::lock_guard lock(mutex_);
    if (outstanding_ != held && outstanding_ + count > max_transfers_) {
        return fail(Code::kQueueFull,
                    fmt::format("{} transfers have not ended, {} more would pass the bound of {}; try again later",
                                outstanding_, count, max_transfers_));
    }
    outstanding_ += count;
    return {};
}

void Lane::unreserve(std::size_t count) noexcept {
    const std::lock_guard lock(mutex_);
    outstanding_ -= count;
}

Result<void> Lane::start(Transfer& transfer, const Done& done) {
    // Whoever `done` frees may own the transfer: the lane goes on first.
    transfer.on_done([this, done](const pega_completion& record) {
        pump();
        done(record.status, record.bytes);
    });
    auto completion = channel_.submit(transfer);
    if (completion) return {};
    transfer.on_done(nullptr);  // `done` may own the transfer: it must not own itself
    return fail(std::move(completion).error());
}

Result<void> Lane::submit(Transfer& transfer, Done done) {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
        auto started = start(transfer, done);
        if (started || started.error().code != Code::kQueueFull) return started;
    }
    waiting_.push_back({&transfer, std::move(done)});
    return {};
}

void Lane::pump() {
    std::vector<std::pair<Done, pega_status>> failed;  // called after the lock
    {
        const std::lock_guard lock(mutex_);
        --outstanding_;
        while (!waiting_.empty()) {
            auto started = start(*waiting_.front().transfer, waiting_.front().done);
            if (!started && started.error().code == Code::kQueueFull) break;
            if (!started) {
                failed.emplace_back(std::move(waiting_.front().done), static_cast<pega_status>(started.error().code));
                --outstanding_;
            }
            waiting_.pop_front();
        }
    }
    for (const auto& [done, status] : failed) done(status, 0);
}

void Lane::cancel(Transfer& transfer) {
    Done done;
    {
        const std::lock_guard lock(mutex_);
        const auto it =
            std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& w) { return w.transfer == &transfer; });
        if (it == waiting_.end()) {
            // Too late is no error: the transfer's own end is on its way.
            [[maybe_unused]] const auto asked = channel_.cancel(transfer);
            return;
        }
        done = std::move(it->done);
        waiting_.erase(it);
        --outstanding_;
    }
    done(PEGA_CANCELED, 0);
}

void Lane::close() {
    Channel closing;
    {
        const std::lock_guard lock(mutex_);
        closing = std::move(channel_);
    }
}

}  // namespace pegaflow::engine
