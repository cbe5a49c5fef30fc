// SPDX-License-Identifier: Apache-2.0
// sides.hpp - the memory of a transfer benchmark: a device side, a host side, and a staging copy that fills and checks both.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/transfer/geometry.hpp"

namespace pegaflow::cli {

// A fabric, one of its devices, and memory on both sides.
class Sides {
public:
    // Opens the device in a fabric of its own with `options` for its back end.
    static Result<Sides> make(const FabricOptions& options, const std::string& device, std::uint64_t bytes,
                              std::uint64_t host_bytes);
    // The same with `remote` as the other side: memory of another process that its descriptor names.
    static Result<Sides> make_peer(const FabricOptions& options, const std::string& device, std::uint64_t bytes,
                                   std::span<const std::byte> descriptor);
    Sides(Sides&&) noexcept = default;
    ~Sides();

    Device& device() const noexcept { return *device_; }
    Region& local() noexcept { return local_; }
    Region& remote() noexcept { return remote_; }
    Result<Channel> channel() { return device_->open_channel(); }

    // Fills the source side with a pattern of the seed and the target side with poison.
    Result<void> prepare(bool to_device, std::uint64_t seed);
    // Compares both sides as the scatters map them; the number of wrong bytes.
    Result<std::uint64_t> check(const std::vector<Scatter>& scatters);

private:
    Sides() = default;
    static Result<Sides> open(const FabricOptions& options, const std::string& device, std::uint64_t bytes);
    Result<void> upload(Region& to, std::uint64_t seed, bool pattern);
    Result<const std::byte*> image(Region& of, Region& staging);
    Result<void> copy(Region& local, Region& remote, bool read);

    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region local_, remote_, staging_, second_;
    Channel channel_;
};

// The name of the device to use: the one asked for, else the last GPU, else the first device. kNotFound.
Result<std::string> choose_device(const FabricOptions& options, const std::string& asked, DeviceInfo* info);

}  // namespace pegaflow::cli
