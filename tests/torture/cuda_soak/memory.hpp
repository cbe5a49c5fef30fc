// SPDX-License-Identifier: Apache-2.0
// memory.hpp - memory of every sort with known bytes: where the soak's transfers begin and end, and how it looks at them.
//
// Bytes come from two tables of noise. A source has a window of the first, a target begins as a window of the second, so that a
// byte that did not move and one that moved to the wrong place both differ from what is expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"
#include "tests/torture/cuda_soak/random.hpp"

namespace pegaflow::soak {

constexpr std::uint64_t kLargest = 64U << 20;  // of a buffer
constexpr std::uint64_t kWindows = 4U << 20;   // windows begin below that

// Made by the first call; `largest` is the length of the longest window that will be asked for.
void make_noise(std::uint64_t largest);
const std::uint8_t* source_window(std::uint64_t choice);
const std::uint8_t* poison_window(std::uint64_t choice);

// Looks into GPU memory and writes it by plain contiguous copies of the path `loop`, on a device of its own. One a thread.
class Checker {
public:
    // `device` belongs to a Fabric with path = loop, and outlives this.
    explicit Checker(Device& device);
    Device& device() const noexcept { return device_; }
    void put(const Region& region, const std::uint8_t* bytes, std::uint64_t length);
    void get(const Region& region, std::uint8_t* out, std::uint64_t length);

private:
    void move(const Region& region, std::uint64_t offset, std::uint64_t length, bool to_gpu);
    Device& device_;
    Region staging_;
    Channel channel_;
};

enum class Place { kGpu, kHost, kPeer };  // of the device's GPU, of the host, of another GPU or device of this process

class Buffer {
public:
    // GPU memory that `device` allocates; the checker is of the same GPU.
    static std::unique_ptr<Buffer> gpu(Device& device, Checker& checker, std::uint64_t length);
    // Host memory by one of the ways to get it, chosen by `random`: pinned, shared, a POSIX object, an address.
    static std::unique_ptr<Buffer> host(Device& device, std::uint64_t length, Random& random);
    // GPU memory of the checker's device, imported by `device`. Null where the two have no peer access.
    static std::unique_ptr<Buffer> peer(Device& device, Checker& checker, std::uint64_t length);
    // Memory of another process, whose bytes are known to be those at `contents`.
    static std::unique_ptr<Buffer> foreign(Device& device, std::span<const std::byte> descriptor, const std::uint8_t* contents);
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    Place place() const noexcept { return place_; }
    const Region& region() const noexcept { return region_; }
    std::uint64_t length() const noexcept { return region_.length(); }
    const char* sort() const noexcept { return sort_; }
    // What was last filled in, or null after something else may have been written.
    const std::uint8_t* contents() const noexcept { return contents_; }
    void forget_contents() noexcept { contents_ = nullptr; }

    void fill(const std::uint8_t* window);
    // The bytes as they are now: in place, or in `scratch`. Only while nothing writes them.
    const std::uint8_t* look(std::vector<std::uint8_t>& scratch);

private:
    Buffer(Place place, const char* sort) : place_(place), sort_(sort) {}
    Place place_;
    const char* sort_;
    const std::uint8_t* contents_ = nullptr;
    Checker* checker_ = nullptr;
    void* mapped_ = nullptr;  // memory that was registered by its address
    std::uint64_t mapped_length_ = 0;
    Region origin_;  // the checker's: for kPeer what was imported, for kGpu the same memory by its address
    Region region_;
};

}  // namespace pegaflow::soak
