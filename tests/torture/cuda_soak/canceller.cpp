// SPDX-License-Identifier: Apache-2.0
#include "tests/torture/cuda_soak/worker.hpp"

namespace pegaflow::soak {

std::string cancel(Flight& flight, Report& report) {
    const auto asked = flight.channel->cancel(flight.transfer);
    report.cancels_asked.fetch_add(1, std::memory_order_relaxed);
    if (asked) return "";
    report.cancels_late.fetch_add(1, std::memory_order_relaxed);
    return asked.error().code == Code::kInvalid ? "" : asked.error().message;
}

Canceller::Canceller(Report& report) : report_(report), thread_([this] { run(); }) {}

Canceller::~Canceller() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

void Canceller::ask(Flight& flight, std::chrono::microseconds after) {
    const std::lock_guard lock(mutex_);
    requests_.push_back({&flight, std::chrono::steady_clock::now() + after});
    changed_.notify_all();
}

void Canceller::settle() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return requests_.empty() && !busy_; });
    if (!problem_.empty()) throw Trouble{"a cancel was refused: " + problem_};
}

void Canceller::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stop_ || !requests_.empty(); });
        if (stop_) return;
        const Request request = requests_.front();
        requests_.pop_front();
        busy_ = true;
        lock.unlock();
        std::this_thread::sleep_until(request.when);
        std::string problem = cancel(*request.flight, report_);
        lock.lock();
        if (!problem.empty()) problem_ = std::move(problem);
        busy_ = false;
        changed_.notify_all();
    }
}

}  // namespace pegaflow::soak
