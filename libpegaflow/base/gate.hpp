// SPDX-License-Identifier: Apache-2.0
// gate.hpp - stops new requests and tells when the existing ones are done.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

namespace pegaflow::base {

class Gate {
public:
    // Proof of having entered; leaving is its destruction. Move-only.
    class Pass {
    public:
        Pass() noexcept = default;
        explicit Pass(Gate* gate) noexcept : gate_(gate) {}
        Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
        Pass& operator=(Pass&& other) noexcept {
            std::swap(gate_, other.gate_);
            return *this;
        }
        ~Pass() {
            if (gate_ != nullptr) gate_->leave();
        }
        explicit operator bool() const noexcept { return gate_ != nullptr; }

    private:
        Gate* gate_ = nullptr;
    };

    // A pass, or an empty one after close. [any]
    [[nodiscard]] Pass enter() noexcept {
        const std::lock_guard lock(mutex_);
        if (closed_) return {};
        ++inside_;
        return Pass(this);
    }

    // Refuses from now on. Idempotent. [any]
    void close() noexcept {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }

    // Waits until everybody has left; call after close. [any]
    void wait_empty() {
        std::unique_lock lock(mutex_);
        empty_.wait(lock, [this] { return inside_ == 0; });
    }
    bool wait_empty_until(std::chrono::steady_clock::time_point deadline) {
        std::unique_lock lock(mutex_);
        return empty_.wait_until(lock, deadline, [this] { return inside_ == 0; });
    }

    std::uint64_t inside() const noexcept {
        const std::lock_guard lock(mutex_);
        return inside_;
    }

private:
    void leave() noexcept {
        const std::lock_guard lock(mutex_);
        if (--inside_ == 0) empty_.notify_all();
    }

    mutable std::mutex mutex_;
    std::condition_variable empty_;
    std::uint64_t inside_ = 0;  // guarded by mutex_
    bool closed_ = false;       // guarded by mutex_
};

}  // namespace pegaflow::base
