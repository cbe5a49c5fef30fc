// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/record_index.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace pegaflow::engine::tier {
namespace {

constexpr std::size_t kNotThere = SIZE_MAX;
constexpr std::uint8_t kMaxHeat = 7;
constexpr std::size_t kFoundTogether = 16;

// The mark takes the lowest bit, so a slot's home follows from the others.
constexpr std::uint64_t marked(std::uint64_t hash) noexcept { return hash | 1; }
constexpr std::size_t home_of(std::uint64_t hash, std::size_t mask) noexcept { return (hash >> 1) & mask; }

}  // namespace

std::uint32_t SegmentRecords::add(const BlockKey& key, std::uint64_t offset, std::span<const StoredPage> pages) {
    Entry entry;
    entry.scope = key.scope;
    entry.group = key.group;
    entry.hash_bytes = static_cast<std::uint8_t>(key.length & 127);
    entry.offset_blocks = static_cast<std::uint32_t>(offset / kBlockBytes);
    entry.pages = static_cast<std::uint16_t>(pages.size());
    if (key.length <= entry.hash.size()) {
        std::memcpy(entry.hash.data(), key.bytes.data(), key.length);
    } else {
        const auto at = static_cast<std::uint32_t>(hashes_.size());
        std::memcpy(entry.hash.data(), &at, sizeof at);
        hashes_.append(key.hash());
    }
    if (pages.size() == 1) {
        entry.content = pages[0].content;
        entry.digest = pages[0].digest;
    } else {
        entry.content = static_cast<std::uint32_t>(pages_.size());
        pages_.insert(pages_.end(), pages.begin(), pages.end());
    }
    entries_.push_back(entry);
    const auto number = static_cast<std::uint32_t>(entries_.size() - 1);
    live_bytes += bytes(number);
    ++live_blocks;
    return number;
}

std::string_view SegmentRecords::hash(std::uint32_t record) const noexcept {
    const Entry& e = entries_[record];
    if (e.hash_bytes <= e.hash.size()) return {e.hash.data(), e.hash_bytes};
    std::uint32_t at = 0;
    std::memcpy(&at, e.hash.data(), sizeof at);
    return {hashes_.data() + at, e.hash_bytes};
}

BlockKey SegmentRecords::key(std::uint32_t record) const {
    return BlockKey(entries_[record].scope, entries_[record].group, hash(record));
}

StoredPage SegmentRecords::page(std::uint32_t record, std::size_t number) const noexcept {
    const Entry& e = entries_[record];
    return e.pages == 1 ? StoredPage{e.content, e.digest} : pages_[e.content + number];
}

std::vector<StoredPage> SegmentRecords::pages(std::uint32_t record) const {
    std::vector<StoredPage> out(entries_[record].pages);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = page(record, i);
    return out;
}

std::uint64_t SegmentRecords::bytes(std::uint32_t record) const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < entries_[record].pages; ++i) sum += page(record, i).bytes();
    return sum;
}

// The first slot from `at` on, around the end, with this hash or with nothing.
std::size_t RecordIndex::probe(std::size_t at, std::uint64_t marked_hash) const {
    const std::size_t mask = slots_.size() - 1;
    for (at &= mask; slots_[at].hash != 0 && slots_[at].hash != marked_hash;) at = (at + 1) & mask;
    return at;
}

// `at` is what `probe` found for the hash of this key.
std::size_t RecordIndex::slot_from(std::size_t at, std::uint64_t scope, std::uint32_t group, std::string_view hash) const {
    for (; slots_[at].hash != 0; at = probe(at + 1, slots_[at].hash)) {
        const SegmentRecords& records = segments_[slots_[at].id.segment];
        const SegmentRecords::Entry& entry = records.entry(slots_[at].id.record);
        if (entry.scope == scope && entry.group == group && same_hash(records.hash(slots_[at].id.record), hash)) return at;
    }
    return kNotThere;
}

std::size_t RecordIndex::slot_of(std::uint64_t scope, std::uint32_t group, std::string_view hash) const {
    const std::uint64_t wanted = marked(table_hash(scope, group, hash));
    return slot_from(probe(home_of(wanted, slots_.size() - 1), wanted), scope, group, hash);
}

void RecordIndex::find(std::span<const BlockKey> keys, std::span<std::optional<RecordId>> found) const {
    std::array<std::uint64_t, kFoundTogether> wanted;
    std::array<std::size_t, kFoundTogether> at;
    for (std::size_t first = 0; first < keys.size(); first += kFoundTogether) {
        const std::size_t count = std::min(keys.size() - first, kFoundTogether);
        const auto some = keys.subspan(first, count);
        for (std::size_t i = 0; i < count; ++i) {
            wanted[i] = marked(table_hash(some[i].scope, some[i].group, some[i].hash()));
            at[i] = home_of(wanted[i], slots_.size() - 1);
            __builtin_prefetch(&slots_[at[i]]);
        }
        for (std::size_t i = 0; i < count; ++i) {
            at[i] = probe(at[i], wanted[i]);
            const Slot& slot = slots_[at[i]];
            if (slot.hash != 0) __builtin_prefetch(&segments_[slot.id.segment].entry(slot.id.record));
        }
        for (std::size_t i = 0; i < count; ++i) {
            at[i] = slot_from(at[i], some[i].scope, some[i].group, some[i].hash());
            found[first + i] = at[i] == kNotThere ? std::nullopt : std::optional(slots_[at[i]].id);
        }
    }
}

std::size_t RecordIndex::slot_of(RecordId id) const {
    const SegmentRecords& records = segments_[id.segment];
    const SegmentRecords::Entry& entry = records.entry(id.record);
    const std::size_t at = slot_of(entry.scope, entry.group, records.hash(id.record));
    return at != kNotThere && slots_[at].id == id ? at : kNotThere;
}

void RecordIndex::put(const Slot& slot) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = home_of(slot.hash, mask);
    while (slots_[at].hash != 0) at = (at + 1) & mask;
    slots_[at] = slot;
}

void RecordIndex::grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
        if (slot.hash != 0) put(slot);
    }
}

void RecordIndex::remove(std::size_t at) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t hole = at;
    for (std::size_t next = (at + 1) & mask; slots_[next].hash != 0; next = (next + 1) & mask) {
        const std::size_t home = home_of(slots_[next].hash, mask);
        if (((next - home) & mask) >= ((next - hole) & mask)) {
            slots_[hole] = slots_[next];
            hole = next;
        }
    }
    slots_[hole] = {};
    --used_;
}

void RecordIndex::kill(RecordId id) {
    SegmentRecords& records = segments_[id.segment];
    SegmentRecords::Entry& entry = records.entry(id.record);
    if (!entry.live) return;
    entry.live = false;
    const std::uint64_t bytes = records.bytes(id.record);
    records.live_bytes -= bytes;
    --records.live_blocks;
    live_bytes_ -= bytes;
}

RecordId RecordIndex::insert(const BlockKey& key, std::uint32_t segment, std::uint64_t offset,
                             std::span<const StoredPage> pages) {
    const std::size_t at = slot_of(key.scope, key.group, key.hash());
    const RecordId id{segment, segments_[segment].add(key, offset, pages)};
    live_bytes_ += segments_[segment].bytes(id.record);
    if (at != kNotThere) {
        kill(slots_[at].id);
        slots_[at].id = id;
        return id;
    }
    if ((used_ + 1) * 2 > slots_.size()) grow();
    put({marked(table_hash(key.scope, key.group, key.hash())), id});
    ++used_;
    return id;
}

std::optional<RecordId> RecordIndex::find(std::uint64_t scope, std::uint32_t group, std::string_view hash) const {
    const std::size_t at = slot_of(scope, group, hash);
    if (at == kNotThere) return std::nullopt;
    return slots_[at].id;
}

void RecordIndex::erase(RecordId id) {
    if (id.record >= segments_[id.segment].size() || !segments_[id.segment].entry(id.record).live) return;
    if (const std::size_t at = slot_of(id); at != kNotThere) remove(at);
    kill(id);
}

void RecordIndex::clear(std::uint32_t segment) {
    for (std::uint32_t i = 0; i < segments_[segment].size(); ++i) erase({segment, i});
    segments_[segment] = {};
}

void RecordIndex::touch(RecordId id) {
    std::uint8_t& heat = segments_[id.segment].entry(id.record).heat;
    if (heat < kMaxHeat) ++heat;
}

}  // namespace pegaflow::engine::tier
