// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/write_queue.hpp"

#include <utility>

namespace pegaflow::engine::tier {
namespace {

constexpr auto kIdleTime = std::chrono::milliseconds(100);

}  // namespace

bool WriteQueue::has_room(std::uint64_t bytes) const {
    const std::lock_guard lock(mutex_);
    return !stop_ && (bytes_ == 0 || bytes_ + bytes <= max_bytes_);
}

void WriteQueue::push(BlockRef block) {
    const std::uint64_t bytes = block->footprint();
    const std::lock_guard lock(mutex_);
    waiting_.push_back({std::move(block), bytes, Clock::now()});
    bytes_ += bytes;
    changed_.notify_all();
}

bool WriteQueue::drop_one(BlockRef* dropped) {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) return false;
    *dropped = std::move(waiting_.front().block);
    bytes_ -= waiting_.front().bytes;
    waiting_.pop_front();
    changed_.notify_all();
    return true;
}

std::vector<BlockRef> WriteQueue::take(std::uint64_t most, std::uint64_t enough, Clock::duration linger, bool patient) {
    std::vector<BlockRef> out;
    std::unique_lock lock(mutex_);
    const auto ripe = [&] {
        if (waiting_.empty()) return false;
        return bytes_ >= enough || stop_ || flushing_ != 0 || Clock::now() - waiting_.front().since >= linger;
    };
    while (patient && !stop_ && !ripe()) {
        if (waiting_.empty()) {
            changed_.wait_for(lock, kIdleTime);
            if (waiting_.empty()) return out;  // the caller has other things to look after
        } else {
            changed_.wait_until(lock, waiting_.front().since + linger);
        }
    }
    if (!ripe()) return out;
    std::uint64_t bytes = 0;
    while (!waiting_.empty() && (out.empty() || bytes + waiting_.front().bytes <= most)) {
        bytes += waiting_.front().bytes;
        out.push_back(std::move(waiting_.front().block));
        waiting_.pop_front();
    }
    bytes_ -= bytes;
    taken_ += out.size();
    return out;
}

void WriteQueue::done(std::size_t count) {
    const std::lock_guard lock(mutex_);
    taken_ -= count;
    changed_.notify_all();
}

bool WriteQueue::wait_empty(Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    ++flushing_;
    changed_.notify_all();
    const bool empty = changed_.wait_until(lock, deadline, [&] { return waiting_.empty() && taken_ == 0; });
    --flushing_;
    return empty;
}

void WriteQueue::stop() {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_all();
}

bool WriteQueue::stopped() const {
    const std::lock_guard lock(mutex_);
    return stop_;
}

std::uint64_t WriteQueue::bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
}

std::uint64_t WriteQueue::blocks() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size() + taken_;
}

}  // namespace pegaflow::engine::tier
