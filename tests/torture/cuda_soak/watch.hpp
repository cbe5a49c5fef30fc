// SPDX-License-Identifier: Apache-2.0
// watch.hpp - ends the soak when one of its threads hangs in whatever call.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>

#include "tests/torture/cuda_soak/report.hpp"

namespace pegaflow::soak {

class Watch {
public:
    Watch(Report& report, std::chrono::seconds patience) : report_(report), patience_(patience), thread_([this] { run(); }) {}
    ~Watch() {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
            changed_.notify_all();
        }
        thread_.join();
    }

    // One thread's sign of life, from construction to destruction.
    class Pulse {
    public:
        Pulse(Watch& watch, std::string thread) : watch_(watch), thread_(std::move(thread)) {
            beat(0, "starting");
            const std::lock_guard lock(watch_.mutex_);
            watch_.pulses_.push_back(this);
        }
        ~Pulse() {
            const std::lock_guard lock(watch_.mutex_);
            watch_.pulses_.remove(this);
        }
        Pulse(const Pulse&) = delete;
        Pulse& operator=(const Pulse&) = delete;
        // `doing` is a literal.
        void beat(std::uint64_t iteration, const char* doing) {
            iteration_ = iteration;
            doing_ = doing;
            last_ = now();
        }
        Where where() const { return {thread_, iteration_.load()}; }

    private:
        friend class Watch;
        Watch& watch_;
        const std::string thread_;
        std::atomic<std::uint64_t> iteration_{0};
        std::atomic<const char*> doing_{""};
        std::atomic<std::int64_t> last_{0};
    };

private:
    static std::int64_t now() {
        return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
    void run() {
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, std::chrono::seconds(1), [this] { return stop_; })) {
            for (const Pulse* pulse : pulses_) {
                if (now() - pulse->last_ < patience_.count()) continue;
                report_.abandon(pulse->where(), std::string("hangs: ") + pulse->doing_.load());
            }
        }
    }

    Report& report_;
    const std::chrono::seconds patience_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::list<Pulse*> pulses_;  // guarded by mutex_
    bool stop_ = false;         // guarded by mutex_
    std::thread thread_;
};

}  // namespace pegaflow::soak
