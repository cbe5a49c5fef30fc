// SPDX-License-Identifier: Apache-2.0
// slab.hpp - pages of exact sizes out of one big range, without fragmentation inside a size.
//
// Each page size has chunks of its own; a chunk holds pages of one size only, and goes back to the range when its last page
// does. Sizes are multiples of kGranule, so that nothing is lost inside a page.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/thread.hpp"

namespace pegaflow::engine {

class Slab {
public:
    static constexpr std::uint64_t kGranule = 4096;
    static constexpr std::uint64_t kMaxChunkBytes = std::uint64_t{16} << 20;
    static constexpr std::uint64_t kMinChunks = 128;  // a size must not take a large part of a small range at once
    static constexpr std::uint64_t kNone = UINT64_MAX;

    // An empty range; `add` gives it room. [any]
    Slab() = default;
    // Makes [offset, offset + length) available. [any]
    void add(std::uint64_t offset, std::uint64_t length);
    // The offset of a page of `bytes` (a multiple of kGranule), or kNone. [any]
    std::uint64_t allocate(std::uint64_t bytes) {
        std::uint64_t page = kNone;
        allocate_many(bytes, {&page, 1});
        return page;
    }
    // The first of `out` become pages, as many as there are, under one lock; returns how many. [any]
    std::uint64_t allocate_many(std::uint64_t bytes, std::span<std::uint64_t> out);
    // `offset` came from allocate with the same `bytes`. [any]
    void free(std::uint64_t offset, std::uint64_t bytes);

    std::uint64_t used() const;
    std::uint64_t largest_free() const;  // the longest free range that a new chunk could come from, or a free page

private:
    struct Chunk {
        std::uint64_t offset = 0;
        std::uint64_t page = 0;
        std::uint64_t pages = 0;
        std::vector<std::uint32_t> free;  // page numbers
    };
    struct Class {
        std::set<std::uint64_t> partial;  // offsets of chunks with a free page, lowest first, so that high ones drain
    };

    Chunk* new_chunk(std::uint64_t bytes);
    void release_range(std::uint64_t offset, std::uint64_t length);

    mutable base::AdaptiveMutex mutex_;
    std::map<std::uint64_t, std::uint64_t> ranges_;     // free ranges, offset to length; guarded by mutex_
    std::map<std::uint64_t, Chunk> chunks_;             // by offset; guarded by mutex_
    std::unordered_map<std::uint64_t, Class> classes_;  // by page size; guarded by mutex_
    std::uint64_t used_ = 0;                            // guarded by mutex_
    std::uint64_t total_ = 0;                           // guarded by mutex_
};

}  // namespace pegaflow::engine
