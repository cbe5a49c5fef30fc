// SPDX-License-Identifier: Apache-2.0
// catalog.hpp - the index over all containers and the state of their segments, under one lock.
//
// A record becomes visible by `commit`, which the writer calls when it is on the device. A location that was pinned stays where
// it is until it is unpinned, whatever happens to its record.
#pragma once

#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

#include "engine/block/scope_table.hpp"
#include "engine/block/small_array.hpp"
#include "engine/tier/record_index.hpp"
#include "engine/tier/recovery.hpp"
#include "engine/tier/segment_map.hpp"

namespace pegaflow::engine::tier {

// Where a block lies, held in place for reading.
struct Location {
    RecordId id;
    std::uint32_t container = 0;
    std::uint64_t slot = 0;
    std::uint64_t offset = 0;  // from the container's start
    SmallArray<StoredPage> pages;
};

struct NewRecord {
    BlockKey key;
    std::uint64_t offset = 0;  // from the segment's start
    std::vector<StoredPage> pages;
    std::uint8_t heat = 0;
};

struct HotRecord {
    BlockKey key;
    std::vector<StoredPage> pages;
    std::uint8_t heat = 0;
};

// Byte for byte where a container's capacity is.
struct Usage {
    std::uint64_t segments = 0, free_segments = 0, foreign_segments = 0, no_space_segments = 0;
    std::uint64_t capacity_bytes = 0;  // of all segments
    std::uint64_t used_bytes = 0;      // of segments that are not free
    std::uint64_t live_bytes = 0;      // of pages that can be found
    std::uint64_t blocks = 0;
};

class Catalog {
public:
    explicit Catalog(ScopeTable& scopes) : scopes_(scopes) {}

    // Adds a container and returns its number; then what was found in it, in any order: of two records with one key the one of
    // the later segment counts. Segments that were not sealed count as sealed until `resume`.
    std::uint32_t add_container(const Superblock& superblock);
    void add_found(std::uint32_t container, const FoundSegment& found);
    // The writer goes on with this segment, or is about to seal it: until then it cannot be given up.
    void resume(std::uint32_t container, std::uint64_t slot);
    std::uint64_t last_sequence(std::uint32_t container) const;
    // Some segments could not be read: the next one is begun under a sequence that none of them can have.
    void skip_sequences(std::uint32_t container);

    // True when the block could be read. [any]
    bool contains(const BlockKey& key) const;
    // Pins the places of blocks and counts the uses; one place a key, none where nothing can be read. [any]
    std::vector<std::optional<Location>> pin(std::span<const BlockKey> keys);
    std::optional<Location> pin(const BlockKey& key) { return std::move(pin({&key, 1}).front()); }
    void unpin(std::span<const std::optional<Location>> places);
    void unpin(const std::optional<Location>& place) { unpin({&place, 1}); }
    // The bytes at a place were not what they should be: the record is not found any more. [any]
    void quarantine(const Location& location);
    // Blocks of a container whose reads do not count as found while it cannot be read. [any]
    void set_readable(std::uint32_t container, bool readable);

    // For the writer of a container.
    std::optional<std::uint64_t> begin(std::uint32_t container, std::uint64_t* sequence);
    void commit(std::uint32_t container, std::uint64_t slot, std::span<const NewRecord> records);
    void seal(std::uint32_t container, std::uint64_t slot);
    void set_aside(std::uint32_t container, std::uint64_t slot);
    void retry_space(std::uint32_t container);
    std::uint64_t free_segments(std::uint32_t container) const;
    std::optional<std::uint64_t> oldest(std::uint32_t container) const;
    // What is live in a segment, as a table would name it; texts stay valid as long as `keep`.
    std::vector<Record> live_records(std::uint32_t container, std::uint64_t slot, std::vector<BlockKey>& keep) const;
    // The records of a segment that were read since they were written, hottest first, up to `limit` bytes.
    std::vector<HotRecord> hot_records(std::uint32_t container, std::uint64_t slot, std::uint64_t limit) const;
    // Forgets all records of a segment and gives it up. True when it is free at once; `blocks` gets how many were live.
    bool release(std::uint32_t container, std::uint64_t slot, std::uint64_t* blocks);

    Usage usage(std::uint32_t container) const;
    std::uint64_t blocks() const;
    std::uint64_t live_bytes() const;

private:
    struct Store {
        Superblock superblock;
        SegmentMap segments;
        std::uint32_t first = 0;  // number of its segment 0 over all containers
        std::uint64_t last_sequence = 0;
        bool readable = true;
    };
    const Store& store_of(std::uint32_t segment) const;
    void pin_one(RecordId id, std::optional<Location>& out);
    bool readable(RecordId id) const { return store_of(id.segment).readable; }

    ScopeTable& scopes_;
    mutable std::shared_mutex mutex_;
    std::vector<Store> stores_;  // guarded by mutex_
    RecordIndex index_;          // guarded by mutex_
};

}  // namespace pegaflow::engine::tier
