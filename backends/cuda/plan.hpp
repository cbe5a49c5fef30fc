// SPDX-License-Identifier: Apache-2.0
// plan.hpp - an accepted batch in the form that all copy paths work from: tiles times pairs, in groups.
//
// A tile is one segment of a span (neighbours that continue each other on both sides are one tile), a pair is one element of
// the index arrays. A group is the tiles between two marks; groups land in order. Side A is memory of this GPU, side B is the
// other one. A FLAT batch has one tile whose pairs are byte offsets. Building costs one pass over the tiles and two over the
// indices.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/job.hpp"
#include "pegaflow/backend.hpp"

namespace cuda_backend {

struct Group {
    std::uint32_t first_tile = 0;
    std::uint32_t tile_count = 0;
    std::uint64_t spans_after = 0;  // leading spans of the batch that have landed when this group has
    std::uint64_t block_bytes = 0;  // of all tiles for one pair
    bool dense = false;             // the tiles follow each other on side B, with one stride: a pair is one page there
};

// Consecutive bytes on both sides.
struct Run {
    std::uint64_t a = 0, b = 0, bytes = 0;
};

// Where a path stands in a plan: everything before it is queued.
struct Cursor {
    std::uint32_t group = 0;
    std::uint32_t tile = 0;  // within the group
    std::uint64_t pair = 0;
};

class Plan {
public:
    // Checks the batch and takes it in; its arrays stay borrowed until the batch has ended. INVALID when it is not sound.
    // [data] once the plan has seen a batch as large.
    // With `digests` the origin of sorted pairs is kept.
    pega_status build(const pega_batch& batch, const pega_device* device, bool digests);

    // The next run at the cursor, merged with what follows in its tile while it continues on both sides; false when the cursor
    // has come to the group `end`. [data]
    bool next_run(Cursor& cursor, std::uint32_t end, Run& out) const noexcept;

    Pair pair(std::uint64_t i) const noexcept {
        return sorted_.empty() ? Pair{a_index_[i], b_index_[i]} : sorted_[static_cast<std::size_t>(i)];
    }
    // Calls put(i, pair) for `count` pairs from `first` on, i from 0. [data]
    template <class Put>
    void for_pairs(std::uint64_t first, std::uint64_t count, const Put& put) const noexcept {
        if (sorted_.empty()) {
            for (std::uint64_t i = 0; i < count; ++i) put(i, Pair{a_index_[first + i], b_index_[first + i]});
        } else {
            for (std::uint64_t i = 0; i < count; ++i) put(i, sorted_[static_cast<std::size_t>(first + i)]);
        }
    }
    // Which index of the batch a pair is, when the plan was built for digests.
    std::uint64_t origin(std::uint64_t i) const noexcept { return keeps_order() ? i : origin_[static_cast<std::size_t>(i)]; }
    bool keeps_order() const noexcept { return origin_.empty(); }
    // Bytes of a pair; only when lengths differ, else null.
    const std::uint64_t* lengths() const noexcept { return lengths_; }
    std::uint64_t length_of(const Tile& tile, std::uint64_t i) const noexcept {
        return lengths_ != nullptr ? lengths_[i] : tile.bytes;
    }

    std::vector<Tile> tiles;
    std::vector<Group> groups;
    std::uint64_t pair_count = 0;
    std::uint64_t bytes = 0;
    std::uint64_t fragment = 0;  // mean bytes of a run
    std::uint64_t page_run = 0;  // mean consecutive bytes on side B
    bool to_a = false;           // direction
    bool mixed = false;          // sides differ between spans: A is the local one, no kernel may be used
    bool aligned = false;        // every address and size is a multiple of 16
    bool b_is_host = false;
    bool digestible = false;  // aligned, the pages lie on side B, and the kernels can compute their digests
    // Indices are multiples of 2^index_shift; divided by it they fit in so many bytes: 2, 4 or 8.
    unsigned index_bytes = 8;
    unsigned index_shift = 0;

private:
    struct Indices {
        std::uint64_t max_a = 0, max_b = 0, min_b = 0, bits = 0;
        bool ascending = true;
    };
    struct Breaks {
        std::uint64_t runs = 0, pages = 0;
    };
    Breaks count_breaks(const Tile& tile, std::uint64_t page) const noexcept;
    Indices look_at_indices(const pega_batch& batch) const noexcept;
    pega_status build_flat(const pega_batch& batch, const pega_device* device);
    pega_status build_spans(const pega_batch& batch, const pega_device* device);
    pega_status add_span(const pega_batch& batch, const pega_span& span, const pega_device* device, const Indices& indices);
    void orient(const pega_region* local, const pega_region* remote, bool reads) noexcept;
    void close_group(std::uint64_t spans_after);
    void narrow_down(const Indices& indices) noexcept;
    void sort_pairs(const Indices& indices, std::uint64_t step, bool keep_origin);
    void measure();

    const std::uint64_t* a_index_ = nullptr;
    const std::uint64_t* b_index_ = nullptr;
    const std::uint64_t* lengths_ = nullptr;
    std::vector<Pair> sorted_, scratch_;
    std::vector<std::uint32_t> origin_, origin_scratch_;
    bool a_is_local_ = true;
    bool oriented_ = false;
};

}  // namespace cuda_backend
