// SPDX-License-Identifier: Apache-2.0
// sides.hpp - the memory of a transfer benchmark: a device side, a host side, and a staging copy that fills and checks both.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/transfer/geometry.hpp"
#include "tools/pegaflow/transfer/host_memory.hpp"

namespace pegaflow::cli {

// A fabric, one of its devices, and memory on both sides.
class Sides {
public:
    // Opens the device in a fabric of its own with `options` for its back end. kNoMemory when there are too few huge pages and
    // nothing else will do.
    static Result<Sides> make(const FabricOptions& options, const std::string& device, std::uint64_t bytes,
                              std::uint64_t host_bytes, HugePages pages = HugePages::kOff);
    // Memory of another process: the address of its device, the memory's descriptor, and how much of it is used.
    struct Remote {
        std::vector<std::byte> address, descriptor;
        std::uint64_t bytes = 0;
    };
    // The same with `remote` as the other side. kInvalid when it is smaller than it should be.
    static Result<Sides> make_peer(const FabricOptions& options, const std::string& device, std::uint64_t bytes,
                                   const Remote& remote);
    Sides(Sides&&) noexcept = default;
    ~Sides();

    Device& device() const noexcept { return *device_; }
    Region& local() noexcept { return local_; }
    Region& remote() noexcept { return remote_; }
    bool has_huge_pages() const noexcept { return huge_; }
    Result<Channel> channel() { return device_->open_channel(address_); }
    // Channels that stay open as long as the sides, one a thread; all points share them.
    Result<Channel*> worker_channel(std::size_t thread);
    // Asks whoever owns the remote memory whether it sees this image of it, whenever the sides are checked.
    using Witness = std::function<Result<bool>(std::span<const std::byte> image)>;
    void witness(Witness ask) { witness_ = std::move(ask); }

    // Fills the source side with a pattern of the seed and the target side with poison.
    Result<void> prepare(bool to_device, std::uint64_t seed);
    // Compares both sides as the scatters map them; the number of wrong bytes, all when the witness sees others.
    Result<std::uint64_t> check(const std::vector<Scatter>& scatters);

private:
    Sides() = default;
    static Result<Sides> open(const FabricOptions& options, const std::string& device);
    // Device memory, and as much of the host's as its image needs.
    Result<void> allocate(std::uint64_t bytes, std::uint64_t staging_bytes, HugePages pages);
    Result<Region> allocate_host(std::uint64_t bytes, HugePages pages);
    Result<void> upload(Region& to, std::uint64_t seed, bool pattern);
    Result<const std::byte*> image(Region& of, Region& staging);
    Result<void> copy(Region& local, Region& remote, bool read);

    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    std::vector<HostMemory> memory_;  // under regions; vectors and regions may move, mappings stay
    bool huge_ = false;               // all host memory, but for images
    Region local_, remote_, staging_, second_;
    Channel channel_;
    std::vector<std::unique_ptr<Channel>> workers_;
    std::vector<std::byte> address_;  // of the remote side's device; empty = this device itself
    std::uint64_t remote_bytes_ = 0;  // used of the remote side
    Witness witness_;
};

// The name of the device to use: the one asked for, else the last GPU, else the first device. kNotFound.
Result<std::string> choose_device(const FabricOptions& options, const std::string& asked, DeviceInfo* info);

}  // namespace pegaflow::cli
