// SPDX-License-Identifier: Apache-2.0
// setup.hpp - an engine with an SSD tier and two pretended workers, whose blocks' bytes follow from a seed and a number.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pegaflow/engine.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::torture {

constexpr std::uint64_t kPoolBytes = 64 << 20;
constexpr std::uint64_t kSegmentBytes = 4 << 20;

// Where the tier is, and how the nvme back end is opened.
struct Place {
    std::string dir;
    std::uint64_t capacity_bytes = 0;
    std::map<std::string, std::string> nvme;
};

// A worker whose memory holds blocks of one size.
class Worker {
public:
    Worker(std::string name, std::uint64_t block_bytes);

    WorkerRegistration registration();
    void fill(std::uint32_t block, std::uint64_t seed, std::uint64_t number);
    bool right(std::uint32_t block, std::uint64_t seed, std::uint64_t number);
    void poison(std::uint32_t block);
    const std::string& name() const { return name_; }
    std::uint64_t block_bytes() const { return block_bytes_; }

private:
    std::uint64_t* at(std::uint32_t block);

    std::string name_;
    std::uint64_t block_bytes_;
    std::vector<std::byte> memory_;
};

std::string hash_of(std::uint64_t seed, std::uint64_t number);

enum class Found { kNothing, kRightBytes, kWrongBytes };

class Setup {
public:
    // kRegionLost when the tier cannot use the place; what the fabric and the engine say.
    static Result<std::unique_ptr<Setup>> open(const Place& place);

    Result<void> save(std::uint64_t seed, std::uint64_t number);
    // Asks for the block, waits while it comes from the tier, and compares every byte.
    Result<Found> read(std::uint64_t seed, std::uint64_t number);
    // Every fifth block is a large one.
    Worker& of(std::uint64_t number) { return number % 5 == 4 ? large_ : small_; }
    Engine& engine() { return *engine_; }

private:
    Setup() = default;

    std::unique_ptr<Fabric> fabric_;
    std::unique_ptr<Engine> engine_;
    Worker small_{"small", 64 << 10}, large_{"large", 768 << 10};
};

}  // namespace pegaflow::torture
