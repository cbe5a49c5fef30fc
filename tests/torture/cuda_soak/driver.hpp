// SPDX-License-Identifier: Apache-2.0
// driver.hpp - the few things that the soak asks the CUDA driver itself: names, memory in use, a stream that is held up.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace pegaflow::soak {

// The ordinal of "cuda:1" is 1.
int ordinal_of(const std::string& device);

// Keeps a GPU's primary context alive, so that what is counted does not depend on who else holds it.
class HeldGpu {
public:
    // Null where there is no driver or no such GPU.
    static std::unique_ptr<HeldGpu> open(const std::string& device);
    ~HeldGpu();

    std::string name() const;
    int driver_version() const;
    // Of all processes; nothing when the driver does not say.
    std::optional<std::uint64_t> used_bytes() const;

private:
    friend class HeldStream;
    HeldGpu() = default;
    int device_ = 0;
    void* context_ = nullptr;
};

// A stream of our own that a function of the host holds up for a while.
class HeldStream {
public:
    explicit HeldStream(const HeldGpu& gpu);
    ~HeldStream();  // waits for what was held up
    HeldStream(const HeldStream&) = delete;
    HeldStream& operator=(const HeldStream&) = delete;

    // False when the driver cannot. What is put into the stream after this runs after `passed` has become true: when the time
    // is over, or when `let_go` was called.
    bool hold(std::chrono::microseconds time);
    bool hold() { return hold(std::chrono::hours(24)); }
    void let_go();
    // Sets GPU memory to a value, in the stream's order.
    bool fill(void* address, unsigned char value, std::uint64_t bytes);
    void* handle() const noexcept { return stream_; }
    bool passed() const noexcept { return passed_.load(std::memory_order_acquire); }
    void wait();

private:
    const HeldGpu& gpu_;
    void* stream_ = nullptr;
    std::chrono::microseconds time_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
    bool let_go_ = false;  // guarded by mutex_
    std::atomic<bool> passed_{true};
};

}  // namespace pegaflow::soak
