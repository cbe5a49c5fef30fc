// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/file_tier.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "base/log.hpp"
#include "engine/tier/recovery.hpp"
#include "pegaflow/bytes.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr unsigned kScanThreads = 8;
constexpr std::uint64_t kMostQueueBytes = std::uint64_t{1} << 30;
constexpr std::size_t kMostDeferred = 1 << 16;
constexpr std::size_t kProblemLines = 8;  // of a recovery, in the log; the offline check shows all

std::uint64_t queue_bytes(const TierOptions& options, std::uint64_t pool_bytes) {
    return options.write_queue_bytes != 0 ? options.write_queue_bytes : std::min(pool_bytes / 8, kMostQueueBytes);
}

}  // namespace

class FileTier::Read final : public TierRead {
public:
    // What lies in one container: a transfer of its own.
    struct Share {
        Store* store = nullptr;
        std::vector<DataIo::Piece> pieces;
        std::uint64_t bytes = 0;
        Result<void> result;
    };

    Read(FileTier& owner, std::span<const BlockKey> keys) : places(owner.catalog_.pin(keys)), tier(owner) {
        shares.reserve(keys.size());  // they keep their addresses
    }
    ~Read() override { tier.catalog_.unpin(places); }
    void start(std::function<void()> landed) override;
    Result<void> finish(std::size_t number) override;

    Share& share_of(std::uint32_t container) {
        Store* const store = &tier.store_of(container);
        const auto it = std::find_if(shares.begin(), shares.end(), [store](const Share& s) { return s.store == store; });
        if (it != shares.end()) return *it;
        Share& added = shares.emplace_back(Share{store, {}, 0, {}});
        added.pieces.reserve(places.size());
        return added;
    }

    const std::vector<std::optional<Location>> places;  // by key
    std::vector<BlockRef> blocks;                       // by key
    std::vector<Share> shares;

private:
    void share_ended(Share& share, Result<void> result);

    FileTier& tier;
    Clock::time_point begun;
    std::atomic<std::size_t> left{0};  // shares under way
    std::function<void()> tell;
};

void FileTier::Read::start(std::function<void()> landed) {
    begun = Clock::now();
    tell = std::move(landed);
    const std::size_t count = shares.size();
    left.store(count, std::memory_order_relaxed);
    {
        const std::lock_guard lock(tier.mutex_);
        for (std::size_t i = 0; i < count; ++i) tier.cost_.started(begun);
    }
    // Whoever is told may destroy this read before the last submit returns.
    for (std::size_t i = 0; i < count; ++i) {
        Share& share = shares[i];
        share.store->io->submit(DataIo::Op::kRead, DataIo::Memory::kPool, share.pieces,
                                [this, &share](Result<void> result) { share_ended(share, std::move(result)); });
    }
}

void FileTier::Read::share_ended(Share& share, Result<void> result) {
    tier.read_ended(*share.store, share.bytes, begun, result);
    share.result = std::move(result);
    if (left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const auto last = std::move(tell);
    last();
}

// The first bytes of the block that is checked next; the others come while those are looked at.
void FileTier::prefetch_content(const Block& block) const noexcept {
    constexpr std::size_t kAhead = 1024, kLine = 64;
    if (block.pages.empty()) return;
    const std::byte* content = parts_.host.pool_base() + block.pages[0].offset;
    for (std::size_t at = 0; at < kAhead; at += kLine) __builtin_prefetch(content + at);
}

Result<void> FileTier::Read::finish(std::size_t number) {
    const Location& place = *places[number];
    const Share& share = share_of(place.container);
    PEGA_TRY(share.result);
    Block& block = *blocks[number];
    if (number + 2 < blocks.size() && blocks[number + 2]) blocks[number + 2]->prefetch();
    for (std::size_t i = 0; i < place.pages.size(); ++i) {
        Page& page = block.pages[i];
        page.content = place.pages[i].content;
        page.digest = digest_part(tier.parts_.host.pool_base() + page.offset, page.content);
        page.has_digest = true;
        if (page.digest != place.pages[i].digest) {
            ++tier.counters_.mismatches;
            ++tier.counters_.quarantined;
            tier.catalog_.quarantine(place);
            base::log_error("tier", "{}: a block of {} bytes at {} does not have its digest (page {}); it is not used any more",
                            share.store->info.path, block.footprint(), place.offset, i);
            return fail(Code::kCorrupt, "the bytes of a stored block are not what was written");
        }
    }
    if (number + 1 < blocks.size() && blocks[number + 1]) tier.prefetch_content(*blocks[number + 1]);
    block.digested.store(true, std::memory_order_release);
    ++tier.counters_.read_blocks;
    tier.counters_.read_bytes += block.footprint();
    return {};
}

FileTier::FileTier(const TierOptions& options, Parts parts)
    : options_(options),
      parts_(parts),
      catalog_(parts_.scopes),
      queue_(queue_bytes(options, parts_.pool.capacity())),
      budget_(options.write_bytes_per_day, Clock::now()) {}

FileTier::~FileTier() { close(Clock::now()); }

Result<std::unique_ptr<FileTier>> FileTier::open(const TierOptions& options, Parts parts) {
    if (options.segment_bytes < kMinSegmentBytes || options.segment_bytes > kMaxSegmentBytes ||
        options.segment_bytes % kBlockBytes != 0) {
        return fail(Code::kInvalid, fmt::format("a segment of {} is not possible, expected {} to {} in steps of {}",
                                                format_size(options.segment_bytes), format_size(kMinSegmentBytes),
                                                format_size(kMaxSegmentBytes), format_size(kBlockBytes)));
    }
    std::unique_ptr<FileTier> tier(new FileTier(options, parts));
    auto device = find_file_device(tier->parts_.fabric, options.backend);
    if (device) {
        const pega_cost& cost = (*device)->capabilities().cost[0];
        tier->cost_ = CostModel(cost.latency_ns, cost.bytes_per_second);
    }
    for (const std::string& path : options.paths) {
        auto store = std::make_unique<Store>();
        store->info.path = path;
        if (device) {
            tier->open_store(*store, **device, options.capacity_bytes / options.paths.size());
        } else {
            store->info.state = "failed";
            store->info.problem = device.error().message;
            base::log_error("tier", "{} is not used: {}", path, store->info.problem);
        }
        tier->stores_.push_back(std::move(store));
    }
    tier->restore_budget();
    return tier;
}

void FileTier::open_store(Store& store, Device& device, std::uint64_t capacity) {
    auto opened = try_open(store, device, capacity);
    if (opened) return;
    base::log_error("tier", "{} is not used: {}", store.info.path, opened.error().message);
    store.info.state = "failed";
    store.info.problem = opened.error().message;
    store.writer.reset();
    store.io.reset();
    store.container.reset();
}

Result<void> FileTier::try_open(Store& store, Device& device, std::uint64_t capacity) {
    const auto begin = Clock::now();
    PEGA_ASSIGN(store.container, Container::open(store.info.path, capacity, options_.segment_bytes));
    PEGA_ASSIGN(DeviceSlices* const pool, parts_.regions.open(device));
    PEGA_ASSIGN(store.io, FabricIo::open(*store.container, device, {parts_.pool, *pool}, Writer::staging_bytes(writer_options_),
                                         options_.io_time));
    recover(store);
    store.info.recovery_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const Usage usage = catalog_.usage(store.number);
    base::log_info("tier", "{}: {} of {} in {} segments; found {} blocks ({}) in {:.3f} s", store.container->path(),
                   format_size(usage.used_bytes), format_size(usage.capacity_bytes), usage.segments,
                   store.info.recovered_blocks, format_size(usage.live_bytes), store.info.recovery_seconds);
    store.info.state = "ok";
    return {};
}

void FileTier::recover(Store& store) {
    const auto read = [&](std::uint64_t offset, std::span<std::byte> out) { return store.container->read(offset, out); };
    const Superblock& superblock = store.container->superblock();
    store.number = catalog_.add_container(superblock);
    std::vector<FoundSegment> unsealed;
    std::size_t problems = 0;
    bool unreadable = false;
    scan_container(read, superblock, kScanThreads, {}, [&](FoundSegment found) {
        store.history.add(found);
        unreadable = unreadable || found.unreadable;
        counters_.recovery_dropped += found.dropped_records;
        for (const std::string& problem : found.problems) {
            if (problems++ < kProblemLines) base::log_warning("tier", "{}: {}", store.info.path, problem);
        }
        catalog_.add_found(store.number, found);
        if (found.kind == FoundSegment::Kind::kOpen) unsealed.push_back(std::move(found));
    });
    if (unreadable) catalog_.skip_sequences(store.number);
    std::ranges::sort(unsealed, {}, [](const FoundSegment& found) { return found.header.sequence; });
    for (const FoundSegment& found : unsealed) catalog_.resume(store.number, found.slot);
    counters_.recovery_problems += problems;
    store.info.recovered_blocks = catalog_.usage(store.number).blocks;
    counters_.recovered_blocks += store.info.recovered_blocks;
    WriterOptions writing = writer_options_;
    writing.discard = options_.discard == "all" || (options_.discard == "devices" && store.container->block_device());
    store.writer =
        std::make_unique<Writer>(Writer::Parts{*store.io, catalog_, parts_.scopes, queue_, parts_.host, counters_,
                                               [this] { offer_deferred(); }, [this](std::uint64_t bytes) { give_back(bytes); }},
                                 superblock, store.number, writing, unsealed, store.history.lifetime_bytes());
    largest_block_ = std::max(largest_block_, store.writer->largest_block());
}

// A restart does not fill the bucket. Everything that was written counts, not only new blocks.
void FileTier::restore_budget() {
    const auto now = static_cast<std::uint64_t>(std::time(nullptr));
    std::vector<WriteHistory::Written> written;
    bool whole = true;
    for (const auto& store : stores_) {
        const auto more = store->history.written(now);
        written.insert(written.end(), more.begin(), more.end());
        whole = whole && store->history.whole();
    }
    std::ranges::stable_sort(written, {}, [](const WriteHistory::Written& part) { return part.seconds; });
    const std::lock_guard lock(mutex_);
    budget_.restore(written, whole, now);
}

void FileTier::give_back(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    budget_.give_back(bytes);
}

FileTier::Store& FileTier::store_of(std::uint32_t container) {
    return **std::find_if(stores_.begin(), stores_.end(),
                          [container](const auto& s) { return s->writer && s->number == container; });
}

bool FileTier::writable() const {
    return std::any_of(stores_.begin(), stores_.end(), [](const auto& s) { return s->writer && !s->writer->paused(); });
}

void FileTier::offer(BlockRef block) {
    if (block->offered.exchange(true, std::memory_order_relaxed) || take(block) != Taken::kQueueFull) return;
    // It stays `offered`: its turn comes when the queue has room, if the pool still has it then.
    const std::lock_guard lock(deferred_mutex_);
    deferred_.push_back(block->key);
    if (deferred_.size() <= kMostDeferred) return;
    deferred_.pop_front();
    ++counters_.queue_full_blocks;
}

FileTier::Taken FileTier::take(const BlockRef& block) {
    const auto refuse = [&](Count& counter) {
        ++counter;
        block->offered.store(false, std::memory_order_relaxed);
        return Taken::kNo;
    };
    if (catalog_.contains(block->key)) {
        ++counters_.known_blocks;
        return Taken::kYes;
    }
    const std::uint64_t bytes = block->footprint();
    if (bytes > largest_block_ || block->pages.size() > UINT16_MAX) return refuse(counters_.too_large_blocks);
    if (!writable()) return refuse(counters_.failed_blocks);
    if (!queue_.has_room(bytes)) return Taken::kQueueFull;
    {
        const std::lock_guard lock(mutex_);
        if (!budget_.take(bytes, Clock::now())) return refuse(counters_.budget_blocks);
    }
    queue_.push(block);
    return Taken::kYes;
}

void FileTier::offer_deferred() {
    const std::lock_guard lock(deferred_mutex_);
    while (!deferred_.empty()) {
        const BlockRef block = parts_.host.resident(deferred_.front());
        if (!block) ++counters_.queue_full_blocks;
        if (block && take(block) == Taken::kQueueFull) return;
        deferred_.pop_front();
    }
}

bool FileTier::shed() {
    BlockRef block;
    if (!queue_.drop_one(&block)) return false;
    block->offered.store(false, std::memory_order_relaxed);
    give_back(block->footprint());
    ++counters_.shed_blocks;
    return true;
}

std::unique_ptr<TierRead> FileTier::prepare(std::span<const BlockKey> keys, std::span<const std::uint64_t> page_bytes,
                                            std::vector<BlockRef>& blocks, Wait wait) {
    auto read = std::make_unique<Read>(*this, keys);
    blocks.assign(keys.size(), {});
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto& place = read->places[i];
        const bool same =
            place && std::equal(page_bytes.begin(), page_bytes.end(), place->pages.begin(), place->pages.end(),
                                [](std::uint64_t bytes, const StoredPage& page) { return bytes == page.bytes(); });
        if (same) blocks[i] = parts_.host.make_block(keys[i], page_bytes, wait);
        if (!blocks[i]) continue;
        blocks[i]->offered.store(true, std::memory_order_relaxed);
        Read::Share& share = read->share_of(place->container);
        std::uint64_t at = place->offset;
        for (const Page& page : blocks[i]->pages) {
            share.pieces.push_back({page.offset, at, page.bytes});
            share.bytes += page.bytes;
            at += page.bytes;
        }
    }
    if (read->shares.empty()) return nullptr;
    read->blocks = blocks;
    return read;
}

double FileTier::estimate_seconds(std::uint64_t bytes, std::uint64_t ahead) const {
    const std::lock_guard lock(mutex_);
    return cost_.seconds(bytes, ahead);
}

}  // namespace pegaflow::engine::tier
