// SPDX-License-Identifier: Apache-2.0
// record_index.hpp - which blocks are on the devices, and where: the records of each segment, and one table over all keys.
//
// Pure and not synchronised; catalog.hpp guards it. A block with a hash of at most 32 bytes and one page costs
// 96 to 128 bytes.
#pragma once

#include <array>
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
    // One cache line: most blocks have a hash of at most 32 bytes and one page. What others have more lies elsewhere.
    struct alignas(64) Entry {
        std::uint64_t scope = 0;
        std::uint64_t digest = 0;     // of the only page
        std::array<char, 32> hash{};  // of a longer one: the number of the first of its bytes among those of all
        std::uint32_t group = 0;
        std::uint32_t offset_blocks = 0;
        std::uint32_t content = 0;  // of the only page; of several: the number of the first among those of all
        std::uint16_t pages = 0;
        std::uint8_t hash_bytes : 7 = 0;
        bool live : 1 = true;
        std::uint8_t heat = 0;  // reads since it was written; saturates
    };
    static_assert(sizeof(Entry) == 64 && kMaxHashBytes < 128);

    std::uint32_t add(const BlockKey& key, std::uint64_t offset, std::span<const StoredPage> pages);
    void reserve(std::size_t records) { entries_.reserve(records); }
    std::size_t size() const noexcept { return entries_.size(); }
    Entry& entry(std::uint32_t record) { return entries_[record]; }
    const Entry& entry(std::uint32_t record) const { return entries_[record]; }
    std::string_view hash(std::uint32_t record) const noexcept;
    BlockKey key(std::uint32_t record) const;
    StoredPage page(std::uint32_t record, std::size_t number) const noexcept;
    std::vector<StoredPage> pages(std::uint32_t record) const;
    std::uint64_t bytes(std::uint32_t record) const;
    std::uint64_t live_bytes = 0, live_blocks = 0;

private:
    std::vector<Entry> entries_;
    std::vector<StoredPage> pages_;  // of records that have several
    std::string hashes_;             // the long ones
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
