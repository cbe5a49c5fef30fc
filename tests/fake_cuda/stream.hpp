// SPDX-License-Identifier: Apache-2.0
// stream.hpp - streams and events of the fake driver: a thread a stream, work in order, events between them.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "memory.hpp"

namespace fake_cuda {

// An event counts how often it was recorded and how many of those records have been reached. A wait is for the records made
// before it, as in CUDA; one that was never recorded is complete. The counts of an event that other processes may open lie in
// an object of shared memory.
class Event {
public:
    Event() = default;
    ~Event();
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    // Makes the event one for other processes; opens that of another process. False when there is no such object.
    bool share();
    bool open(const IpcHandle& handle);
    // False for an event that is not shared.
    bool export_handle(IpcHandle* out) const;

    std::uint64_t record();
    void reach(std::uint64_t number);
    std::uint64_t recorded();
    std::chrono::steady_clock::time_point when();  // the last record was reached
    bool complete();
    void wait(std::uint64_t number);

private:
    struct Counts {
        std::atomic<std::uint64_t> recorded{0}, reached{0};
    };
    bool owner_is_alive() const;

    std::mutex mutex_;
    std::condition_variable changed_;
    Counts own_;
    Counts* counts_ = &own_;
    std::string name_;  // of the shared object; empty = none
    int owner_ = 0;     // the process that made it
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
