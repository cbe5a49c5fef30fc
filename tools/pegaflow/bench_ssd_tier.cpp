// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_ssd_tier.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>

#include "base/crc32c.hpp"
#include "engine/pool/pool.hpp"
#include "engine/pool/pool_regions.hpp"
#include "engine/tier/file_tier.hpp"
#include "pegaflow/bytes.hpp"
#include "pegaflow/transfer.hpp"

namespace pegaflow::cli::ssd {
namespace {

using namespace engine;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kScope = 1;
constexpr std::uint64_t kSegmentBytes = std::uint64_t{64} << 20;
constexpr unsigned kCheckers = 2;

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

BlockKey key_of(std::uint64_t block_bytes, std::uint64_t number) {
    return BlockKey(kScope, 0, fmt::format("bench-{:010}-{:015}", block_bytes, number));
}

class Host final : public TierHost {
public:
    Result<void> open(std::uint64_t pool_bytes) {
        PEGA_ASSIGN(pool, Pool::create({.bytes = pool_bytes}));
        std::mt19937_64 random(3);
        for (std::uint64_t i = 0; i < pool->capacity(); i += 8) {
            const std::uint64_t value = random();
            std::memcpy(pool->base() + i, &value, 8);
        }
        return {};
    }
    BlockRef resident(const BlockKey&) override { return {}; }
    BlockRef make_block(const BlockKey& key, std::span<const std::uint64_t> page_bytes) override {
        BlockRef block(new Block(key, table_hash(key.scope, key.group, key.hash()), *pool));
        for (const std::uint64_t bytes : page_bytes) {
            const std::uint64_t offset = pool->allocate(bytes, 0);
            if (offset == Slab::kNone) return {};
            block->pages.push_back({offset, bytes});
        }
        return block;
    }
    const std::byte* pool_base() const override { return pool->base(); }

    std::unique_ptr<Pool> pool;
};

// A read under way: from its submission to the end of its check.
struct Slot {
    Clock::time_point begun;
    BlockRef block;
    std::unique_ptr<TierRead> read;
    std::atomic<int> halves{0};  // returned from read(), and landed
};

}  // namespace

struct TierBench::State {
    Arguments arguments;
    std::string directory;
    std::unique_ptr<Fabric> fabric;
    Host host;
    ScopeTable scopes;
    std::unique_ptr<PoolRegions> regions;
    std::unique_ptr<tier::FileTier> files;
    std::map<std::uint64_t, std::uint64_t> next;  // by block size: the next number that was not written

    ~State() {
        if (files) files->close(Clock::now());
        files.reset();
        regions.reset();
        fabric.reset();
        std::error_code error;
        if (!directory.empty()) std::filesystem::remove_all(directory, error);
    }
    TierStats stats() const {
        EngineStats out;
        files->add_stats(out);
        return out.tier;
    }
    Result<void> write_blocks(std::uint64_t block_bytes, std::uint64_t bytes);
    // Offers blocks, waiting for room, as long as `go_on` says so of the bytes offered so far.
    Result<void> produce(std::uint64_t block_bytes, const std::function<bool(std::uint64_t)>& go_on);
};

Result<void> TierBench::State::produce(std::uint64_t block_bytes, const std::function<bool(std::uint64_t)>& go_on) {
    std::uint64_t bytes = 0;
    const std::uint64_t sizes[] = {block_bytes};
    while (go_on(bytes)) {
        const TierStats now = stats();
        BlockRef block;
        if (now.queue_bytes + block_bytes <= arguments.depth * std::max<std::uint64_t>(block_bytes, 1 << 20))
            block = host.make_block(key_of(block_bytes, next[block_bytes]), sizes);
        if (!block) {
            std::this_thread::sleep_for(std::chrono::microseconds(50));
            continue;
        }
        block->digests.push_back(base::crc32c(host.pool_base() + block->pages[0].offset, block_bytes));
        block->digested = true;
        ++next[block_bytes];
        bytes += block_bytes;
        files->offer(std::move(block));
        for (const TierDeviceInfo& device : files->devices()) {
            if (device.state != "ok") return fail(Code::kRegionLost, device.problem);
        }
    }
    return {};
}

Result<void> TierBench::State::write_blocks(std::uint64_t block_bytes, std::uint64_t bytes) {
    PEGA_TRY(produce(block_bytes, [bytes](std::uint64_t so_far) { return so_far < bytes; }));
    return files->flush(Clock::now() + std::chrono::minutes(5));
}

// What readers and writers of one run share.
struct Phase {
    std::atomic<bool> stop{false}, measuring{false};
    std::atomic<std::uint64_t> read_bytes{0};
};

// Keeps `depth` reads under way until the phase stops; a few threads check what landed and begin the next ones.
class ReadLoop {
public:
    ReadLoop(tier::FileTier& files, const Load& load, std::uint64_t blocks, std::uint64_t seed, Phase& phase)
        : files_(files), load_(load), blocks_(blocks), seed_(seed), phase_(phase) {
        for (std::uint32_t i = 0; i < load.depth * load.threads; ++i) {
            slots_.push_back(std::make_unique<Slot>());
            ready_.push_back(slots_.back().get());
        }
    }

    Result<void> run(Run& out) {
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < kCheckers; ++i) threads.emplace_back([this, i] { work(seed_ + i); });
        while (!phase_.stop.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        {
            const std::lock_guard lock(mutex_);
            changed_.notify_all();
        }
        for (std::thread& thread : threads) thread.join();
        out.latency = latency_;
        out.checked = checked_;
        out.wrong = wrong_;
        return error_.message.empty() ? Result<void>() : fail(error_);
    }

private:
    void work(std::uint64_t seed) {
        std::mt19937_64 random(seed);
        std::unique_lock lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return !ready_.empty() || (busy_ == 0 && phase_.stop.load()); });
            if (ready_.empty()) break;
            Slot* slot = ready_.front();
            ready_.pop_front();
            if (slot->read) check(*slot, lock);
            if (!phase_.stop.load()) begin(*slot, random() % blocks_, lock);
        }
        changed_.notify_all();
    }
    void check(Slot& slot, std::unique_lock<std::mutex>& lock) {
        lock.unlock();
        const auto checked = slot.read->finish();
        slot.read.reset();
        slot.block = {};
        lock.lock();
        --busy_;
        checked_ += load_.block;
        if (!checked) error_ = checked.error();
        if (!checked && checked.error().code == Code::kCorrupt) wrong_ += load_.block;
        if (checked) phase_.read_bytes += load_.block;
        if (checked && phase_.measuring.load()) latency_.add(static_cast<std::uint64_t>((Clock::now() - slot.begun).count()));
        changed_.notify_all();
    }
    void begin(Slot& slot, std::uint64_t number, std::unique_lock<std::mutex>& lock) {
        ++busy_;
        slot.begun = Clock::now();
        slot.halves = 0;
        lock.unlock();
        const std::uint64_t sizes[] = {load_.block};
        // The read may land before the call that began it has returned: the second of the two makes the slot ready.
        const auto second = [this, &slot] {
            if (slot.halves.fetch_add(1) == 0) return;
            const std::lock_guard landed(mutex_);
            ready_.push_back(&slot);
            changed_.notify_one();
        };
        auto read = files_.read(key_of(load_.block, number), sizes, &slot.block, second);
        const bool begun = read != nullptr;
        if (begun) {
            slot.read = std::move(read);
            second();
        }
        lock.lock();
        if (begun) return;
        --busy_;  // given up since, by the writes of a mixed load
        ready_.push_back(&slot);
    }

    tier::FileTier& files_;
    const Load load_;
    const std::uint64_t blocks_, seed_;
    Phase& phase_;
    std::mutex mutex_;
    std::condition_variable changed_;
    // All guarded by mutex_; a slot belongs to whoever took it from `ready_`.
    std::deque<Slot*> ready_;  // landed, or not begun
    std::vector<std::unique_ptr<Slot>> slots_;
    std::uint64_t busy_ = 0, checked_ = 0, wrong_ = 0;
    Histogram latency_;
    Error error_;
};

TierBench::TierBench(std::unique_ptr<State> state) : state_(std::move(state)) {}
TierBench::~TierBench() = default;

Result<std::unique_ptr<TierBench>> TierBench::open(const Arguments& arguments) {
    auto s = std::make_unique<State>();
    s->arguments = arguments;
    const std::string base = arguments.paths.empty() ? "/var/tmp" : arguments.paths[0];
    s->directory = fmt::format("{}/pegaflow-bench-tier.{}", base, ::getpid());
    PEGA_ASSIGN(const std::uint64_t bytes, parse_size(arguments.file_size));
    FabricOptions fabric{.search_path = arguments.search_path, .backends = {"nvme"}};
    fabric.options["nvme"]["depth"] = std::to_string(std::max<std::uint32_t>(arguments.depth, 32));
    for (const std::string& option : arguments.options) {
        const std::size_t equals = std::min(option.find('='), option.size() - 1);
        fabric.options["nvme"][option.substr(0, equals)] = option.substr(equals + 1);
    }
    PEGA_ASSIGN(s->fabric, Fabric::open(std::move(fabric)));
    PEGA_TRY(s->host.open(std::uint64_t{512} << 20));
    s->scopes.number_of("bench", "bench");
    TierOptions options;
    options.paths = {s->directory};
    options.capacity_bytes = bytes + 6 * kSegmentBytes;
    options.segment_bytes = kSegmentBytes;
    options.write_queue_bytes = std::uint64_t{256} << 20;
    s->regions = std::make_unique<PoolRegions>(*s->host.pool);
    PEGA_ASSIGN(s->files, tier::FileTier::open(options, {*s->fabric, s->scopes, s->host, *s->host.pool, *s->regions}));
    for (const TierDeviceInfo& device : s->files->devices()) {
        if (device.state != "ok") return fail(Code::kInvalid, device.path + ": " + device.problem);
    }
    return std::unique_ptr<TierBench>(new TierBench(std::move(s)));
}

Result<Run> TierBench::run(const Load& load) {
    State& s = *state_;
    PEGA_ASSIGN(const std::uint64_t file_bytes, parse_size(s.arguments.file_size));
    // Half of the space for what is read; the present size's blocks may have gone for another's since.
    if (load.mode != Mode::kWrite) PEGA_TRY(s.write_blocks(load.block, file_bytes / 2));
    Phase phase;
    Run out;
    Result<void> produced, read;
    std::vector<std::thread> threads;
    if (load.mode != Mode::kRead) {
        const double share = (100.0 - s.arguments.read_percent) / s.arguments.read_percent;
        threads.emplace_back([&] {
            produced = s.produce(load.block, [&](std::uint64_t so_far) {
                while (load.mode == Mode::kMixed && !phase.stop.load() &&
                       static_cast<double>(so_far) > share * static_cast<double>(phase.read_bytes.load()))
                    std::this_thread::sleep_for(std::chrono::microseconds(100));
                return !phase.stop.load();
            });
        });
    }
    if (load.mode != Mode::kWrite)
        threads.emplace_back([&] { read = ReadLoop(*s.files, load, s.next[load.block], s.arguments.seed, phase).run(out); });
    const auto pause = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
    pause(s.arguments.warmup_seconds);
    const TierStats before = s.stats();
    const std::uint64_t read_before = phase.read_bytes;
    const double cpu = cpu_seconds();
    const auto begin = Clock::now();
    phase.measuring = true;
    pause(s.arguments.seconds);
    phase.measuring = false;
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const TierStats after = s.stats();
    const std::uint64_t moved = phase.read_bytes - read_before + after.block_bytes - before.block_bytes;
    const double used = cpu_seconds() - cpu;
    phase.stop = true;
    for (std::thread& thread : threads) thread.join();
    PEGA_TRY(produced);
    PEGA_TRY(read);
    PEGA_TRY(s.files->flush(Clock::now() + std::chrono::minutes(5)));
    out.bytes_per_s = static_cast<double>(moved) / seconds;
    out.ops_per_s = out.bytes_per_s / static_cast<double>(load.block);
    out.cpu_us_per_op = moved == 0 ? 0 : used * 1e6 / (static_cast<double>(moved) / static_cast<double>(load.block));
    return out;
}

}  // namespace pegaflow::cli::ssd
