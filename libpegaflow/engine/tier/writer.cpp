// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/writer.hpp"

#include <algorithm>

#include "base/log.hpp"

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
    return options.window * kDescriptorBytes + kTableBytes + kBlockBytes;
}

Writer::Writer(Parts parts, const Superblock& superblock, std::uint32_t container, const WriterOptions& options,
               const FoundSegment* open, std::uint64_t lifetime_bytes)
    : p_(parts),
      superblock_(superblock),
      container_(container),
      options_(options),
      limits_{superblock.segment_bytes, options.extent_bytes, kDescriptorBytes, kTableBytes},
      next_pause_(options.first_pause),
      lifetime_bytes_(lifetime_bytes) {
    for (std::uint32_t i = 0; i < options.window; ++i) free_staging_.push_back(i);
    if (open != nullptr) {
        slot_ = open->slot;
        open_.emplace(limits_, open->header.sequence, open->chain);
        open_->resume(open->records, open->data_end, open->extents);
    }
    thread_ = std::thread([this] { run(); });
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

std::uint64_t Writer::largest_block() const noexcept {
    return limits_.segment_bytes - std::min(limits_.segment_bytes, 8 * kBlockBytes + limits_.segment_bytes / 64);
}

Record Writer::record_of(const Block& block) const {
    const ScopeTable::Scope& scope = p_.scopes.scope(block.key.scope);
    Record record{scope.name_space, scope.fingerprint, block.key.group, block.key.hash(), 0, {}};
    for (std::size_t i = 0; i < block.pages.size(); ++i) {
        record.pages.push_back({static_cast<std::uint32_t>(block.pages[i].bytes / kBlockBytes), block.digests[i]});
    }
    return record;
}

void Writer::drop(std::vector<Item>& items, Count& counter) {
    std::size_t taken = 0;
    for (Item& item : items) {
        if (item.rewritten) {
            --rewriting_;
        } else {
            ++taken;
            item.block->offered.store(false, std::memory_order_relaxed);
        }
    }
    counter += taken;
    items.clear();
    p_.queue.done(taken);
}

void Writer::drop_pending(Count& counter) {
    std::vector<Item> lost(std::make_move_iterator(pending_.begin()), std::make_move_iterator(pending_.end()));
    pending_.clear();
    drop(lost, counter);
}

void Writer::run() {
    for (;;) {
        if (paused_until_ > Clock::now()) drop_pending(p_.counters.failed_blocks);  // nobody waits for a device that fails
        {
            std::unique_lock lock(mutex_);
            if (paused_until_ > Clock::now()) changed_.wait_until(lock, paused_until_, [this] { return stop_; });
            if (stop_ && (Clock::now() >= deadline_ || paused_until_ > Clock::now())) break;
        }
        gather();
        if (pending_.empty() && flights_.empty() && p_.queue.stopped() && p_.queue.bytes() == 0) break;
        if (!pending_.empty() && !free_staging_.empty() && start_extent()) continue;
        if (!flights_.empty()) finish_flights();
    }
    while (!flights_.empty()) finish_flights();
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

bool Writer::start_extent() {
    if (!open_ && !begin_segment()) {
        drop_pending(p_.counters.no_space_blocks);
        return true;
    }
    auto flight = std::make_unique<Flight>();
    while (!pending_.empty()) {
        Record record = record_of(*pending_.front().block);
        if (!open_->fits(record)) break;
        open_->add(std::move(record));
        flight->items.push_back(std::move(pending_.front()));
        pending_.pop_front();
    }
    if (!flight->items.empty()) {
        flight->staging = free_staging_.back();
        free_staging_.pop_back();
        const auto descriptor = p_.io.staging().subspan(flight->staging * kDescriptorBytes, kDescriptorBytes);
        submit(open_->finish(descriptor), std::move(flight));
        return true;
    }
    if (!open_->has_data()) {  // not even into an empty segment
        std::vector<Item> lost;
        lost.push_back(std::move(pending_.front()));
        pending_.pop_front();
        drop(lost, p_.counters.too_large_blocks);
        return true;
    }
    while (!flights_.empty()) finish_flights();
    if (open_) seal_segment();
    return true;
}

void Writer::submit(const ExtentBuilder::Extent& extent, std::unique_ptr<Flight> flight) {
    const std::uint64_t at = segment_at(slot_) + extent.at;
    flight->slot = slot_;
    flight->payload_bytes = extent.payload_bytes;
    flight->descriptor_bytes = extent.descriptor_bytes;
    std::vector<const Block*> blocks;
    for (std::size_t i = 0; i < flight->items.size(); ++i) {
        const Item& item = flight->items[i];
        blocks.push_back(item.block.get());
        flight->records.push_back({item.block->key, extent.records[i].offset, extent.records[i].pages, item.heat});
    }
    flight->open_batches = 2;
    Flight* raw = flight.get();
    flights_.push_back(std::move(flight));
    const auto ended = [this, raw](Result<void> result) {
        const std::lock_guard lock(mutex_);
        if (!result) raw->result = std::move(result);
        --raw->open_batches;
        changed_.notify_all();
    };
    const DataIo::Piece descriptor{raw->staging * kDescriptorBytes, at, extent.descriptor_bytes};
    p_.io.submit(DataIo::Op::kWrite, DataIo::Memory::kStaging, {&descriptor, 1}, ended);
    p_.io.submit(DataIo::Op::kWrite, DataIo::Memory::kPool, pieces_of(blocks, at + extent.descriptor_bytes), ended);
}

// The leading extents that are written: they can be stored when the device has them. The first one that failed ends the
// segment.
Result<void> Writer::take_ended(std::vector<std::unique_ptr<Flight>>& out) {
    std::unique_lock lock(mutex_);
    const auto over = [](const auto& flight) { return flight->open_batches == 0; };
    changed_.wait(lock, [&] { return over(flights_.front()); });
    while (!flights_.empty() && over(flights_.front()) && flights_.front()->result) {
        out.push_back(std::move(flights_.front()));
        flights_.pop_front();
    }
    if (flights_.empty() || !over(flights_.front())) return {};
    ++p_.counters.write_failures;
    return flights_.front()->result;
}

void Writer::finish_flights() {
    std::vector<std::unique_ptr<Flight>> ended, lost;
    Result<void> outcome = take_ended(ended);
    if (!ended.empty()) {
        if (auto synced = p_.io.sync(); !synced) {
            ++p_.counters.sync_failures;
            outcome = std::move(synced);
            lost = std::move(ended);
        }
        for (const auto& flight : ended) {
            store(*flight);
            free_staging_.push_back(flight->staging);
        }
    }
    if (outcome) return;
    {
        // The pages of the others are still being read.
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] {
            return std::all_of(flights_.begin(), flights_.end(), [](const auto& f) { return f->open_batches == 0; });
        });
    }
    give_up_segment(outcome.error());
    lost.insert(lost.end(), std::make_move_iterator(flights_.begin()), std::make_move_iterator(flights_.end()));
    flights_.clear();
    for (const auto& flight : lost) {
        drop(flight->items, p_.counters.failed_blocks);
        free_staging_.push_back(flight->staging);
    }
}

void Writer::store(Flight& flight) {
    p_.catalog.commit(container_, flight.slot, flight.records);
    std::size_t taken = 0;
    std::uint64_t rewritten_bytes = 0;
    for (const Item& item : flight.items) {
        if (item.rewritten) {
            --rewriting_;
            rewritten_bytes += item.block->footprint();
        } else {
            ++taken;
        }
    }
    Counters& c = p_.counters;
    c.stored_blocks += taken;
    c.rewritten_blocks += flight.items.size() - taken;
    c.rewritten_bytes += rewritten_bytes;
    c.block_bytes += flight.payload_bytes - rewritten_bytes;
    c.table_bytes += flight.descriptor_bytes;
    lifetime_bytes_ += flight.payload_bytes + flight.descriptor_bytes;
    flight.items.clear();
    next_pause_ = options_.first_pause;
    {
        const std::lock_guard lock(mutex_);
        if (!problem_.empty()) base::log_info("tier", "container {}: writing works again", container_);
        problem_.clear();
    }
    p_.queue.done(taken);
    if (retiring_ && rewriting_ == 0) finish_retiring();
}

void Writer::give_up_segment(const Error& error) {
    if (open_) p_.catalog.seal(container_, slot_);
    open_.reset();
    pause(error);
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
