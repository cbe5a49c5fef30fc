// SPDX-License-Identifier: Apache-2.0
// pool.hpp - the memory that blocks live in: one mapping, one arena a NUMA node, touched in parallel at the start.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/block/block.hpp"
#include "engine/pool/slab.hpp"
#include "pegaflow/result.hpp"

namespace pegaflow::engine {

struct PoolOptions {
    std::uint64_t bytes = 0;
    bool hugepages = false;
    std::string file;           // tmpfs or hugetlbfs; "" = anonymous
    bool numa_affinity = true;  // an arena a node
};

class Pool final : public PageOwner {
public:
    // Maps and touches all of it, several threads a node. kNoMemory with what to do about it, kInvalid. [any]
    static Result<std::unique_ptr<Pool>> create(const PoolOptions& options);
    ~Pool();

    std::byte* base() const noexcept { return base_; }
    std::uint64_t capacity() const noexcept { return bytes_; }
    // A page of `bytes`, from `node`'s arena when it has room, else from any other; Slab::kNone when none has. [any]
    std::uint64_t allocate(std::uint64_t bytes, int node);
    // Appends up to `count` pages; returns how many. [any]
    std::uint64_t allocate_many(std::uint64_t bytes, std::uint64_t count, int node, std::vector<std::uint64_t>& out);
    void free_page(std::uint64_t offset, std::uint64_t bytes) noexcept override;

    std::uint64_t used() const;
    std::uint64_t largest_free() const;

private:
    struct Arena {
        int node = 0;
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
        std::unique_ptr<Slab> slab;
    };
    Pool() = default;
    Result<void> map(const PoolOptions& options);
    void touch();
    Arena& arena_of(std::uint64_t offset) noexcept;

    std::byte* base_ = nullptr;
    std::uint64_t bytes_ = 0;
    int fd_ = -1;
    std::vector<Arena> arenas_;
};

}  // namespace pegaflow::engine
