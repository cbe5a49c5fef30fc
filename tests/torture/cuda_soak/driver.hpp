// SPDX-License-Identifier: Apache-2.0
// driver.hpp - the few things that the soak asks the CUDA driver itself: names, memory in use, a stream that is held up.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
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

// A stream of our own that a function of the host holds up.
class HeldStream {
public:
    explicit HeldStream(const HeldGpu& gpu);
    ~HeldStream();  // lets it go, and waits for what was held up
    HeldStream(const HeldStream&) = delete;
    HeldStream& operator=(const HeldStream&) = delete;

    // For a while, or until `let_go`. False when the driver cannot. What is put into the stream after this runs after `passed`
    // has become true.
    bool hold(std::chrono::microseconds time);
    bool hold();
    void let_go();
    void* handle() const noexcept { return stream_; }
    bool passed() const noexcept { return passed_.load(std::memory_order_acquire); }
    void wait();

private:
    bool call(void (*function)(void*));
    const HeldGpu& gpu_;
    void* stream_ = nullptr;
    std::chrono::microseconds time_{0};
    std::atomic<bool> held_{false};
    std::atomic<bool> passed_{true};
};

}  // namespace pegaflow::soak
