// SPDX-License-Identifier: Apache-2.0
#include "stream.hpp"

#include <algorithm>

namespace fake_cuda {

std::uint64_t Event::record() {
    const std::lock_guard lock(mutex_);
    return ++recorded_;
}

void Event::reach(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    reached_ = std::max(reached_, number);
    when_ = std::chrono::steady_clock::now();
    changed_.notify_all();
}

std::uint64_t Event::recorded() {
    const std::lock_guard lock(mutex_);
    return recorded_;
}

std::chrono::steady_clock::time_point Event::when() {
    const std::lock_guard lock(mutex_);
    return when_;
}

bool Event::complete() {
    const std::lock_guard lock(mutex_);
    return reached_ >= recorded_;
}

void Event::wait(std::uint64_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reached_ >= number; });
}

Stream::Stream(int gpu) : device(gpu), thread_([this] { run(); }) {}

Stream::~Stream() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

void Stream::push(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_all();
}

void Stream::synchronize() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
}

void Stream::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const auto work = std::move(queue_.front());
        queue_.pop_front();
        busy_ = true;
        lock.unlock();
        work();
        lock.lock();
        busy_ = false;
        changed_.notify_all();
    }
}

}  // namespace fake_cuda
