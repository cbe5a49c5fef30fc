// SPDX-License-Identifier: Apache-2.0
// The writer's other half: beginning a segment, closing it, and giving the oldest one up without losing what is read often.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <future>

#include "base/log.hpp"
#include "engine/tier/writer.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr auto kReaderTime = std::chrono::milliseconds(5);  // between looks at a segment that is still being read
constexpr int kReaderLooks = 400;
constexpr int kTableTries = 4;  // then the segment stays without: the device may be broken just there
constexpr auto kRetrySpace = std::chrono::seconds(60);

Result<void> wait_for(DataIo& io, DataIo::Op op, DataIo::Memory memory, std::span<const DataIo::Piece> pieces) {
    auto promise = std::make_shared<std::promise<Result<void>>>();
    auto outcome = promise->get_future();
    io.submit(op, memory, pieces, [promise](Result<void> result) { promise->set_value(std::move(result)); });
    return outcome.get();
}

}  // namespace

// While the open segment fills up, so that nobody waits for the next one's header.
void Writer::prepare_ahead() {
    if (next_ || !open_) return;
    const std::uint64_t ahead = std::min(2 * options_.writing * options_.extent_bytes, superblock_.segment_bytes / 4);
    if (open_->builder.data_end() + ahead >= superblock_.segment_bytes) prepare(false);
}

// A segment that new extents may have. Without `must`, only one that is free already.
std::optional<std::uint64_t> Writer::free_slot(bool must, std::uint64_t* sequence) {
    for (int looks = 0; looks < kReaderLooks; ++looks) {
        const auto slot = p_.catalog.begin(container_, sequence);
        if (slot || !must) return slot;
        if (!retiring_) retiring_ = p_.catalog.oldest(container_);
        if (retiring_) {
            finish_retiring();
        } else {
            std::this_thread::sleep_for(kReaderTime);
        }
    }
    return std::nullopt;
}

// kNoMemory: the file system has no room for it, and the segment is set aside.
Result<void> Writer::set_space_aside(std::uint64_t slot) {
    auto reserved = p_.io.reserve(segment_at(slot), superblock_.segment_bytes);
    if (reserved) return {};
    if (reserved.error().code != Code::kNoMemory) {
        ++p_.counters.write_failures;
        std::uint64_t blocks = 0;
        p_.catalog.release(container_, slot, &blocks);
        return reserved;
    }
    if (retry_space_at_ == Clock::time_point::max())
        base::log_warning("tier", "container {}: {}; the cache stays smaller", container_, reserved.error().message);
    p_.catalog.set_aside(container_, slot);
    retry_space_at_ = Clock::now() + kRetrySpace;
    return reserved;
}

bool Writer::prepare(bool must) {
    if (Clock::now() >= retry_space_at_) {
        p_.catalog.retry_space(container_);
        retry_space_at_ = Clock::time_point::max();
    }
    std::uint64_t sequence = 0;
    while (const auto slot = free_slot(must, &sequence)) {
        const auto reserved = set_space_aside(*slot);
        if (!reserved && reserved.error().code == Code::kNoMemory) continue;  // there are only so many free segments
        if (!reserved) {
            if (must) pause(reserved.error());
            return false;
        }
        write_header(*slot, sequence);
        if (p_.catalog.free_segments(container_) == 0 && !retiring_) retire_oldest();
        return true;
    }
    if (must) pause({Code::kNoMemory, "the device has no room, and no segment of the cache can be given up", 0});
    return false;
}

// A header is on the device before anything behind it is overwritten: no scan ever sees the old header with new bytes.
void Writer::write_header(std::uint64_t slot, std::uint64_t sequence) {
    const auto block = p_.io.staging().subspan(header_staging(), kBlockBytes);
    encode(
        SegmentHeader{superblock_.container, sequence, slot, lifetime_bytes(), static_cast<std::uint64_t>(std::time(nullptr))},
        block);
    next_ = std::make_unique<Segment>(slot, ExtentBuilder(limits_, sequence, closing_digest(block)));
    auto flight = std::make_unique<Flight>();
    flight->kind = Kind::kHeader;
    flight->segment = next_.get();
    flight->other_bytes = kBlockBytes;
    const DataIo::Piece piece{header_staging(), segment_at(slot), kBlockBytes};
    launch(std::move(flight), {&piece, 1}, {});
}

// Full segments get their tables when all their extents are stored, one at a time. No flush waits for a table: without it a
// scan goes by the extents.
void Writer::write_tables() {
    if (table_busy_ || closing_.empty() || closing_.front()->extents != 0) return;
    Segment& segment = *closing_.front();
    std::vector<BlockKey> keys;
    const std::vector<Record> records = p_.catalog.live_records(container_, segment.slot, keys);
    const std::uint64_t used = segment.builder.close(records, p_.io.staging().subspan(table_staging()));
    auto flight = std::make_unique<Flight>();
    flight->kind = Kind::kTable;
    flight->segment = &segment;
    flight->other_bytes = used;
    table_busy_ = true;
    ++segment.table_tries;
    const DataIo::Piece piece{table_staging(), segment_at(segment.slot) + superblock_.segment_bytes - used, used};
    launch(std::move(flight), {&piece, 1}, {});
}

void Writer::end_segment(const Segment* segment) {
    p_.catalog.seal(container_, segment->slot);
    table_busy_ = false;
    std::erase_if(closing_, [segment](const auto& s) { return s.get() == segment; });
}

// Every segment ends with the last extent that is stored.
void Writer::cut_all_segments() {
    if (open_) closing_.push_back(std::move(open_));
    table_busy_ = false;
    for (const auto& segment : closing_) {
        segment->extents = 0;
        segment->builder.cut_back(segment->stored);
        if (!segment->builder.has_data()) {
            forget(*segment);
        } else if (segment->table_tries >= kTableTries) {
            p_.catalog.seal(container_, segment->slot);
        }
    }
    std::erase_if(closing_, [](const auto& s) { return !s->builder.has_data() || s->table_tries >= kTableTries; });
    if (next_) forget(*next_);
    next_.reset();
}

void Writer::forget(const Segment& segment) {
    std::uint64_t blocks = 0;
    p_.catalog.release(container_, segment.slot, &blocks);
}

void Writer::retire_oldest() {
    retiring_ = p_.catalog.oldest(container_);
    if (!retiring_) return;
    keep_hot(*retiring_);
    if (rewriting_ == 0) finish_retiring();
}

void Writer::keep_hot(std::uint64_t slot) {
    const auto limit = static_cast<std::uint64_t>(options_.rewrite_share * static_cast<double>(superblock_.segment_bytes));
    std::vector<Item> items;
    for (const HotRecord& hot : p_.catalog.hot_records(container_, slot, limit)) {
        BlockRef block = p_.host.resident(hot.key);
        if (!block || !block->digested.load(std::memory_order_acquire)) block = read_back(hot);
        if (!block) continue;
        // Half as hot as it was: what is not read again goes the next time.
        items.push_back({std::move(block), static_cast<std::uint8_t>(hot.heat / 2), true});
    }
    rewriting_ += items.size();
    pending_.insert(pending_.begin(), std::make_move_iterator(items.begin()), std::make_move_iterator(items.end()));
}

BlockRef Writer::read_back(const HotRecord& hot) {
    std::vector<std::uint64_t> sizes;
    for (const StoredPage& page : hot.pages) sizes.push_back(page.bytes());
    BlockRef block = p_.host.make_block(hot.key, sizes, Wait::kYes);
    if (!block) return {};
    const auto location = p_.catalog.pin(hot.key);
    if (!location) return {};
    std::vector<DataIo::Piece> pieces;
    std::uint64_t at = location->offset;
    for (const Page& page : block->pages) {
        pieces.push_back({page.offset, at, page.bytes});
        at += page.bytes;
    }
    const auto landed = wait_for(p_.io, DataIo::Op::kRead, DataIo::Memory::kPool, pieces);
    bool whole = landed.has_value();
    for (std::size_t i = 0; i < hot.pages.size() && whole; ++i) {
        Page& page = block->pages[i];
        page.content = hot.pages[i].content;
        page.digest = digest_part(p_.host.pool_base() + page.offset, page.content);
        page.has_digest = true;
        whole = page.digest == hot.pages[i].digest;
    }
    if (landed && !whole) {
        ++p_.counters.mismatches;
        ++p_.counters.quarantined;
        p_.catalog.quarantine(*location);
    }
    p_.catalog.unpin(location);
    if (!whole) return {};
    block->digested.store(true, std::memory_order_release);
    return block;
}

void Writer::finish_retiring() {
    const std::uint64_t slot = *std::exchange(retiring_, std::nullopt);
    std::vector<BlockKey> keys;
    static_cast<void>(p_.catalog.live_records(container_, slot, keys));
    for (const BlockKey& key : keys) {
        // What the pool still has may come again when it is used again.
        if (const BlockRef block = p_.host.resident(key)) block->offered.store(false, std::memory_order_relaxed);
    }
    std::uint64_t blocks = 0;
    const bool free = p_.catalog.release(container_, slot, &blocks);
    ++p_.counters.evicted_segments;
    p_.counters.evicted_blocks += blocks;
    if (!free || !options_.discard) return;
    if (p_.io.discard(segment_at(slot), superblock_.segment_bytes)) p_.counters.discarded_bytes += superblock_.segment_bytes;
}

}  // namespace pegaflow::engine::tier
