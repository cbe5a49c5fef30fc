// SPDX-License-Identifier: Apache-2.0
// fake_device.hpp - a device in memory with a volatile cache that can lose power, run full and fail; and a host with a pool.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "base/crc32c.hpp"
#include "engine/pool/pool.hpp"
#include "engine/tier/catalog.hpp"
#include "engine/tier/data_io.hpp"
#include "engine/tier/recovery.hpp"
#include "engine/tier/tier.hpp"
#include "engine/tier/wire.hpp"
#include "engine/tier/writer.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::engine::tier {

class FakeHost final : public TierHost {
public:
    explicit FakeHost(std::uint64_t pool_bytes) : pool(std::move(*Pool::create({.bytes = pool_bytes}))) {}

    BlockRef resident(const BlockKey&) override { return {}; }
    BlockRef make_block(const BlockKey& key, std::span<const std::uint64_t> page_bytes, Wait) override {
        BlockRef block(new Block(key, table_hash(key.scope, key.group, key.hash()), *pool));
        for (const std::uint64_t bytes : page_bytes) {
            const std::uint64_t offset = pool->allocate(bytes, 0);
            if (offset == Slab::kNone) return {};
            block->pages.push_back({offset, bytes});
        }
        return block;
    }
    const std::byte* pool_base() const override { return pool->base(); }

    // A sealed block whose bytes follow from its number.
    BlockRef sealed_block(std::uint64_t scope, std::uint64_t number, std::vector<std::uint64_t> sizes = {8192, 4096}) {
        BlockRef block = make_block(BlockKey(scope, 0, name(number)), sizes, Wait::kNo);
        if (!block) return {};
        for (std::size_t i = 0; i < block->pages.size(); ++i) {
            auto* bytes = pool->base() + block->pages[i].offset;
            fill(number, i, {bytes, block->pages[i].bytes});
            block->pages[i].content = block->pages[i].bytes;
            block->pages[i].digest = digest_part(bytes, block->pages[i].content);
            block->pages[i].has_digest = true;
        }
        block->digested = true;
        return block;
    }
    static std::string name(std::uint64_t number) { return fmt::format("block-{:026}", number); }
    static void fill(std::uint64_t number, std::size_t page, std::span<std::byte> out) {
        std::uint64_t state = number * 77 + page + 1;
        for (std::size_t i = 0; i < out.size(); i += 8) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            std::memcpy(&out[i], &state, 8);
        }
    }

    std::unique_ptr<Pool> pool;
};

class FakeDevice final : public DataIo {
public:
    FakeDevice(const Superblock& super, FakeHost& host)
        : superblock(super), durable(super.total_bytes()), host_(host), staging_(Writer::staging_bytes({})) {}
    ~FakeDevice() override { stop_worker(); }

    // From now on everything ends later, in an order that `seed` gives; else before the call returns.
    void work_in_any_order(std::uint64_t seed) {
        random_.seed(seed);
        stop_worker_ = false;
        worker_ = std::thread([this] { work(); });
    }
    void stop_worker() {
        {
            const std::lock_guard lock(tasks_mutex_);
            stop_worker_ = true;
            tasks_changed_.notify_all();
        }
        if (worker_.joinable()) worker_.join();
    }

    // Until it is let go, nothing of what that worker does ends.
    void hold(bool held) {
        const std::lock_guard lock(tasks_mutex_);
        held_ = held;
        tasks_changed_.notify_all();
    }
    // False if so many extents are not on their way at once within a minute.
    bool wait_for_extents(std::uint64_t count) const {
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
        while (extents_ < count && std::chrono::steady_clock::now() < end)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return extents_ >= count;
    }

    void submit(Op op, Memory memory, std::span<const Piece> pieces, Ended ended) override {
        const bool extent = op == Op::kWrite && memory == Memory::kPool;
        if (extent) most_extents = std::max(most_extents, ++extents_);
        run_or_queue(
            [this, op, memory, extent, all = std::vector<Piece>(pieces.begin(), pieces.end()), ended = std::move(ended)] {
                auto result = move(op, memory, all);
                if (extent) --extents_;
                ended(std::move(result));
            });
    }
    bool reading() const override { return reads_go_on; }
    std::span<std::byte> staging() override { return staging_; }
    // Makes durable what had ended when the flush began, and nothing else.
    void flush(Ended ended) override {
        Blocks covered;
        {
            const std::lock_guard lock(mutex_);
            covered = unsynced_;
        }
        run_or_queue([this, covered = std::move(covered), ended = std::move(ended)] { ended(sync(covered)); });
    }
    Result<void> reserve(std::uint64_t, std::uint64_t) override {
        if (space_left == 0) return fail(Code::kNoMemory, "the fake device is full");
        --space_left;
        return {};
    }
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override {
        const std::lock_guard lock(mutex_);
        PEGA_TRY(step());
        unsynced_.erase(unsynced_.lower_bound(offset), unsynced_.lower_bound(offset + length));
        std::memset(&durable[offset], 0, length);
        return {};
    }

    // From operation `when` on, nothing works; of what was not flushed, every 4 KiB block is there or not, by chance.
    void lose_power_at(std::uint64_t when) { power_ends_ = when; }
    void settle(std::uint64_t seed) {
        std::mt19937_64 random(seed);
        for (const auto& [at, bytes] : unsynced_) {
            if (random() % 2 == 0) std::memcpy(&durable[at], bytes.data(), kBlockBytes);
        }
        unsynced_.clear();
    }
    // Fails what is written among the `count` operations from the `next`-th on that are still to come (1 is the first).
    void fail_writes(std::uint64_t next, std::uint64_t count) {
        const std::lock_guard lock(mutex_);
        fail_from_ = operations_ + next;
        fail_count_ = count;
    }
    ReadBytes reader() {
        return [this](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
            const std::lock_guard lock(mutex_);
            if (offset + out.size() > durable.size()) return fail(Code::kRegionLost, "behind the end");
            if (offset == unreadable_at && unreadable_times != 0) {
                --unreadable_times;
                return fail(Code::kRegionLost, "a bad sector");
            }
            std::memcpy(out.data(), &durable[offset], out.size());
            return {};
        };
    }

    const Superblock superblock;
    std::vector<std::byte> durable;
    std::atomic<std::uint64_t> space_left = UINT64_MAX, written_bytes = 0;
    bool reads_go_on = false;
    std::uint64_t unwritable_at = UINT64_MAX;
    std::uint64_t unreadable_at = UINT64_MAX, unreadable_times = 0;  // what begins there cannot be read so many times
    std::uint64_t most_extents = 0;                                  // that were being written at once; for whoever submits

private:
    using Blocks = std::map<std::uint64_t, std::vector<std::byte>>;  // by place, kBlockBytes each

    void run_or_queue(std::function<void()> task) {
        if (!worker_.joinable()) return task();
        const std::lock_guard lock(tasks_mutex_);
        tasks_.push_back(std::move(task));
        tasks_changed_.notify_all();
    }
    void work() {
        std::unique_lock lock(tasks_mutex_);
        for (;;) {
            tasks_changed_.wait(lock, [this] { return stop_worker_ || (!held_ && !tasks_.empty()); });
            if (tasks_.empty()) return;
            // Some time, so that there is something to choose from.
            tasks_changed_.wait_for(lock, std::chrono::microseconds(random_() % 200));
            std::swap(tasks_[random_() % tasks_.size()], tasks_.back());
            const auto task = std::move(tasks_.back());
            tasks_.pop_back();
            lock.unlock();
            task();
            lock.lock();
        }
    }
    Result<void> sync(const Blocks& covered) {
        const std::lock_guard lock(mutex_);
        PEGA_TRY(step());
        for (const auto& [at, bytes] : covered) {
            std::memcpy(&durable[at], bytes.data(), kBlockBytes);
            const auto cached = unsynced_.find(at);
            if (cached != unsynced_.end() && cached->second == bytes) unsynced_.erase(cached);
        }
        return {};
    }
    Result<void> step() {
        if (++operations_ >= power_ends_) return fail(Code::kRegionLost, "no power");
        return {};
    }
    Result<void> move(Op op, Memory memory, std::span<const Piece> pieces) {
        const std::lock_guard lock(mutex_);
        PEGA_TRY(step());
        if (op == Op::kWrite && operations_ >= fail_from_ && operations_ < fail_from_ + fail_count_)
            return fail(Code::kRegionLost, "the fake device fails");
        for (const Piece& piece : pieces) {
            if (op == Op::kWrite && piece.file_offset <= unwritable_at && unwritable_at < piece.file_offset + piece.length)
                return fail(Code::kRegionLost, "a bad sector");
        }
        std::byte* base = memory == Memory::kPool ? host_.pool->base() : staging_.data();
        for (const Piece& piece : pieces) {
            for (std::uint64_t i = 0; i < piece.length; i += kBlockBytes) {
                std::byte* here = base + piece.memory_offset + i;
                const std::uint64_t at = piece.file_offset + i;
                const auto cached = unsynced_.find(at);
                if (op == Op::kRead) {
                    std::memcpy(here, cached == unsynced_.end() ? &durable[at] : cached->second.data(), kBlockBytes);
                } else {
                    unsynced_[at].assign(here, here + kBlockBytes);
                    written_bytes += kBlockBytes;
                }
            }
        }
        return {};
    }

    FakeHost& host_;
    std::vector<std::byte> staging_;
    std::mutex mutex_;
    Blocks unsynced_;  // written, and lost or not when the power goes
    std::atomic<std::uint64_t> extents_{0};
    std::mutex tasks_mutex_;
    std::condition_variable tasks_changed_;
    std::vector<std::function<void()>> tasks_;  // guarded by tasks_mutex_
    bool stop_worker_ = false;                  // guarded by tasks_mutex_
    bool held_ = false;                         // guarded by tasks_mutex_
    std::mt19937_64 random_;
    std::thread worker_;
    std::uint64_t operations_ = 0, power_ends_ = UINT64_MAX, fail_from_ = UINT64_MAX, fail_count_ = 0;
};

// Makes an encoded block or descriptor one of another version, with the checksum that such a program would write.
inline void set_version(std::span<std::byte> encoded, std::uint32_t version) {
    store_le(&encoded[8], version);
    store_le(&encoded[encoded.size() - 4], base::crc32c(encoded.data(), encoded.size() - 4));
}

inline Superblock small_superblock(std::uint64_t segments) {
    Superblock out;
    out.container.fill(std::byte{7});
    out.segment_bytes = kMinSegmentBytes;
    out.segment_count = segments;
    return out;
}

// A writer over the device, with a catalog filled from what lies there.
struct Bench {
    Bench(FakeDevice& d, FakeHost& h, WriterOptions options = {},
          std::chrono::milliseconds pause = std::chrono::milliseconds(5))
        : device(d), host(h) {
        container = catalog.add_container(device.superblock);
        std::vector<FoundSegment> unsealed;
        bool unreadable = false;
        scan_container(device.reader(), device.superblock, 2, {}, [&](FoundSegment found) {
            unreadable = unreadable || found.unreadable;
            catalog.add_found(container, found);
            dropped += found.dropped_records;
            if (found.kind == FoundSegment::Kind::kOpen) unsealed.push_back(std::move(found));
        });
        if (unreadable) catalog.skip_sequences(container);
        std::ranges::sort(unsealed, {}, [](const FoundSegment& found) { return found.header.sequence; });
        for (const FoundSegment& found : unsealed) catalog.resume(container, found.slot);
        if (options.linger == WriterOptions{}.linger) options.linger = std::chrono::milliseconds(1);
        options.first_pause = options.longest_pause = pause;
        writer = std::make_unique<Writer>(Writer::Parts{device, catalog, scopes, queue, host, counters, nullptr,
                                                        [this](std::uint64_t bytes) { unwritten += bytes; }},
                                          device.superblock, container, options, unsealed, 0);
    }
    ~Bench() { stop(); }
    void stop() {
        queue.stop();
        writer.reset();
        BlockRef left;
        while (queue.drop_one(&left)) {
        }
    }
    // Writes blocks [first, first + count) and waits until they are stored or given up.
    void write(std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = first; i < first + count; ++i) {
            BlockRef block = host.sealed_block(scope, i);
            ASSERT_TRUE(block);
            while (!queue.has_room(block->footprint())) {
                ASSERT_TRUE(flush());
            }
            queue.push(std::move(block));
        }
        ASSERT_TRUE(flush());
    }
    // As the tier does: what a writer that pauses will not take is dropped.
    bool flush() {
        for (int i = 0; i < 2000; ++i) {
            if (queue.wait_empty(std::chrono::steady_clock::now() + std::chrono::milliseconds(10))) return true;
            BlockRef left;
            while (writer->paused() && queue.drop_one(&left)) ++shed;
        }
        return false;
    }
    bool has(std::uint64_t number) const { return catalog.contains(BlockKey(scope, 0, FakeHost::name(number))); }
    // True when what lies on the device is the block.
    bool right(std::uint64_t number) {
        const auto location = catalog.pin(BlockKey(scope, 0, FakeHost::name(number)));
        if (!location) return false;
        bool same = true;
        std::uint64_t at = location->offset;
        for (std::size_t i = 0; i < location->pages.size(); ++i) {
            std::vector<std::byte> bytes(location->pages[i].bytes()), expected(bytes.size());
            EXPECT_TRUE(device.reader()(at, bytes));
            FakeHost::fill(number, i, expected);
            const bool good = digest_part(bytes.data(), location->pages[i].content) == location->pages[i].digest;
            if (good) {
                EXPECT_EQ(bytes, expected) << "bytes with the right digest, and yet another block's";
            }
            same = same && good;
            at += bytes.size();
        }
        catalog.unpin(location);
        return same;
    }

    FakeDevice& device;
    FakeHost& host;
    ScopeTable scopes;
    std::uint64_t scope = scopes.number_of("model", "0123456789abcdef");
    Catalog catalog{scopes};
    WriteQueue queue{1 << 20};
    Counters counters;
    std::uint64_t dropped = 0, shed = 0;
    std::atomic<std::uint64_t> unwritten{0};
    std::uint32_t container = 0;
    std::unique_ptr<Writer> writer;
};

}  // namespace pegaflow::engine::tier
