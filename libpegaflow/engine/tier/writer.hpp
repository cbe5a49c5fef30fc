// SPDX-License-Identifier: Apache-2.0
// writer.hpp - the thread that writes one container: extents of a MiB or more, a few in flight, each stored when it is flushed.
//
// A block counts as stored when the extent that holds it and all extents before it in the segment have been written and
// flushed: that is what a scan after a power cut finds. Writing goes on while a flush is under way, which takes in whatever was
// written when it began. The next segment is begun before the open one is full. When a write fails, the open segment is given
// up where it is, gets its table when writing works again, and writing pauses. Pages stay pinned until the device has let go of
// them; while that takes too long, writing pauses as well.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/tier/catalog.hpp"
#include "engine/tier/counters.hpp"
#include "engine/tier/data_io.hpp"
#include "engine/tier/extent_builder.hpp"
#include "engine/tier/tier.hpp"
#include "engine/tier/write_queue.hpp"

namespace pegaflow::engine::tier {

struct WriterOptions {
    std::uint64_t extent_bytes = std::uint64_t{4} << 20;  // of payload
    std::uint32_t writing = 8;                            // extents being written, at most
    std::uint32_t writing_beside_reads = 3;               // which wait behind them; also what a slow device gets
    double ahead_seconds = 0.01;                          // what the device writes in this time is under way: a read may come
    std::uint32_t window = kMostExtentsUnstored;          // extents that are not stored yet
    std::uint64_t flush_bytes = std::uint64_t{8} << 20;   // that are worth a flush while more is being written
    double rewrite_share = 0.08;                          // of a segment: hot blocks that are kept when it is given up
    bool discard = true;
    std::chrono::nanoseconds linger = std::chrono::milliseconds(20);
    std::chrono::nanoseconds first_pause = std::chrono::seconds(1), longest_pause = std::chrono::seconds(60);
};

class Writer {
public:
    static constexpr std::uint64_t kDescriptorBytes = kMaxDescriptorBytes;
    static constexpr std::uint64_t kTableBytes = kMaxTableBytes;
    // The staging memory that `io` must have.
    static std::uint64_t staging_bytes(const WriterOptions& options);

    struct Parts {
        DataIo& io;
        Catalog& catalog;
        ScopeTable& scopes;
        WriteQueue& queue;
        TierHost& host;
        Counters& counters;
        std::function<void()> refill;                        // called before the queue is taken from: more may have room now
        std::function<void(std::uint64_t bytes)> unwritten;  // told of blocks that were taken and are not written
    };
    // All parts outlive it. `unsealed` are the segments without a table, oldest first, which the catalog has as open. The
    // newest of all segments goes on unless something in it is torn or damaged; the others get their tables, which leave out
    // what is torn. Without a thread of the system it takes no blocks, and `problem` says so.
    Writer(Parts parts, const Superblock& superblock, std::uint32_t container, const WriterOptions& options,
           std::span<const FoundSegment> unsealed, std::uint64_t lifetime_bytes);
    ~Writer();

    // Asks the thread to end when the queue, which was stopped, is empty, or `deadline` has passed. [any]
    void request_stop(std::chrono::steady_clock::time_point deadline);
    // The thread goes on alone: for a writer that does not end, and stays as long as the process. [serial]
    void let_go() {
        if (thread_.joinable()) thread_.detach();
    }
    bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }
    // "" while writing works; else why not, until a block is stored again. [any]
    std::string problem() const;
    // True while it takes no blocks because something failed or is late; afterwards it tries again, with `problem` still told.
    // [any]
    bool paused() const;
    // Whether the device has kept something for too long: until that ends, nothing new is begun. [any]
    void set_late(bool late);
    // Bytes that were ever written to the container. [any]
    std::uint64_t lifetime_bytes() const noexcept { return lifetime_bytes_.load(std::memory_order_relaxed); }
    // The largest block that fits into a segment. [any]
    std::uint64_t largest_block() const noexcept;

private:
    using Clock = std::chrono::steady_clock;

    struct Item {
        BlockRef block;
        std::uint8_t heat = 0;
        bool rewritten = false;
    };
    struct Segment {  // one that extents go to, or went to
        Segment(std::uint64_t s, ExtentBuilder b) : slot(s), builder(std::move(b)), stored(builder.mark()) {}
        const std::uint64_t slot;
        ExtentBuilder builder;
        ExtentBuilder::Mark stored;  // how far it is
        bool begun = false;          // its header is on the device: extents may follow
        std::size_t extents = 0;     // that are not stored yet
        int table_tries = 0;
    };
    enum class Kind { kExtent, kHeader, kTable };
    struct Flight {  // bytes under way
        Kind kind = Kind::kExtent;
        Segment* segment = nullptr;
        std::uint32_t staging = 0;  // which descriptor memory an extent uses
        std::vector<Item> items;
        std::vector<NewRecord> records;
        ExtentBuilder::Mark end;  // of an extent
        std::uint64_t payload_bytes = 0, other_bytes = 0;
        Clock::time_point begun;
        bool written = false, covered = false, flushed = false;  // covered: by the flush under way
        std::uint32_t open_batches = 0;                          // guarded by mutex_
        Result<void> result;                                     // guarded by mutex_
    };
    using Flights = std::deque<std::unique_ptr<Flight>>;

    void run();
    bool rest();
    bool late() const;
    void gather();
    bool advance();
    bool start_extent();
    void submit(const ExtentBuilder::Extent& extent, std::unique_ptr<Flight> flight);
    void drop(std::vector<Item>& items, Count& counter, bool written = false);
    void drop_pending(Count& counter);
    Record record_of(const Block& block) const;
    void pause(const Error& error);

    // writer_flight.cpp
    void launch(std::unique_ptr<Flight> flight, std::span<const DataIo::Piece> staged, std::span<const DataIo::Piece> pages);
    std::uint64_t changes() const;
    void wait_for_change(std::uint64_t seen);
    Result<void> settle();
    Result<void> take_ended();
    void take_flushed();
    void begin_flush();
    void store_leading();
    void store(Flight& flight);
    void give_up(const Error& error);
    std::size_t being_written() const;
    std::size_t most_written() const;
    void note_written(std::uint64_t bytes, Clock::time_point begun);

    // writer_segment.cpp
    void prepare_ahead();
    bool prepare(bool must);
    std::optional<std::uint64_t> free_slot(bool must, std::uint64_t* sequence);
    Result<void> set_space_aside(std::uint64_t slot);
    void write_header(std::uint64_t slot, std::uint64_t sequence);
    void write_tables();
    void end_segment(const Segment* segment);
    void cut_all_segments();
    void forget(const Segment& segment);
    void retire_oldest();
    void keep_hot(std::uint64_t slot);
    BlockRef read_back(const HotRecord& hot);
    void finish_retiring();
    std::uint64_t segment_at(std::uint64_t slot) const noexcept { return superblock_.segment_at(slot); }
    std::uint64_t table_staging() const noexcept { return options_.window * kDescriptorBytes; }
    std::uint64_t header_staging() const noexcept { return table_staging() + kTableBytes + kBlockBytes; }

    Parts p_;
    const Superblock superblock_;
    const std::uint32_t container_;
    const WriterOptions options_;
    const ExtentBuilder::Limits limits_;

    std::unique_ptr<Segment> open_, next_;          // next_: its header is written or on its way
    std::deque<std::unique_ptr<Segment>> closing_;  // full, without a table yet
    bool table_busy_ = false;
    std::deque<Item> pending_;
    Flights flights_;  // those of extents are stored in this order
    bool flushing_ = false;
    std::vector<std::uint32_t> free_staging_;
    std::optional<std::uint64_t> retiring_;
    std::size_t rewriting_ = 0;    // items of the retiring segment that are not stored yet
    double bytes_per_second_ = 0;  // that the device writes of late
    Clock::time_point last_written_{};
    std::chrono::nanoseconds next_pause_;
    Clock::time_point retry_space_at_ = Clock::time_point::max();

    std::atomic<std::uint64_t> lifetime_bytes_;
    std::atomic<bool> ended_{false};
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::string problem_;               // guarded by mutex_
    Clock::time_point paused_until_{};  // changed by the thread, under mutex_
    bool late_ = false;                 // guarded by mutex_
    bool giving_up_ = false;            // something failed, and the rest has not ended yet; guarded by mutex_
    std::uint64_t changes_ = 0;         // of flights and flushes; guarded by mutex_
    bool flush_ended_ = false;          // guarded by mutex_
    Result<void> flush_result_;         // guarded by mutex_
    bool stop_ = false;                 // guarded by mutex_
    Clock::time_point deadline_;        // guarded by mutex_; of the stop
    std::thread thread_;
};

}  // namespace pegaflow::engine::tier
