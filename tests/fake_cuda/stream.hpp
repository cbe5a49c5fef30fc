// SPDX-License-Identifier: Apache-2.0
// stream.hpp - streams and events of the fake driver: a thread a stream, work in order, events between them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace fake_cuda {

// An event counts how often it was recorded and how many of those records have been reached. A wait is for the records made
// before it, as in CUDA; one that was never recorded is complete.
class Event {
public:
    std::uint64_t record();
    void reach(std::uint64_t number);
    std::uint64_t recorded();
    std::chrono::steady_clock::time_point when();  // the last record was reached
    bool complete();
    void wait(std::uint64_t number);

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::uint64_t recorded_ = 0, reached_ = 0;
    std::chrono::steady_clock::time_point when_;
};

class Stream {
public:
    explicit Stream(int gpu);
    ~Stream();  // runs what is queued
    void push(std::function<void()> work);
    void synchronize();
    const int device;

private:
    void run();
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> queue_;
    bool busy_ = false, stop_ = false;
    std::thread thread_;
};

// Events stay alive until the streams that know them have passed them.
using SharedEvent = std::shared_ptr<Event>;

}  // namespace fake_cuda
