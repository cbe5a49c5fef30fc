// SPDX-License-Identifier: Apache-2.0
// peer_side.hpp - one side of the peer tests: a GPU's device, memory with known bytes, and looks into memory.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"

namespace pegaflow {

constexpr std::uint64_t kPeerBytes = 8U << 20;

// The bytes that a side with this seed begins with.
std::vector<std::uint8_t> seeded_bytes(std::uint64_t seed, std::uint64_t length = kPeerBytes);

// Pages of `page` bytes that go from place to other place, in random order.
struct Pages {
    std::uint64_t page = 0;
    std::vector<std::uint64_t> local, remote;
    static Pages random(std::uint64_t page, std::uint64_t count, std::mt19937_64& from);
    void fill(Transfer& transfer, const Region& local_region, const Region& remote_region, bool read) const;
    // The same on bytes.
    void apply(std::vector<std::uint8_t>& target, const std::vector<std::uint8_t>& source, bool read) const;
};

class PeerSide {
public:
    // Null, with the reason in `why`, where there is no such GPU.
    static std::unique_ptr<PeerSide> open(const std::string& device, const std::string& path, std::string* why);
    ~PeerSide();

    Device& device() const noexcept { return *device_; }
    Region& memory() noexcept { return memory_; }
    void write(Region& region, const std::vector<std::uint8_t>& bytes);
    std::vector<std::uint8_t> read(Region& region);
    // Submits and waits.
    Result<std::uint64_t> run(Channel& channel, Transfer& transfer);

private:
    PeerSide() = default;
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region memory_, staging_;
    Channel own_;
};

}  // namespace pegaflow
