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
    std::uint64_t number = 0;
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
    // Offers blocks until `stop`, waiting for room; `pace` says how many bytes there may be by now.
    Result<void> produce(std::uint64_t block_bytes, const std::function<bool(std::uint64_t)>& go_on);
    Result<void> read_blocks(const Load& load, const std::atomic<bool>& stop, const std::atomic<bool>& measuring, Run& out,
                             std::atomic<std::uint64_t>& bytes);
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

Result<void> TierBench::State::read_blocks(const Load& load, const std::atomic<bool>& stop, const std::atomic<bool>& measuring,
                                           Run& out, std::atomic<std::uint64_t>& bytes) {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Slot*> ready;  // landed, or not begun
    std::vector<std::unique_ptr<Slot>> slots;
    std::uint64_t busy = 0;
    Error error;
    for (std::uint32_t i = 0; i < load.depth * load.threads; ++i) {
        slots.push_back(std::make_unique<Slot>());
        ready.push_back(slots.back().get());
    }
    const std::uint64_t sizes[] = {load.block};
    const auto work = [&](std::uint64_t seed) {
        std::mt19937_64 random(seed);
        Histogram latency;
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [&] { return !ready.empty() || (busy == 0 && stop.load()); });
            if (ready.empty()) break;
            Slot* slot = ready.front();
            ready.pop_front();
            lock.unlock();
            if (slot->read) {
                const auto checked = slot->read->finish();
                slot->read.reset();
                slot->block = {};
                if (checked && measuring.load()) latency.add(static_cast<std::uint64_t>((Clock::now() - slot->begun).count()));
                lock.lock();
                --busy;
                if (!checked) error = checked.error();
                if (!checked && checked.error().code == Code::kCorrupt) out.wrong += load.block;
                if (checked) bytes += load.block;
                out.checked += load.block;
                lock.unlock();
            }
            if (stop.load()) {
                lock.lock();
                changed.notify_all();
                continue;
            }
            slot->number = random() % next[load.block];
            slot->begun = Clock::now();
            slot->halves = 0;
            lock.lock();
            ++busy;
            lock.unlock();
            const auto second = [&, slot] {
                if (slot->halves.fetch_add(1) == 0) return;
                const std::lock_guard landed(mutex);
                ready.push_back(slot);
                changed.notify_one();
            };
            slot->read = files->read(key_of(load.block, slot->number), sizes, &slot->block, second);
            if (slot->read) {
                second();
                lock.lock();
                continue;
            }
            // Given up since, by the writes of a mixed load.
            lock.lock();
            --busy;
            ready.push_back(slot);
        }
        changed.notify_all();
        out.latency.merge(latency);
    };
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kCheckers; ++i) threads.emplace_back(work, arguments.seed + i);
    while (!stop.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    {
        const std::lock_guard lock(mutex);
        changed.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
    return error.message.empty() ? Result<void>() : fail(error);
}

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
    std::atomic<bool> stop{false}, measuring{false};
    std::atomic<std::uint64_t> read_bytes{0};
    Run out;
    Result<void> produced, read;
    std::vector<std::thread> threads;
    if (load.mode != Mode::kRead) {
        const double share = (100.0 - s.arguments.read_percent) / s.arguments.read_percent;
        threads.emplace_back([&] {
            produced = s.produce(load.block, [&](std::uint64_t so_far) {
                while (load.mode == Mode::kMixed && !stop.load() &&
                       static_cast<double>(so_far) > share * static_cast<double>(read_bytes.load()))
                    std::this_thread::sleep_for(std::chrono::microseconds(100));
                return !stop.load();
            });
        });
    }
    if (load.mode != Mode::kWrite) threads.emplace_back([&] { read = s.read_blocks(load, stop, measuring, out, read_bytes); });
    const auto pause = [](double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); };
    pause(s.arguments.warmup_seconds);
    const TierStats before = s.stats();
    const std::uint64_t read_before = read_bytes;
    const double cpu = cpu_seconds();
    const auto begin = Clock::now();
    measuring = true;
    pause(s.arguments.seconds);
    measuring = false;
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const TierStats after = s.stats();
    const std::uint64_t moved = read_bytes - read_before + after.block_bytes - before.block_bytes;
    const double used = cpu_seconds() - cpu;
    stop = true;
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
