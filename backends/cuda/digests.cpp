// SPDX-License-Identifier: Apache-2.0
#include "digests.hpp"

namespace cuda_backend {

Result DigestRing::prepare(const Driver& driver) {
    constexpr std::size_t kBytes = kSums * sizeof(std::uint64_t);
    Result result = driver.cuMemAlloc_v2(&device_, kBytes);
    if (result != kSuccess) device_ = 0;
    void* host = nullptr;
    if (result == kSuccess) result = driver.cuMemHostAlloc(&host, kBytes, kHostPortable);
    if (result == kSuccess) {
        host_ = static_cast<std::uint64_t*>(host);
    } else {
        release(driver);
    }
    return result;
}

void DigestRing::release(const Driver& driver) noexcept {
    if (device_ != 0) driver.cuMemFree_v2(device_);
    if (host_ != nullptr) driver.cuMemFreeHost(host_);
    *this = {};
}

DigestArea DigestRing::take(const Driver& driver, std::uint64_t count, Stream stream) noexcept {
    if (device_ == 0 || count == 0 || count > kSums) return {};
    std::uint64_t at = end_;
    if (at % kSums + count > kSums) at += kSums - at % kSums;  // an area does not wrap
    if (at + count - begin_ > kSums && begin_ != end_) return {};
    const DevicePointer device = device_ + at % kSums * sizeof(std::uint64_t);
    if (driver.cuMemsetD8Async(device, 0, count * sizeof(std::uint64_t), stream) != kSuccess) return {};
    if (begin_ == end_) begin_ = at;
    end_ = at + count;
    return {device, host_ + at % kSums, count, end_};
}

Result DigestRing::fetch(const Driver& driver, const DigestArea& area, Stream stream) const noexcept {
    const auto host = reinterpret_cast<DevicePointer>(area.host);
    return driver.cuMemcpyAsync(host, area.device, area.count * sizeof(std::uint64_t), stream);
}

void DigestRing::give(const DigestArea& area) noexcept {
    if (area.device != 0) begin_ = area.end;
}

}  // namespace cuda_backend
