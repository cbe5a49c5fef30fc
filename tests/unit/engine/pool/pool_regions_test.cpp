// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/pool_regions.hpp"

#include <climits>

namespace pegaflow::engine {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// A device that takes its time to register memory, and refuses some of it.
class SlowDevice final : public Device {
public:
    explicit SlowDevice(Device& inner) : inner_(inner) {}
    const DeviceInfo& info() const noexcept override { return inner_.info(); }
    const pega_capabilities& capabilities() const noexcept override { return inner_.capabilities(); }
    Result<Region> register_memory(const pega_memory& memory) override {
        std::this_thread::sleep_for(delay);
        while (registered >= allowed) std::this_thread::sleep_for(1ms);
        ++registered;
        if (memory.address == refused) return fail(Code::kNoMemory, "no more memory can be locked");
        return inner_.register_memory(memory);
    }
    Result<Region> import_region(std::span<const std::byte> descriptor) override { return inner_.import_region(descriptor); }
    Result<std::vector<std::byte>> address() const override { return inner_.address(); }
    Result<Channel> open_channel(std::span<const std::byte> address, std::uint32_t depth) override {
        return inner_.open_channel(address, depth);
    }
    const void* extension(const char* id) const noexcept override { return inner_.extension(id); }
    pega_device* handle() const noexcept override { return inner_.handle(); }
    Result<void> wait_notify(std::uint32_t value, std::uint64_t count, std::chrono::nanoseconds timeout) override {
        return inner_.wait_notify(value, count, timeout);
    }
    DeviceHealth health() const override { return inner_.health(); }

    std::chrono::milliseconds delay = 50ms;
    std::atomic<int> registered{0};
    std::atomic<int> allowed{INT_MAX};  // what is more must wait
    const void* refused = nullptr;

private:
    Device& inner_;
};

class PoolRegionsTest : public ::testing::Test {
protected:
    PoolRegionsTest()
        : fabric_(*Fabric::open({.backends = {"host"}})),
          slow_(**fabric_->device("host:0")),
          pool_(*Pool::create({.bytes = 8 * kMiB, .numa_affinity = false, .slice_bytes = kMiB})) {
        while (pool_->ready_bytes() != pool_->capacity()) std::this_thread::sleep_for(1ms);
    }

    std::unique_ptr<Fabric> fabric_;
    SlowDevice slow_;
    std::unique_ptr<Pool> pool_;
};

TEST_F(PoolRegionsTest, ADeviceIsOpenBeforeAllIsRegistered) {
    PoolRegions regions(*pool_);
    EXPECT_EQ(regions.ready_bytes(), 8 * kMiB) << "no device waits for anything";
    slow_.allowed = 1;
    const auto slices = regions.open(slow_);
    ASSERT_TRUE(slices);
    EXPECT_TRUE((*slices)->has(0));
    EXPECT_FALSE((*slices)->has(7));
    EXPECT_LT(regions.ready_bytes(), 8 * kMiB);
    slow_.allowed = INT_MAX;
    const auto last = (*slices)->get(7);  // it is needed now
    ASSERT_TRUE(last);
    EXPECT_EQ((*last)->address(), pool_->base() + 7 * kMiB);
    EXPECT_EQ((*last)->length(), kMiB);
    for (int i = 0; i < 4000 && regions.ready_bytes() != 8 * kMiB; ++i) std::this_thread::sleep_for(5ms);
    EXPECT_EQ(regions.ready_bytes(), 8 * kMiB);
    EXPECT_EQ(slow_.registered, 8) << "each slice once";
    EXPECT_EQ(*regions.open(slow_), *slices) << "opened once";
}

TEST_F(PoolRegionsTest, ClosesWhileItRegisters) {
    PoolRegions regions(*pool_);
    slow_.delay = 300ms;
    ASSERT_TRUE(regions.open(slow_));
    regions.close();
    EXPECT_LT(slow_.registered, 8);
    EXPECT_EQ(regions.open(slow_).error().code, Code::kCanceled);
}

TEST_F(PoolRegionsTest, ASliceThatCannotBeRegisteredIsTriedOnceInTheBackground) {
    slow_.delay = 0ms;
    slow_.refused = pool_->base() + 3 * kMiB;
    PoolRegions regions(*pool_);
    const auto slices = regions.open(slow_);
    ASSERT_TRUE(slices);
    for (int i = 0; i < 4000 && regions.ready_bytes() != 7 * kMiB; ++i) std::this_thread::sleep_for(5ms);
    EXPECT_EQ(regions.ready_bytes(), 7 * kMiB);
    EXPECT_FALSE((*slices)->get_next());
    EXPECT_EQ((*slices)->get(3).error().message, "no more memory can be locked");
    slow_.refused = pool_->base();
    PoolRegions others(*pool_);
    EXPECT_EQ(others.open(slow_).error().code, Code::kNoMemory) << "without its first slice a device is of no use";
}

}  // namespace
}  // namespace pegaflow::engine
