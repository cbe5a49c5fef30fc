// SPDX-License-Identifier: Apache-2.0
// keyed_tasks.hpp - tasks that may wait long: those of one key run one after another, those of different keys beside each
// other.
//
// A key is an instance: a copy that cannot be stopped holds up the end of its own instance, and no other's.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread.hpp"

namespace pegaflow::server {

// Threads come as they are needed. When the system gives no more, those that there are do it all. The destructor runs what was
// posted before, then ends.
class KeyedTasks {
public:
    static constexpr std::size_t kMostThreads = 32;
    static constexpr std::size_t kMostWaiting = 1024;  // of a key

    KeyedTasks() = default;
    KeyedTasks(const KeyedTasks&) = delete;
    KeyedTasks& operator=(const KeyedTasks&) = delete;
    ~KeyedTasks();

    // False when too many of this key wait, or there is no thread at all; the task is not taken then. [any]
    [[nodiscard]] bool try_post(const std::string& key, std::function<void()> task) { return add(key, std::move(task), true); }
    // The same for what must not be refused: without a thread it waits for one, or for the destructor. [any]
    void post(const std::string& key, std::function<void()> task) { add(key, std::move(task), false); }

private:
    using Tasks = std::deque<std::function<void()>>;

    bool add(const std::string& key, std::function<void()> task, bool may_refuse);
    void add_thread();
    void run();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Tasks> keys_;  // guarded by mutex_; the first task of a key waits in ready_ or runs
    std::deque<std::string> ready_;      // guarded by mutex_
    std::size_t idle_ = 0;               // threads; guarded by mutex_
    bool stop_ = false;                  // guarded by mutex_
    std::vector<std::thread> threads_;   // guarded by mutex_ until stop_
};

inline KeyedTasks::~KeyedTasks() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    if (threads_.empty() && !keys_.empty()) run();
}

inline bool KeyedTasks::add(const std::string& key, std::function<void()> task, bool may_refuse) {
    const std::lock_guard lock(mutex_);
    Tasks& tasks = keys_[key];
    if (may_refuse && tasks.size() >= kMostWaiting) return false;
    tasks.push_back(std::move(task));
    if (tasks.size() == 1) ready_.push_back(key);
    if (ready_.size() > idle_ && threads_.size() < kMostThreads) add_thread();
    if (may_refuse && threads_.empty()) {
        tasks.pop_back();
        if (!tasks.empty()) return false;
        ready_.pop_back();
        keys_.erase(key);
        return false;
    }
    changed_.notify_one();
    return true;
}

inline void KeyedTasks::add_thread() {
    auto thread = base::start_thread([this] { run(); });
    if (thread) threads_.push_back(std::move(*thread));
}

inline void KeyedTasks::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        ++idle_;
        // What runs may leave more of its key: the threads stay until nothing is left at all.
        changed_.wait(lock, [this] { return !ready_.empty() || (stop_ && keys_.empty()); });
        --idle_;
        if (ready_.empty()) return;
        const std::string key = std::move(ready_.front());
        ready_.pop_front();
        Tasks& tasks = keys_[key];
        {
            const auto task = std::move(tasks.front());
            lock.unlock();
            task();
        }
        lock.lock();
        tasks.pop_front();
        if (!tasks.empty()) {
            ready_.push_back(key);
            changed_.notify_one();
            continue;
        }
        keys_.erase(key);
        if (stop_ && keys_.empty()) changed_.notify_all();
    }
}

}  // namespace pegaflow::server
