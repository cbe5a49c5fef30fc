// SPDX-License-Identifier: Apache-2.0
// pool.hpp - the memory that blocks live in: one mapping, slices of it a NUMA node, made ready one after the other.
//
// Touching hundreds of GiB takes minutes: the first slice of each node is there when create returns, the others follow in the
// background, and pages come from what is ready. A page lies in one slice, so that slices can be registered one by one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/block/block.hpp"
#include "engine/pool/slab.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

struct PoolOptions {
    std::uint64_t bytes = 0;
    bool hugepages = false;
    std::string file;               // tmpfs or hugetlbfs; "" = anonymous
    bool numa_affinity = true;      // slices a node
    std::uint64_t slice_bytes = 0;  // made ready at a time, over all nodes; 0 = all
};

class Pool final : public PageOwner {
public:
    using Usable = std::function<bool(std::size_t slice)>;

    struct Slice {
        int node = 0;
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
        Slab slab;
        std::atomic<bool> ready{false};  // touched; never taken back
    };

    // Maps all of it and touches the first slice of each node, several threads a node. kNoMemory with what to do about it,
    // kInvalid. [any]
    static Result<std::unique_ptr<Pool>> create(const PoolOptions& options);
    ~Pool();

    std::byte* base() const noexcept { return base_; }
    std::uint64_t capacity() const noexcept { return bytes_; }
    std::uint64_t ready_bytes() const noexcept;
    // The system had no memory for some slice: what is ready is all that there will be. [any]
    bool incomplete() const noexcept { return incomplete_.load(std::memory_order_relaxed); }
    // How many pages of `bytes` there can be when nothing else is; 0 for a page that is larger than a slice. [any]
    std::uint64_t most_pages(std::uint64_t bytes) const noexcept;
    std::size_t slice_count() const noexcept { return slices_.size(); }
    const Slice& slice(std::size_t number) const noexcept { return *slices_[number]; }
    // The number of the slice in which a page lies. [any]
    std::size_t slice_of(std::uint64_t offset) const noexcept;

    // A page of `bytes`, from `node`'s slices when they have room, else from any other; Slab::kNone when none has. [any]
    std::uint64_t allocate(std::uint64_t bytes, int node);
    // Appends up to `count` pages from ready slices for which `usable` holds (null = all); returns how many. [any]
    std::uint64_t allocate_many(std::uint64_t bytes, std::uint64_t count, int node, std::vector<std::uint64_t>& out,
                                const Usable& usable = nullptr);
    void free_page(std::uint64_t offset, std::uint64_t bytes) noexcept override;

    std::uint64_t used() const;
    std::uint64_t largest_free() const;

    // Ends the background work; slices that are not ready stay so. Idempotent. [serial]
    void close();

private:
    Pool() = default;
    Result<void> map(const PoolOptions& options);
    void divide(const PoolOptions& options, std::uint64_t page);
    // Touches slices [first, end) at once. kNoMemory.
    Result<void> prepare(std::size_t first, std::size_t end);
    void prepare_rest(std::size_t first);
    // The first of `out` become pages; returns how many.
    std::uint64_t take(std::uint64_t bytes, int node, const Usable& usable, std::span<std::uint64_t> out);

    std::byte* base_ = nullptr;
    std::uint64_t bytes_ = 0;
    int fd_ = -1;
    std::size_t nodes_ = 1;
    std::vector<std::unique_ptr<Slice>> slices_;  // by offset within a node; the nodes take turns
    std::atomic<bool> stop_{false}, incomplete_{false};
    std::thread background_;
};

}  // namespace pegaflow::engine
