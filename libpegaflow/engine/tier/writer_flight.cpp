// SPDX-License-Identifier: Apache-2.0
// What the writer has under way: extents, headers and tables on their way to the device, and the flush that makes them last.
#include <algorithm>
#include <future>
#include <utility>

#include "base/log.hpp"
#include "engine/tier/writer.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr double kSmoothing = 8;

Result<void> flush_now(DataIo& io) {
    auto promise = std::make_shared<std::promise<Result<void>>>();  // shared with the callback
    auto outcome = promise->get_future();
    io.flush([promise](Result<void> result) { promise->set_value(std::move(result)); });
    return outcome.get();
}

}  // namespace

void Writer::launch(std::unique_ptr<Flight> flight, std::span<const DataIo::Piece> staged,
                    std::span<const DataIo::Piece> pages) {
    Flight* const raw = flight.get();
    raw->open_batches = pages.empty() ? 1 : 2;
    raw->begun = Clock::now();
    flights_.push_back(std::move(flight));
    const auto ended = [this, raw](Result<void> result) {
        const std::lock_guard lock(mutex_);
        if (!result) raw->result = std::move(result);
        if (--raw->open_batches != 0) return;
        ++changes_;
        changed_.notify_all();
    };
    p_.io.submit(DataIo::Op::kWrite, DataIo::Memory::kStaging, staged, ended);
    if (!pages.empty()) p_.io.submit(DataIo::Op::kWrite, DataIo::Memory::kPool, pages, ended);
}

std::uint64_t Writer::changes() const {
    const std::lock_guard lock(mutex_);
    return changes_;
}

void Writer::wait_for_change(std::uint64_t seen) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, options_.linger, [&] { return changes_ != seen; });
}

std::size_t Writer::being_written() const {
    return static_cast<std::size_t>(
        std::count_if(flights_.begin(), flights_.end(), [](const auto& f) { return f->kind == Kind::kExtent && !f->written; }));
}

std::size_t Writer::most_written() const {
    if (p_.io.reading()) return options_.writing_beside_reads;
    const double worth = bytes_per_second_ * options_.ahead_seconds / static_cast<double>(options_.extent_bytes);
    return static_cast<std::size_t>(std::clamp<double>(worth, options_.writing_beside_reads, options_.writing));
}

// So many bytes were on their way since `begun`, and are written now.
void Writer::note_written(std::uint64_t bytes, Clock::time_point begun) {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - std::max(begun, std::exchange(last_written_, now))).count();
    if (seconds > 0) bytes_per_second_ += (static_cast<double>(bytes) / seconds - bytes_per_second_) / kSmoothing;
}

// Takes in what has ended, and begins what follows from it.
Result<void> Writer::settle() {
    PEGA_TRY(take_ended());
    take_flushed();
    store_leading();
    write_tables();
    if (!flushing_) begin_flush();
    return {};
}

Result<void> Writer::take_ended() {
    std::uint64_t bytes = 0;
    auto begun = Clock::time_point::max();
    const std::lock_guard lock(mutex_);
    for (const auto& flight : flights_) {
        if (flight->open_batches != 0 || flight->written) continue;
        if (!flight->result) {
            ++p_.counters.write_failures;
            return flight->result;
        }
        flight->written = true;
        if (flight->kind != Kind::kExtent) continue;
        bytes += flight->payload_bytes + flight->other_bytes;
        begun = std::min(begun, flight->begun);
    }
    if (bytes != 0) note_written(bytes, begun);
    if (!flush_ended_ || flush_result_) return {};
    ++p_.counters.sync_failures;
    return flush_result_;
}

void Writer::take_flushed() {
    {
        const std::lock_guard lock(mutex_);
        if (!std::exchange(flush_ended_, false)) return;
    }
    flushing_ = false;
    for (const auto& flight : flights_) flight->flushed |= std::exchange(flight->covered, false);
}

// A flush pays when enough is written, or when nothing goes on without it.
void Writer::begin_flush() {
    std::uint64_t bytes = 0;
    bool waited_for = free_staging_.empty() || being_written() == 0;
    for (const auto& flight : flights_) {
        if (!flight->written || flight->flushed || flight->kind == Kind::kTable) continue;
        bytes += flight->payload_bytes + flight->other_bytes;
        waited_for |= flight->kind == Kind::kHeader && !open_;
    }
    if (bytes == 0 || (!waited_for && bytes < options_.flush_bytes)) return;
    for (const auto& flight : flights_) flight->covered = flight->written && !flight->flushed;
    flushing_ = true;
    ++p_.counters.flushes;
    p_.io.flush([this](Result<void> result) {
        const std::lock_guard lock(mutex_);
        flush_result_ = std::move(result);
        flush_ended_ = true;
        ++changes_;
        changed_.notify_all();
    });
}

// Extents are stored in their order; headers and tables wait for none of them.
void Writer::store_leading() {
    bool leading = true;
    for (auto it = flights_.begin(); it != flights_.end();) {
        Flight& flight = **it;
        const bool extent = flight.kind == Kind::kExtent;
        leading = leading && (!extent || flight.flushed);
        const bool over = extent ? leading : flight.kind == Kind::kHeader ? flight.flushed : flight.written;
        if (!over) {
            ++it;
            continue;
        }
        store(flight);
        it = flights_.erase(it);
    }
}

void Writer::store(Flight& flight) {
    p_.counters.table_bytes += flight.other_bytes;
    lifetime_bytes_ += flight.payload_bytes + flight.other_bytes;
    if (flight.kind == Kind::kHeader) {
        flight.segment->begun = true;
        return;
    }
    if (flight.kind == Kind::kTable) {
        end_segment(flight.segment);
        return;
    }
    p_.catalog.commit(container_, flight.segment->slot, flight.records);
    --flight.segment->extents;
    flight.segment->stored = flight.end;
    free_staging_.push_back(flight.staging);
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
    flight.items.clear();
    next_pause_ = options_.first_pause;
    {
        const std::lock_guard lock(mutex_);
        if (!problem_.empty() && !giving_up_) {
            base::log_info("tier", "container {}: writing works again", container_);
            problem_.clear();
        }
    }
    p_.queue.done(taken);
    if (retiring_ && rewriting_ == 0) finish_retiring();
}

// Something failed: what stands before it is stored if a last flush works, the rest is lost, and no segment goes on. Their
// tables are written after the pause.
void Writer::give_up(const Error& error) {
    bool can_flush = true;
    {
        // The device reads the pages until then, however long that is: nobody waits for this thread meanwhile.
        std::unique_lock lock(mutex_);
        problem_ = error.message;
        giving_up_ = true;
        changed_.wait(lock, [this] {
            return (!flushing_ || flush_ended_) &&
                   std::all_of(flights_.begin(), flights_.end(), [](const auto& f) { return f->open_batches == 0; });
        });
        can_flush = !flush_ended_ || flush_result_;  // what a failed flush left behind, a later one may not know of
        flush_ended_ = flushing_ = false;
        for (const auto& flight : flights_) {
            flight->written = flight->result.has_value();
            flight->covered = flight->flushed = false;
        }
    }
    const bool any = !flights_.empty() && flights_.front()->written;
    if (any && can_flush && flush_now(p_.io)) {
        for (const auto& flight : flights_) flight->flushed = flight->written;
        store_leading();
    }
    cut_all_segments();
    pause(error);  // before whoever waits for these blocks hears of them
    for (const auto& flight : flights_) {
        if (flight->kind != Kind::kExtent) continue;
        drop(flight->items, p_.counters.failed_blocks, flight->written);
        free_staging_.push_back(flight->staging);
    }
    flights_.clear();
    const std::lock_guard lock(mutex_);
    giving_up_ = false;
}

}  // namespace pegaflow::engine::tier
