// SPDX-License-Identifier: Apache-2.0
// running_loads.hpp - the loads under way by the shared memory object into which they report: how a client names one.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pegaflow::server {

// A save or load that may be cancelled before the engine has told its number. Of `begun` and `cancel`, one at least sees the
// other. [any]
class Cancelable {
public:
    // True when it was cancelled meanwhile: then the caller cancels `id`.
    bool begun(std::uint64_t id) noexcept {
        id_.store(id);
        return canceled_.load();
    }
    // The number to cancel; 0 when whoever begins it will.
    std::uint64_t cancel() noexcept {
        canceled_.store(true);
        return id_.load();
    }

private:
    std::atomic<std::uint64_t> id_{0};
    std::atomic<bool> canceled_{false};
};

class RunningLoads {
public:
    using Load = std::shared_ptr<Cancelable>;  // owned by the table and by the load's end

    // A load that reports into `object` begins. [any]
    Load begin(const std::string& object) {
        auto load = std::make_shared<Cancelable>();
        const std::lock_guard lock(mutex_);
        loads_.emplace(object, load);
        return load;
    }
    // It is over, or did not begin. [any]
    void end(const std::string& object, const Load& load) {
        const std::lock_guard lock(mutex_);
        const auto [first, last] = loads_.equal_range(object);
        for (auto it = first; it != last; ++it) {
            if (it->second != load) continue;
            loads_.erase(it);
            return;
        }
    }
    // Those that report into `object` and are not over. [any]
    std::vector<Load> find(const std::string& object) {
        std::vector<Load> out;
        const std::lock_guard lock(mutex_);
        const auto [first, last] = loads_.equal_range(object);
        for (auto it = first; it != last; ++it) out.push_back(it->second);
        return out;
    }

private:
    std::mutex mutex_;
    std::multimap<std::string, Load> loads_;  // guarded by mutex_
};

}  // namespace pegaflow::server
