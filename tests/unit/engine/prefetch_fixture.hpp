// SPDX-License-Identifier: Apache-2.0
// prefetch_fixture.hpp - a prefetcher over a tier whose reads land when the test says so.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "engine/prefetch.hpp"

namespace pegaflow::engine {

using namespace std::chrono_literals;
using Progress = Prefetcher::Progress;

class FakeTier final : public Tier, public TierHost, public PageOwner {
public:
    class Read final : public TierRead {
    public:
        Read(FakeTier& t, std::vector<Result<void>> r) : tier(t), results(std::move(r)) {}
        void start(std::function<void()> landed) override {
            const std::lock_guard lock(tier.mutex);
            tier.landing.push_back(std::move(landed));
            ++tier.started;
        }
        Result<void> finish(std::size_t number) override { return results[number]; }
        FakeTier& tier;
        const std::vector<Result<void>> results;
    };
    void offer(BlockRef) override {}
    bool shed() override { return false; }
    bool contains(const BlockKey&) const override { return true; }
    std::unique_ptr<TierRead> prepare(std::span<const BlockKey> keys, std::span<const std::uint64_t> bytes,
                                      std::vector<BlockRef>& blocks, Wait wait) override {
        if (wait == Wait::kNo && meanwhile) meanwhile();
        const std::lock_guard lock(mutex);
        (wait == Wait::kNo ? at_once : in_time).insert(std::this_thread::get_id());
        groups.push_back(keys.size());
        std::vector<Result<void>> results;
        blocks.clear();
        bool broken = false;
        for (const BlockKey& key : keys) {
            const std::string hash(key.hash());
            order.push_back(hash);
            const bool room = wait == Wait::kYes || !must_wait.contains(hash);
            blocks.push_back(missing.contains(hash) || !room ? BlockRef() : make_block(key, bytes, wait));
            results.push_back(corrupt.contains(hash) ? fail(Code::kCorrupt, "wrong bytes") : Result<void>());
            broken = broken || unreadable.contains(hash);
        }
        if (std::none_of(blocks.begin(), blocks.end(), [](const BlockRef& b) { return static_cast<bool>(b); })) return nullptr;
        if (broken) results.assign(keys.size(), fail(Code::kRegionLost, "a bad sector"));
        return std::make_unique<Read>(*this, std::move(results));
    }
    double estimate_seconds(std::uint64_t bytes, std::uint64_t ahead) const override {
        return static_cast<double>(bytes + ahead) / bytes_per_second;
    }
    void tick(std::chrono::steady_clock::time_point) override {}
    Result<void> flush(std::chrono::steady_clock::time_point) override { return {}; }
    void cancel_reads() override {}
    bool close(std::chrono::steady_clock::time_point) override { return true; }
    void add_stats(EngineStats&) const override {}
    std::vector<TierDeviceInfo> devices() const override { return {}; }

    BlockRef resident(const BlockKey&) override { return {}; }
    BlockRef make_block(const BlockKey& key, std::span<const std::uint64_t> bytes, Wait) override {
        auto* block = new Block(key, 0, *this);
        block->pages.push_back({0, bytes[0]});
        return BlockRef(block);
    }
    const std::byte* pool_base() const override { return nullptr; }
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}

    // Lets the read that was begun first land.
    bool land() {
        std::function<void()> landed;
        {
            const std::lock_guard lock(mutex);
            if (landing.empty()) return false;
            landed = std::move(landing.front());
            landing.pop_front();
        }
        landed();
        return true;
    }
    std::size_t begun() {
        const std::lock_guard lock(mutex);
        return order.size();
    }

    double bytes_per_second = 1;
    std::mutex mutex;
    std::vector<std::string> order;
    std::deque<std::function<void()>> landing;
    std::size_t started = 0;
    std::vector<std::size_t> groups;                                // how many blocks each read had
    std::set<std::string> missing, corrupt, unreadable, must_wait;  // the last have no room at once
    std::set<std::thread::id> at_once, in_time;                     // who prepared reads
    std::function<void()> meanwhile;                                // called when a read is prepared at once
};

// Small blocks are checked where they land, large ones by a thread of the prefetcher.
class PrefetchTest : public ::testing::TestWithParam<std::uint64_t> {
protected:
    const std::uint64_t bytes_ = GetParam();
    bool small() const { return bytes_ <= (64 << 10); }

    void start(Prefetcher::Options options = {}) {
        if (options.max_bytes == 0) options.max_bytes = 100 * bytes_;
        if (options.bytes_in_flight == 0) options.bytes_in_flight = bytes_;  // one at a time: the order can be seen
        if (options.time == 0ns) options.time = 10s;
        if (options.idle == 0ns) options.idle = 10s;
        options.threads = threads_;
        tier_.bytes_per_second = 10.0 * static_cast<double>(bytes_);
        auto created = Prefetcher::create(tier_, tier_, options, [this](BlockRef block) {
            const std::lock_guard lock(tier_.mutex);
            inserted_.emplace_back(block->key.hash());
        });
        ASSERT_TRUE(created) << created.error().message;
        prefetcher_ = std::move(*created);
    }
    ~PrefetchTest() override {
        std::atomic<bool> closed{false};
        std::thread closing([&] {
            prefetcher_.reset();
            closed = true;
        });
        while (!closed) {
            if (!tier_.land()) std::this_thread::sleep_for(1ms);
        }
        closing.join();
    }
    static Prefetcher::Name name(const std::string& request, std::uint64_t hashes = 1) { return {"i", request, 0, hashes}; }
    Result<bool> begin(const Prefetcher::Name& name, const std::string& blocks) {
        Prefetcher::Wish wish;
        for (const char c : blocks) wish.keys.emplace_back(1, 0, std::string(1, c));
        wish.page_bytes = {bytes_};
        return prefetcher_->start(name, std::move(wish));
    }
    bool ask(const std::string& request, const std::string& blocks) {
        const auto begun = begin(name(request), blocks);
        EXPECT_TRUE(begun) << begun.error().message;
        return begun && *begun;
    }
    Progress poll(const std::string& request) {
        held_.clear();
        return prefetcher_->poll(name(request), &held_, &fetched_);
    }
    // Until so many blocks were asked of the tier, and the first of them are being read.
    void wait_begun(std::size_t count) {
        const auto begun = [&] {
            const std::lock_guard lock(tier_.mutex);
            return tier_.order.size() >= count && tier_.started != 0;
        };
        for (int i = 0; i < 5000 && !begun(); ++i) std::this_thread::sleep_for(1ms);
        ASSERT_TRUE(begun());
    }
    std::size_t inserted() {
        const std::lock_guard lock(tier_.mutex);
        return inserted_.size();
    }
    void land_all(std::size_t count) {
        std::size_t landed = 0;
        for (int waits = 0; landed < count && waits < 5000;) {
            if (tier_.land()) {
                ++landed;
            } else {
                std::this_thread::sleep_for(1ms);
                ++waits;
            }
        }
        ASSERT_EQ(landed, count) << "reads that were begun";
    }
    void land_until_over(const std::string& request) {
        for (int waits = 0; waits < 5000; ++waits) {
            last_ = poll(request);
            if (last_ != Progress::kLoading) return;
            if (!tier_.land()) std::this_thread::sleep_for(1ms);
        }
    }
    void wait_over(const std::string& request) {
        for (int i = 0; i < 5000; ++i) {
            last_ = poll(request);
            if (last_ != Progress::kLoading) return;
            std::this_thread::sleep_for(1ms);
        }
    }

    std::uint32_t threads_ = 1;
    FakeTier tier_;
    std::unique_ptr<Prefetcher> prefetcher_;
    std::vector<std::string> inserted_;
    std::vector<BlockRef> held_;
    std::uint64_t fetched_ = 0;
    Progress last_ = Progress::kUnknown;
};

}  // namespace pegaflow::engine
