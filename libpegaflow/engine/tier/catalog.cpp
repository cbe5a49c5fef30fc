// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/catalog.hpp"

#include <algorithm>
#include <mutex>

namespace pegaflow::engine::tier {
namespace {

// More than a container begins segments before the oldest of them is overwritten.
constexpr std::uint64_t kSkippedSequences = std::uint64_t{1} << 32;

}  // namespace

const Catalog::Store& Catalog::store_of(std::uint32_t segment) const {
    const auto it = std::find_if(stores_.rbegin(), stores_.rend(), [segment](const Store& s) { return s.first <= segment; });
    return *it;
}

std::uint32_t Catalog::add_container(const Superblock& superblock) {
    const std::unique_lock lock(mutex_);
    const std::uint32_t first =
        stores_.empty() ? 0 : stores_.back().first + static_cast<std::uint32_t>(stores_.back().segments.count());
    stores_.push_back({superblock, SegmentMap(superblock.segment_count), first, 0, true});
    index_.resize(first + static_cast<std::uint32_t>(superblock.segment_count));
    return static_cast<std::uint32_t>(stores_.size() - 1);
}

void Catalog::add_found(std::uint32_t container, const FoundSegment& found) {
    using Kind = FoundSegment::Kind;
    const std::unique_lock lock(mutex_);
    Store& store = stores_[container];
    const std::uint64_t sequence = found.header.sequence;
    store.last_sequence = std::max(store.last_sequence, sequence);
    if (found.kind == Kind::kEmpty) return;
    store.segments.restore(found.slot, sequence, found.kind == Kind::kForeign ? SegmentState::kForeign : SegmentState::kSealed);
    const std::uint32_t segment = store.first + static_cast<std::uint32_t>(found.slot);
    index_.reserve(segment, found.records.size());
    const Record* last = nullptr;
    std::uint64_t scope = 0;
    for (const Record& r : found.records) {
        // Most records have the scope of the one before; their texts are the same bytes then.
        if (last == nullptr || last->name_space.data() != r.name_space.data() ||
            last->fingerprint.data() != r.fingerprint.data())
            scope = scopes_.number_of(r.name_space, r.fingerprint);
        last = &r;
        const BlockKey key(scope, r.group, r.hash);
        const auto there = index_.find(key.scope, key.group, key.hash());
        if (there && &store_of(there->segment) == &store && store.segments.sequence(there->segment - store.first) > sequence)
            continue;
        index_.insert(key, segment, r.offset, r.pages);
    }
}

void Catalog::resume(std::uint32_t container, std::uint64_t slot) {
    const std::unique_lock lock(mutex_);
    stores_[container].segments.reopen(slot);
}

std::uint64_t Catalog::last_sequence(std::uint32_t container) const {
    const std::shared_lock lock(mutex_);
    return stores_[container].last_sequence;
}

void Catalog::skip_sequences(std::uint32_t container) {
    const std::unique_lock lock(mutex_);
    stores_[container].last_sequence += kSkippedSequences;
}

bool Catalog::contains(const BlockKey& key) const {
    const std::shared_lock lock(mutex_);
    const auto id = index_.find(key.scope, key.group, key.hash());
    return id && readable(*id);
}

std::vector<std::optional<Location>> Catalog::pin(std::span<const BlockKey> keys) {
    std::vector<std::optional<Location>> out(keys.size());
    std::vector<std::optional<RecordId>> found(keys.size());
    const std::unique_lock lock(mutex_);
    index_.find(keys, found);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        if (found[i]) pin_one(*found[i], out[i]);
    }
    return out;
}

void Catalog::pin_one(RecordId id, std::optional<Location>& out) {
    auto& store = const_cast<Store&>(store_of(id.segment));
    if (!store.readable) return;
    const SegmentRecords& records = index_.segment(id.segment);
    Location& place = out.emplace();
    place.id = id;
    place.container = static_cast<std::uint32_t>(&store - stores_.data());
    place.slot = id.segment - store.first;
    place.offset =
        store.superblock.segment_at(place.slot) + std::uint64_t{records.entry(id.record).offset_blocks} * kBlockBytes;
    place.pages.resize(records.entry(id.record).pages);
    for (std::size_t i = 0; i < place.pages.size(); ++i) place.pages[i] = records.page(id.record, i);
    store.segments.pin(place.slot);
    index_.touch(id);
}

void Catalog::unpin(std::span<const std::optional<Location>> places) {
    const std::unique_lock lock(mutex_);
    for (const auto& place : places) {
        if (place) stores_[place->container].segments.unpin(place->slot);
    }
}

void Catalog::quarantine(const Location& location) {
    const std::unique_lock lock(mutex_);
    // A segment that was given up since has no records, and cannot begin anew while it is pinned.
    index_.erase(location.id);
}

void Catalog::set_readable(std::uint32_t container, bool readable) {
    const std::unique_lock lock(mutex_);
    stores_[container].readable = readable;
}

std::optional<std::uint64_t> Catalog::begin(std::uint32_t container, std::uint64_t* sequence) {
    const std::unique_lock lock(mutex_);
    Store& store = stores_[container];
    const auto slot = store.segments.begin(store.last_sequence + 1);
    if (slot) *sequence = ++store.last_sequence;
    return slot;
}

void Catalog::commit(std::uint32_t container, std::uint64_t slot, std::span<const NewRecord> records) {
    const std::unique_lock lock(mutex_);
    const std::uint32_t segment = stores_[container].first + static_cast<std::uint32_t>(slot);
    for (const NewRecord& record : records) {
        const RecordId id = index_.insert(record.key, segment, record.offset, record.pages);
        index_.set_heat(id, record.heat);
    }
}

void Catalog::seal(std::uint32_t container, std::uint64_t slot) {
    const std::unique_lock lock(mutex_);
    stores_[container].segments.seal(slot);
}

void Catalog::set_aside(std::uint32_t container, std::uint64_t slot) {
    const std::unique_lock lock(mutex_);
    stores_[container].segments.set_aside(slot);
}

void Catalog::retry_space(std::uint32_t container) {
    const std::unique_lock lock(mutex_);
    stores_[container].segments.retry_space();
}

std::uint64_t Catalog::free_segments(std::uint32_t container) const {
    const std::shared_lock lock(mutex_);
    return stores_[container].segments.free();
}

std::optional<std::uint64_t> Catalog::oldest(std::uint32_t container) const {
    const std::shared_lock lock(mutex_);
    return stores_[container].segments.oldest();
}

std::vector<Record> Catalog::live_records(std::uint32_t container, std::uint64_t slot, std::vector<BlockKey>& keep) const {
    const std::shared_lock lock(mutex_);
    const SegmentRecords& records = index_.segment(stores_[container].first + static_cast<std::uint32_t>(slot));
    std::vector<Record> out;
    keep.clear();
    keep.reserve(records.size());
    for (std::uint32_t i = 0; i < records.size(); ++i) {
        const SegmentRecords::Entry& entry = records.entry(i);
        if (!entry.live) continue;
        keep.push_back(records.key(i));
        const ScopeTable::Scope& scope = scopes_.scope(entry.scope);
        out.push_back({scope.name_space, scope.fingerprint, entry.group, keep.back().hash(),
                       std::uint64_t{entry.offset_blocks} * kBlockBytes, records.pages(i)});
    }
    return out;
}

std::vector<HotRecord> Catalog::hot_records(std::uint32_t container, std::uint64_t slot, std::uint64_t limit) const {
    const std::shared_lock lock(mutex_);
    const SegmentRecords& records = index_.segment(stores_[container].first + static_cast<std::uint32_t>(slot));
    std::vector<std::uint32_t> hot;
    for (std::uint32_t i = 0; i < records.size(); ++i) {
        if (records.entry(i).live && records.entry(i).heat != 0) hot.push_back(i);
    }
    std::stable_sort(hot.begin(), hot.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return records.entry(a).heat > records.entry(b).heat; });
    std::vector<HotRecord> out;
    std::uint64_t bytes = 0;
    for (const std::uint32_t i : hot) {
        if (bytes + records.bytes(i) > limit) continue;
        bytes += records.bytes(i);
        out.push_back({records.key(i), records.pages(i), records.entry(i).heat});
    }
    return out;
}

bool Catalog::release(std::uint32_t container, std::uint64_t slot, std::uint64_t* blocks) {
    const std::unique_lock lock(mutex_);
    const std::uint32_t segment = stores_[container].first + static_cast<std::uint32_t>(slot);
    *blocks = index_.segment(segment).live_blocks;
    index_.clear(segment);
    return stores_[container].segments.release(slot);
}

Usage Catalog::usage(std::uint32_t container) const {
    const std::shared_lock lock(mutex_);
    const Store& store = stores_[container];
    Usage out;
    out.segments = store.segments.count();
    out.free_segments = store.segments.free();
    out.foreign_segments = store.segments.in_state(SegmentState::kForeign);
    out.no_space_segments = store.segments.in_state(SegmentState::kNoSpace);
    out.capacity_bytes = out.segments * store.superblock.segment_bytes;
    out.used_bytes = (out.segments - out.free_segments - out.no_space_segments) * store.superblock.segment_bytes;
    for (std::uint32_t i = 0; i < out.segments; ++i) {
        out.live_bytes += index_.segment(store.first + i).live_bytes;
        out.blocks += index_.segment(store.first + i).live_blocks;
    }
    return out;
}

std::uint64_t Catalog::blocks() const {
    const std::shared_lock lock(mutex_);
    return index_.blocks();
}

std::uint64_t Catalog::live_bytes() const {
    const std::shared_lock lock(mutex_);
    return index_.live_bytes();
}

}  // namespace pegaflow::engine::tier
