// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/writer.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "base/thread.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint64_t kEnoughBytes = std::uint64_t{1} << 20;  // an extent that is worth writing at once

// The pages of these items as ranges of the pool and the container; neighbours become one.
std::vector<DataIo::Piece> pieces_of(const std::vector<const Block*>& blocks, std::uint64_t file_at) {
    std::vector<DataIo::Piece> out;
    for (const Block* block : blocks) {
        for (const Page& page : block->pages) {
            if (!out.empty() && out.back().memory_offset + out.back().length == page.offset) {
                out.back().length += page.bytes;
            } else {
                out.push_back({page.offset, file_at, page.bytes});
            }
            file_at += page.bytes;
        }
    }
    return out;
}

}  // namespace

std::uint64_t Writer::staging_bytes(const WriterOptions& options) {
    return options.window * kDescriptorBytes + kTableBytes + 2 * kBlockBytes;
}

Writer::Writer(Parts parts, const Superblock& superblock, std::uint32_t container, const WriterOptions& options,
               std::span<const FoundSegment> unsealed, std::uint64_t lifetime_bytes)
    : p_(std::move(parts)),
      superblock_(superblock),
      container_(container),
      options_(options),
      limits_{superblock.segment_bytes, options.extent_bytes, kDescriptorBytes, kTableBytes},
      next_pause_(options.first_pause),
      lifetime_bytes_(lifetime_bytes) {
    for (std::uint32_t i = 0; i < options.window; ++i) free_staging_.push_back(i);
    for (const FoundSegment& found : unsealed) {
        auto segment = std::make_unique<Segment>(found.slot, ExtentBuilder(limits_, found.header.sequence, found.chain));
        segment->builder.resume(found.records, found.data_end, found.extents);
        segment->stored = segment->builder.mark();
        segment->begun = true;
        const bool newest = found.header.sequence == p_.catalog.last_sequence(container_);
        if (newest && found.dropped_records == 0 && !found.damaged) {
            open_ = std::move(segment);
        } else {
            closing_.push_back(std::move(segment));
        }
    }
    auto thread = base::start_thread([this] { run(); });
    if (thread) {
        thread_ = std::move(*thread);
        return;
    }
    base::log_error("tier", "nothing is written to container {}: {}", container_, thread.error().message);
    problem_ = thread.error().message;
    paused_until_ = Clock::time_point::max();
    ended_ = true;
}

Writer::~Writer() {
    request_stop(Clock::now());
    if (thread_.joinable()) thread_.join();
}

void Writer::request_stop(Clock::time_point deadline) {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    deadline_ = deadline;
    changed_.notify_all();
}

std::string Writer::problem() const {
    const std::lock_guard lock(mutex_);
    return problem_;
}

bool Writer::paused() const {
    const std::lock_guard lock(mutex_);
    return late_ || giving_up_ || paused_until_ > Clock::now();
}

void Writer::set_late(bool late) {
    const std::lock_guard lock(mutex_);
    late_ = late;
    ++changes_;
    changed_.notify_all();
}

bool Writer::late() const {
    const std::lock_guard lock(mutex_);
    return late_;
}

std::uint64_t Writer::largest_block() const noexcept {
    return limits_.segment_bytes - std::min(limits_.segment_bytes, 8 * kBlockBytes + limits_.segment_bytes / 64);
}

Record Writer::record_of(const Block& block) const {
    const ScopeTable::Scope& scope = p_.scopes.scope(block.key.scope);
    Record record{scope.name_space, scope.fingerprint, block.key.group, block.key.hash(), 0, {}};
    for (const Page& page : block.pages) record.pages.push_back({static_cast<std::uint32_t>(page.content), page.digest});
    return record;
}

void Writer::drop(std::vector<Item>& items, Count& counter, bool written) {
    std::size_t taken = 0;
    std::uint64_t bytes = 0;
    for (Item& item : items) {
        if (item.rewritten) {
            --rewriting_;
        } else {
            ++taken;
            bytes += item.block->footprint();
            item.block->offered.store(false, std::memory_order_relaxed);
        }
    }
    counter += taken;
    items.clear();
    if (!written && p_.unwritten) p_.unwritten(bytes);
    p_.queue.done(taken);
}

void Writer::drop_pending(Count& counter) {
    std::vector<Item> lost(std::make_move_iterator(pending_.begin()), std::make_move_iterator(pending_.end()));
    pending_.clear();
    drop(lost, counter);
}

// While writing pauses it waits. False when it is time to end.
bool Writer::rest() {
    if (paused_until_ > Clock::now()) drop_pending(p_.counters.failed_blocks);  // nobody waits for a device that fails
    std::unique_lock lock(mutex_);
    if (paused_until_ > Clock::now()) changed_.wait_until(lock, paused_until_, [this] { return stop_; });
    return !stop_ || (Clock::now() < deadline_ && paused_until_ <= Clock::now());
}

void Writer::run() {
    while (rest()) {
        const std::uint64_t seen = changes();
        if (const auto settled = settle(); !settled) {
            give_up(settled.error());
            continue;
        }
        if (late()) {
            drop_pending(p_.counters.failed_blocks);
            wait_for_change(seen);
            continue;
        }
        gather();
        if (pending_.empty() && flights_.empty() && closing_.empty() && p_.queue.stopped() && p_.queue.bytes() == 0) break;
        if (!pending_.empty() && advance()) continue;
        if (!flights_.empty()) wait_for_change(seen);
    }
    while (!flights_.empty()) {
        const std::uint64_t seen = changes();
        if (const auto settled = settle(); !settled) give_up(settled.error());
        if (!flights_.empty()) wait_for_change(seen);
    }
    drop_pending(p_.counters.shed_blocks);
    ended_.store(true, std::memory_order_release);
}

void Writer::gather() {
    if (pending_.size() > rewriting_) return;  // there is something new already
    const bool patient = flights_.empty() && pending_.empty();
    if (p_.refill) p_.refill();
    for (BlockRef& block : p_.queue.take(options_.extent_bytes, kEnoughBytes, options_.linger, patient))
        pending_.push_back({std::move(block), 0, false});
}

// The next step with what is pending. False when something under way must end first.
bool Writer::advance() {
    if (!open_) {
        if (!next_ && !prepare(closing_.empty())) {
            if (!closing_.empty()) return false;  // what is full now can go when it has its table
            drop_pending(p_.counters.no_space_blocks);
            return true;
        }
        if (!next_->begun) return false;
        open_ = std::move(next_);
    }
    if (free_staging_.empty() || being_written() >= most_written()) return false;
    return start_extent();
}

bool Writer::start_extent() {
    ExtentBuilder& builder = open_->builder;
    auto flight = std::make_unique<Flight>();
    while (!pending_.empty()) {
        Record record = record_of(*pending_.front().block);
        if (!builder.fits(record)) break;
        builder.add(std::move(record));
        flight->items.push_back(std::move(pending_.front()));
        pending_.pop_front();
    }
    if (!flight->items.empty()) {
        flight->staging = free_staging_.back();
        free_staging_.pop_back();
        const auto descriptor = p_.io.staging().subspan(flight->staging * kDescriptorBytes, kDescriptorBytes);
        submit(builder.finish(descriptor), std::move(flight));
        prepare_ahead();
        return true;
    }
    if (!builder.has_data()) {  // not even into an empty segment
        std::vector<Item> lost;
        lost.push_back(std::move(pending_.front()));
        pending_.pop_front();
        drop(lost, p_.counters.too_large_blocks);
        return true;
    }
    closing_.push_back(std::move(open_));
    return true;
}

void Writer::submit(const ExtentBuilder::Extent& extent, std::unique_ptr<Flight> flight) {
    const std::uint64_t at = segment_at(open_->slot) + extent.at;
    flight->segment = open_.get();
    flight->end = open_->builder.mark();
    flight->payload_bytes = extent.payload_bytes;
    flight->other_bytes = extent.descriptor_bytes;
    std::vector<const Block*> blocks;
    blocks.reserve(flight->items.size());
    flight->records.reserve(flight->items.size());
    for (std::size_t i = 0; i < flight->items.size(); ++i) {
        const Item& item = flight->items[i];
        blocks.push_back(item.block.get());
        flight->records.push_back({item.block->key, extent.records[i].offset, extent.records[i].pages, item.heat});
    }
    ++open_->extents;
    const DataIo::Piece descriptor{flight->staging * kDescriptorBytes, at, extent.descriptor_bytes};
    launch(std::move(flight), {&descriptor, 1}, pieces_of(blocks, at + extent.descriptor_bytes));
}

void Writer::pause(const Error& error) {
    base::log_error("tier", "container {}: writing pauses for {} s: {}", container_,
                    std::chrono::duration<double>(next_pause_).count(), error.message);
    const std::lock_guard lock(mutex_);
    problem_ = error.message;
    paused_until_ = Clock::now() + next_pause_;
    next_pause_ = std::min(next_pause_ * 2, options_.longest_pause);
}

}  // namespace pegaflow::engine::tier
