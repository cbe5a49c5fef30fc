// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_ssd_tier.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "engine/pool/pool.hpp"
#include "engine/pool/pool_regions.hpp"
#include "engine/tier/file_tier.hpp"
#include "pegaflow/bytes.hpp"
#include "pegaflow/digest.hpp"
#include "pegaflow/transfer.hpp"
#include "tools/pegaflow/bench_ssd_tier_reads.hpp"

namespace pegaflow::cli::ssd {
namespace {

using namespace engine;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kSegmentBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kDigestBytes = std::uint64_t{256} << 20;
constexpr auto kRoomStep = std::chrono::microseconds(500), kShareStep = std::chrono::microseconds(2000);
constexpr std::uint32_t kMostDepth = 4096;  // that the back end takes
constexpr auto kLookAtDevices = std::chrono::milliseconds(100);
constexpr std::uint64_t kMostReadBack = 4096, kLeastReadBack = 16, kReadBackBytes = std::uint64_t{64} << 20;

volatile std::uint64_t digest_sink = 0;  // keeps the digests that nobody needs

double thread_cpu_seconds() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// The pool of the benchmark. A block that was offered is freed when it is stored: that ends the time it took.
class Host final : public TierHost, public PageOwner {
public:
    Result<void> open(std::uint64_t pool_bytes) {
        PEGA_ASSIGN(pool, Pool::create({.bytes = pool_bytes}));
        offered_at_.resize(pool->capacity() / tier::kBlockBytes);
        std::mt19937_64 random(3);
        for (std::uint64_t i = 0; i < pool->capacity(); i += 8) {
            const std::uint64_t value = random();
            std::memcpy(pool->base() + i, &value, 8);
        }
        return {};
    }
    BlockRef resident(const BlockKey&) override { return {}; }
    BlockRef make_block(const BlockKey& key, std::span<const std::uint64_t> page_bytes, Wait) override {
        BlockRef block(new Block(key, table_hash(key.scope, key.group, key.hash()), *this));
        for (const std::uint64_t bytes : page_bytes) {
            const std::uint64_t offset = pool->allocate(bytes, 0);
            if (offset == Slab::kNone) return {};
            block->pages.push_back({offset, bytes});
        }
        return block;
    }
    const std::byte* pool_base() const override { return pool->base(); }
    void free_page(std::uint64_t offset, std::uint64_t bytes) noexcept override {
        const std::uint64_t since = std::exchange(offered_at_[offset / tier::kBlockBytes], 0);
        if (since != 0) {
            const std::uint64_t took = now_ns() - since;
            outstanding -= bytes;
            const std::lock_guard lock(mutex_);
            if (measuring) latency.add(took);
        }
        pool->free_page(offset, bytes);
    }
    void note_offer(const Block& block) {
        outstanding += block.pages[0].bytes;
        offered_at_[block.pages[0].offset / tier::kBlockBytes] = now_ns();
    }

    std::unique_ptr<Pool> pool;
    std::atomic<std::uint64_t> outstanding{0};  // bytes that were offered and are not stored
    std::atomic<bool> measuring{false};
    Histogram latency;  // of stored blocks; written under mutex_

private:
    static std::uint64_t now_ns() { return static_cast<std::uint64_t>(Clock::now().time_since_epoch().count()); }
    std::vector<std::uint64_t> offered_at_;  // by page; each belongs to whoever has the block
    std::mutex mutex_;
};

}  // namespace

// What has happened up to now.
struct Moment {
    Clock::time_point when;
    std::uint64_t read_bytes = 0, written_bytes = 0, flushes = 0;
};

struct TierBench::State {
    Arguments arguments;
    std::vector<std::string> directories;
    std::unique_ptr<Fabric> fabric;
    Host host;
    ScopeTable scopes;
    std::unique_ptr<PoolRegions> regions;
    std::unique_ptr<tier::FileTier> files;
    std::uint64_t capacity = 0;
    std::uint64_t full_of = 0;                                    // blocks of this size
    std::uint64_t first_readable = 0;                             // of them: those from it on are read
    bool displaced = true;                                        // something was written since those were
    std::map<std::uint64_t, std::uint64_t> next;                  // by block size: the next number that was not written
    std::map<std::uint64_t, std::vector<std::uint64_t>> digests;  // likewise: of each block that was, by its number

    ~State() {
        if (files) files->close(Clock::now());
        files.reset();
        regions.reset();
        fabric.reset();
        std::error_code error;
        for (const std::string& directory : directories) std::filesystem::remove_all(directory, error);
    }
    Moment moment(const Phase& phase) const {
        EngineStats out;
        files->add_stats(out);
        return {Clock::now(), phase.read_bytes, out.tier.block_bytes, out.tier.flushes};
    }
    Result<void> write_share(const Load& load, const Phase& phase);
    Result<void> check_devices() const;
    double digest_us(std::uint64_t block_bytes) const;
    Result<void> write_blocks(std::uint64_t block_bytes, std::uint64_t bytes);
    Result<void> read_back(std::uint64_t block_bytes, std::uint64_t first, std::uint64_t end, Run& out);
    Result<bool> read_right(std::uint64_t block_bytes, std::uint64_t number, Run& out);
    // Offers blocks, waiting for room, as long as `go_on` says so of the bytes offered so far.
    Result<void> produce(std::uint64_t block_bytes, const std::function<bool(std::uint64_t)>& go_on);
};

Result<void> TierBench::State::produce(std::uint64_t block_bytes, const std::function<bool(std::uint64_t)>& go_on) {
    const std::uint64_t most = 2 * arguments.depth * std::max<std::uint64_t>(block_bytes, 1 << 20);
    const std::uint64_t sizes[] = {block_bytes};
    std::uint64_t& number = next[block_bytes];
    std::uint64_t bytes = 0;
    for (Clock::time_point looked{}; go_on(bytes);) {
        BlockRef block;
        if (host.outstanding.load() + block_bytes <= most)
            block = host.make_block(key_of(block_bytes, number), sizes, Wait::kNo);
        if (!block) {
            const auto now = Clock::now();
            if (now - looked > kLookAtDevices) PEGA_TRY(check_devices());
            looked = now;
            std::this_thread::sleep_for(kRoomStep);
            continue;
        }
        block->pages[0].content = block_bytes;
        std::memcpy(host.pool->base() + block->pages[0].offset, &number, sizeof number);  // no two are the same
        block->pages[0].digest = digest_part(host.pool_base() + block->pages[0].offset, block_bytes);
        block->pages[0].has_digest = true;
        block->digested = true;
        digests[block_bytes].push_back(block->pages[0].digest);
        host.note_offer(*block);
        files->offer(std::move(block));
        ++number;
        bytes += block_bytes;
    }
    return {};
}

Result<void> TierBench::State::check_devices() const {
    for (const TierDeviceInfo& device : files->devices()) {
        if (device.state != "ok") return fail(Code::kRegionLost, device.path + ": " + device.problem);
    }
    return {};
}

// What the digest of one block takes, over memory that no cache holds.
double TierBench::State::digest_us(std::uint64_t block_bytes) const {
    const std::uint64_t count = std::max<std::uint64_t>(64, kDigestBytes / block_bytes);
    const double begin = thread_cpu_seconds();
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint64_t at = i * block_bytes % (host.pool->capacity() - block_bytes + 1);
        digest_sink = digest_sink + digest_part(host.pool_base() + at, block_bytes);
    }
    return (thread_cpu_seconds() - begin) * 1e6 / static_cast<double>(count);
}

Result<void> TierBench::State::write_blocks(std::uint64_t block_bytes, std::uint64_t bytes) {
    PEGA_TRY(produce(block_bytes, [bytes](std::uint64_t so_far) { return so_far < bytes; }));
    return files->flush(Clock::now() + std::chrono::minutes(5));
}

// Whether one block is there, and right: by the digest that was made before it was written, not the one that the tier kept.
Result<bool> TierBench::State::read_right(std::uint64_t block_bytes, std::uint64_t number, Run& out) {
    const BlockKey keys[] = {key_of(block_bytes, number)};
    const std::uint64_t sizes[] = {block_bytes};
    std::vector<BlockRef> blocks;
    const std::unique_ptr<TierRead> read = files->prepare(keys, sizes, blocks, Wait::kYes);
    if (read == nullptr) return false;  // newer blocks have taken its place
    std::byte* const at = host.pool->base() + blocks[0]->pages[0].offset;
    std::memset(at, 0xEE, block_bytes);
    const auto landed = std::make_shared<std::promise<void>>();  // ours, and the thread's on which it lands
    std::future<void> done = landed->get_future();
    read->start([landed] { landed->set_value(); });
    done.wait();
    const bool right = read->finish(0) && digest_part(at, block_bytes) == digests[block_bytes][number];
    out.checked += block_bytes;
    out.wrong += right ? 0 : block_bytes;
    return true;
}

// A sample of the blocks from `first` to `end`, into poisoned memory.
Result<void> TierBench::State::read_back(std::uint64_t block_bytes, std::uint64_t first, std::uint64_t end, Run& out) {
    std::mt19937_64 random(arguments.seed + 77);
    const std::uint64_t count = std::clamp(kReadBackBytes / block_bytes, kLeastReadBack, kMostReadBack);
    std::uint64_t there = 0;
    for (std::uint64_t i = 0; i < count && first != end; ++i) {
        PEGA_ASSIGN(const bool found, read_right(block_bytes, first + random() % (end - first), out));
        there += found ? 1 : 0;
    }
    if (there != 0 || first == end) return {};
    return fail(Code::kCorrupt, fmt::format("of {} blocks that were written none can be read back", end - first));
}

Result<void> TierBench::check(const Arguments& a) {
    const auto refuse = [](const char* option, const char* why) {
        return fail(Code::kInvalid, fmt::format("{} has no meaning with --tier: {}", option, why));
    };
    if (a.sequential) return refuse("--sequential", "blocks are asked for by name, and lie where the tier has put them");
    if (a.batch > 1) return refuse("--batch", "the tier decides how many blocks go together");
    if (a.threads > 1)
        return refuse("--threads", "it has one device handle a path; --depth says how many blocks are under way");
    if (a.backend == "passthru") return refuse("--backend passthru", "a tier lies in directories or on block devices");
    return {};
}

std::uint64_t TierBench::capacity() const noexcept { return state_->capacity; }
bool TierBench::huge_memory() const { return in_huge_pages(state_->host.pool_base(), state_->host.pool->capacity()); }

TierBench::TierBench(std::unique_ptr<State> state) : state_(std::move(state)) {}
TierBench::~TierBench() = default;

Result<std::unique_ptr<TierBench>> TierBench::open(const Arguments& arguments) {
    auto s = std::make_unique<State>();
    s->arguments = arguments;
    const auto bases = arguments.paths.empty() ? std::vector<std::string>{"/var/tmp"} : arguments.paths;
    for (const std::string& base : bases) {
        s->directories.push_back(fmt::format("{}/pegaflow-bench-tier.{}.{}", base, ::getpid(), s->directories.size()));
    }
    PEGA_ASSIGN(const std::uint64_t bytes, parse_size(arguments.file_size));
    FabricOptions fabric{.search_path = arguments.search_path, .backends = {"nvme"}};
    fabric.options["nvme"]["depth"] = std::to_string(std::min(arguments.depth, kMostDepth));
    if (arguments.backend == "uring-poll") fabric.options["nvme"]["poll"] = "on";
    for (const std::string& option : arguments.options) {
        const std::size_t equals = std::min(option.find('='), option.size() - 1);
        fabric.options["nvme"][option.substr(0, equals)] = option.substr(equals + 1);
    }
    PEGA_ASSIGN(s->fabric, Fabric::open(std::move(fabric)));
    PEGA_TRY(s->host.open(std::uint64_t{512} << 20));
    s->scopes.number_of("bench", "bench");
    TierOptions options;
    options.paths = s->directories;
    // Room for what is read, as much as fio reads, and for what mixed loads write beside it.
    s->capacity = bytes + bytes / 2 + 6 * kSegmentBytes * s->directories.size();
    options.capacity_bytes = s->capacity;
    options.segment_bytes = kSegmentBytes;
    options.write_queue_bytes = std::uint64_t{256} << 20;
    s->regions = std::make_unique<PoolRegions>(*s->host.pool);
    PEGA_ASSIGN(s->files, tier::FileTier::open(options, {*s->fabric, s->scopes, s->host, *s->host.pool, *s->regions}));
    PEGA_TRY(s->check_devices());
    return std::unique_ptr<TierBench>(new TierBench(std::move(s)));
}

Result<void> TierBench::State::write_share(const Load& load, const Phase& phase) {
    const double share = (100.0 - arguments.read_percent) / arguments.read_percent;
    return produce(load.block, [&](std::uint64_t so_far) {
        while (load.mode == Mode::kMixed && !phase.stop.load() &&
               static_cast<double>(so_far) > share * static_cast<double>(phase.read_bytes.load()))
            std::this_thread::sleep_for(kShareStep);
        return !phase.stop.load();
    });
}

Result<Run> TierBench::run(const Load& load, bool again) {
    State& s = *state_;
    PEGA_ASSIGN(const std::uint64_t file_bytes, parse_size(s.arguments.file_size));
    // A cache that has been in use for a while: every segment is full of blocks of this size.
    if (std::exchange(s.full_of, load.block) != load.block) {
        PEGA_TRY(s.write_blocks(load.block, s.capacity));
        s.displaced = true;
    }
    // What is read, which others may have displaced since: as many bytes as fio's file has.
    if (load.mode != Mode::kWrite && (s.displaced || !again)) {
        s.first_readable = s.next[load.block];
        PEGA_TRY(s.write_blocks(load.block, file_bytes));
    }
    s.displaced = load.mode != Mode::kRead;
    const std::uint64_t first = s.first_readable;
    const std::uint64_t written = s.next[load.block];
    const std::uint64_t readable = written - first;
    Phase phase;
    Run out;
    out.digest_us_per_op = s.digest_us(load.block);
    s.host.latency = {};
    Result<void> produced, read;
    std::vector<std::thread> threads;
    if (load.mode != Mode::kRead) threads.emplace_back([&] { produced = s.write_share(load, phase); });
    if (load.mode != Mode::kWrite)
        threads.emplace_back([&] { read = ReadLoop(*s.files, load, first, readable, s.arguments.seed, phase).run(out); });
    const auto pause = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
    pause(s.arguments.warmup_seconds);
    const CpuUse use;
    const Moment before = s.moment(phase);
    phase.measuring = s.host.measuring = true;
    pause(s.arguments.seconds);
    phase.measuring = s.host.measuring = false;
    const Moment after = s.moment(phase);
    const double cpu = use.seconds();
    phase.stop = true;
    for (std::thread& thread : threads) thread.join();
    PEGA_TRY(produced);
    PEGA_TRY(read);
    PEGA_TRY(s.files->flush(Clock::now() + std::chrono::minutes(5)));
    if (load.mode == Mode::kWrite) out.latency = s.host.latency;
    const double seconds = std::chrono::duration<double>(after.when - before.when).count();
    const auto stored = static_cast<double>(after.written_bytes - before.written_bytes);
    const double moved = stored + static_cast<double>(after.read_bytes - before.read_bytes);
    const double ops = moved / static_cast<double>(load.block);
    out.bytes_per_s = moved / seconds;
    out.ops_per_s = ops / seconds;
    out.cpu_us_per_op = ops == 0 ? 0 : cpu * 1e6 / ops;
    if (after.flushes > before.flushes) out.bytes_per_flush = stored / static_cast<double>(after.flushes - before.flushes);
    if (s.arguments.verify) PEGA_TRY(s.read_back(load.block, written, s.next[load.block], out));
    return out;
}

}  // namespace pegaflow::cli::ssd
