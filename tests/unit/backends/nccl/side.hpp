// SPDX-License-Identifier: Apache-2.0
// side.hpp - one GPU of a test with two: its fabric, a region whose bytes are known, and the way to read them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"

namespace pegaflow::nccl_test {

// Makes the process use the fakes where they were built. The reason why these tests cannot run here, or "".
std::string prepare();

class Side {
public:
    Side(int gpu, std::uint64_t bytes, std::map<std::string, std::string> options = {}, std::uint32_t kind = PEGA_MEMORY_GPU,
         std::uint32_t flags = 0);
    ~Side();

    Device& device() { return *device_; }
    Region& region() { return region_; }
    Channel connect(Side& to);
    // A channel to what `address` names, and the region that `descriptor` names, as this side sees it.
    Channel connect(const std::vector<std::byte>& address);
    Region import(const std::vector<std::byte>& descriptor);
    std::vector<std::byte> address();
    std::vector<std::byte> descriptor();

    // Sets all bytes; reads them back.
    void write(const std::vector<std::uint8_t>& bytes);
    std::vector<std::uint8_t> read();

    static std::vector<std::uint8_t> pattern(std::uint64_t bytes, std::uint64_t seed);

private:
    void copy(bool to_region);
    std::unique_ptr<Fabric> fabric_;
    Device* device_ = nullptr;
    Region region_, image_;
    Channel self_;
};

// Submits and waits; the error when it failed.
Result<std::uint64_t> run(Channel& channel, Transfer& transfer);

}  // namespace pegaflow::nccl_test
