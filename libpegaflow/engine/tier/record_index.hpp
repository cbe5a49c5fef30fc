// SPDX-License-Identifier: Apache-2.0
// record_index.hpp - which blocks are on the devices, and where: the records of each segment, and one table over all keys.
//
// Pure and not synchronised; catalog.hpp guards it. A block costs about 60 bytes and its hash.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block/key.hpp"
#include "engine/tier/format.hpp"

namespace pegaflow::engine::tier {

// Names a record: a segment (numbered over all containers) and its place within.
struct RecordId {
    std::uint32_t segment = 0;
    std::uint32_t record = 0;
    bool operator==(const RecordId&) const = default;
};

// The records of one segment in the order in which they were written.
class SegmentRecords {
public:
    struct Entry {
        std::uint64_t scope = 0;
        std::uint32_t group = 0;
        std::uint32_t hash_at = 0;
        std::uint32_t offset_blocks = 0;
        std::uint32_t first_page = 0;
        std::uint16_t pages = 0;
        std::uint8_t hash_bytes = 0;
        std::uint8_t heat = 0;  // reads since it was written; saturates
        bool live = true;
    };

    std::uint32_t add(const BlockKey& key, std::uint64_t offset, std::span<const StoredPage> pages);
    void reserve(std::size_t records);
    std::size_t size() const noexcept { return entries_.size(); }
    Entry& entry(std::uint32_t record) { return entries_[record]; }
    const Entry& entry(std::uint32_t record) const { return entries_[record]; }
    std::string_view hash(std::uint32_t record) const;
    BlockKey key(std::uint32_t record) const;
    std::span<const StoredPage> pages(std::uint32_t record) const;
    // Fetches into the cache what belongs to a record, whose entry is there.
    void prefetch(std::uint32_t record) const noexcept {
        __builtin_prefetch(hashes_.data() + entries_[record].hash_at);
        __builtin_prefetch(pages_.data() + entries_[record].first_page);
    }
    std::uint64_t bytes(std::uint32_t record) const;
    std::uint64_t live_bytes = 0, live_blocks = 0;

private:
    std::vector<Entry> entries_;
    std::vector<StoredPage> pages_;
    std::string hashes_;
};

class RecordIndex {
public:
    // Room for segments 0 to `count` - 1; those that are there stay.
    void resize(std::uint32_t count) { segments_.resize(count); }
    const SegmentRecords& segment(std::uint32_t number) const { return segments_[number]; }
    // Room for so many records of a segment.
    void reserve(std::uint32_t segment, std::size_t records) { segments_[segment].reserve(records); }

    // Adds a record. When the key is there already, the newer one takes its place and the older one is dead.
    RecordId insert(const BlockKey& key, std::uint32_t segment, std::uint64_t offset, std::span<const StoredPage> pages);
    std::optional<RecordId> find(std::uint64_t scope, std::uint32_t group, std::string_view hash) const;
    // Finds several, which wait for memory no longer than one: `found` gets one a key. [data]
    void find(std::span<const BlockKey> keys, std::span<std::optional<RecordId>> found) const;
    // Forgets one record; nothing when it is dead already.
    void erase(RecordId id);
    // Forgets a segment with all its records.
    void clear(std::uint32_t segment);
    void touch(RecordId id);
    void set_heat(RecordId id, std::uint8_t heat) { segments_[id.segment].entry(id.record).heat = heat; }

    std::uint64_t blocks() const noexcept { return used_; }
    std::uint64_t live_bytes() const noexcept { return live_bytes_; }

private:
    struct Slot {
        std::uint64_t hash = 0;  // with the lowest bit set; 0 = free
        RecordId id;
    };
    std::size_t probe(std::size_t at, std::uint64_t marked_hash) const;
    std::size_t slot_from(std::size_t at, std::uint64_t scope, std::uint32_t group, std::string_view hash) const;
    std::size_t slot_of(std::uint64_t scope, std::uint32_t group, std::string_view hash) const;
    std::size_t slot_of(RecordId id) const;
    void put(const Slot& slot);
    void grow();
    void remove(std::size_t at);
    void kill(RecordId id);

    std::vector<SegmentRecords> segments_;
    std::vector<Slot> slots_ = std::vector<Slot>(64);
    std::uint64_t used_ = 0, live_bytes_ = 0;
};

}  // namespace pegaflow::engine::tier
