// SPDX-License-Identifier: Apache-2.0
#include "contention.hpp"

#include <initializer_list>

namespace cuda_backend {
namespace {

constexpr double kLongNs = 200e3;  // a full link holds the question itself up by a tenth of a millisecond and more
constexpr double kWeight = 0.125;  // of one answer
// Beside copies that hold multiprocessors all the time, a model that waits for them leaves the others idle every other time.
constexpr double kCrowded = 0.3, kRoomAgain = 0.1;
constexpr std::uint64_t kBetweenNs = 500000;          // two questions,
constexpr std::uint64_t kBetweenCrowdedNs = 2000000;  // which hold the model up a little as well,
constexpr std::uint64_t kPatienceNs = 100000;         // and two looks for an answer

}  // namespace

Result Contention::open(const Driver& driver, const RoomKernel& kernel) {
    if (kernel.function == nullptr) return kSuccess;
    kernel_ = kernel;
    int least = 0;
    int greatest = 0;
    driver.cuCtxGetStreamPriorityRange(&least, &greatest);
    Result result = driver.cuStreamCreateWithPriority(&stream_, kStreamNonBlocking, greatest);
    for (Event* const event : {&asked_, &answered_}) {
        if (result == kSuccess) result = driver.cuEventCreate(event, 0);
    }
    if (result != kSuccess) close(driver);
    return result;
}

void Contention::close(const Driver& driver) noexcept {
    for (const Event event : {asked_, answered_}) {
        if (event != nullptr) driver.cuEventDestroy_v2(event);
    }
    if (stream_ != nullptr) driver.cuStreamDestroy_v2(stream_);
    stream_ = nullptr;
    asked_ = answered_ = nullptr;
    asking_ = false;
}

void Contention::look(const Driver& driver, std::uint64_t now_ns) noexcept {
    if (stream_ == nullptr || now_ns < look_at_ns_) return;
    look_at_ns_ = now_ns + kPatienceNs;
    if (!asking_) return ask(driver);
    if (driver.cuEventQuery(answered_) == kNotReady) return;
    asking_ = false;
    look_at_ns_ = now_ns + (crowded() ? kBetweenCrowdedNs : kBetweenNs);
    float milliseconds = 0;
    if (driver.cuEventElapsedTime(&milliseconds, asked_, answered_) == kSuccess) hear(milliseconds * 1e6);
}

void Contention::ask(const Driver& driver) noexcept {
    Result result = driver.cuEventRecord(asked_, stream_);
    if (result == kSuccess) {
        result = driver.cuLaunchKernel(kernel_.function, 1, 1, 1, kernel_.threads, 1, 1, kernel_.shared_bytes, stream_, nullptr,
                                       nullptr);
    }
    if (result == kSuccess) result = driver.cuEventRecord(answered_, stream_);
    asking_ = result == kSuccess;
}

void Contention::hear(double waited_ns) noexcept {
    waits_ += ((waited_ns >= kLongNs ? 1 : 0) - waits_) * kWeight;
    if (waits_ >= kCrowded) crowded_.store(true, std::memory_order_relaxed);
    if (waits_ <= kRoomAgain) crowded_.store(false, std::memory_order_relaxed);
}

}  // namespace cuda_backend
