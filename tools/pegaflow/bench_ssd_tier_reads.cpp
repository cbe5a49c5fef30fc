// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_ssd_tier_reads.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

namespace pegaflow::cli::ssd {

using namespace engine;

namespace {

constexpr std::uint64_t kScope = 1;
constexpr unsigned kCheckers = 2;
constexpr std::size_t kAtOnce = 8, kAhead = 4;  // reads
constexpr std::uint64_t kBytesTogether = std::uint64_t{64} << 10;
constexpr std::uint64_t kMinReads = 4;  // under way, so that the device is busy when one lands
constexpr std::uint64_t kBytesAtOnce = std::uint64_t{512} << 10;
constexpr auto kPatience = std::chrono::microseconds(500), kIdlePatience = std::chrono::microseconds(1000),
               kSparePatience = std::chrono::microseconds(5000);
constexpr auto kStopStep = std::chrono::milliseconds(10);

}  // namespace

BlockKey key_of(std::uint64_t block_bytes, std::uint64_t number) {
    return BlockKey(kScope, 0, fmt::format("bench-{:010}-{:015}", block_bytes, number));
}

ReadLoop::ReadLoop(tier::FileTier& files, const Load& load, std::uint64_t first, std::uint64_t blocks, std::uint64_t seed,
                   Phase& phase)
    : files_(files), load_(load), first_(first), blocks_(blocks), seed_(seed), phase_(phase) {
    const std::uint64_t depth = std::uint64_t{load.depth} * load.threads;
    together_ = std::clamp<std::uint64_t>(kBytesTogether / load.block, 1, std::max<std::uint64_t>(1, depth / kMinReads));
    most_ = depth / together_;
    for (std::uint64_t i = 0; i < most_ + kAhead + 2 * kAtOnce; ++i) {
        slots_.push_back(std::make_unique<Slot>());
        idle_.push_back(slots_.back().get());
    }
}

Result<void> ReadLoop::run(Run& out) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kCheckers; ++i) threads.emplace_back([this, i] { work(seed_ + i); });
    while (!phase_.stop.load()) std::this_thread::sleep_for(kStopStep);
    {
        const std::lock_guard lock(mutex_);
        changed_.notify_all();
    }
    for (std::thread& thread : threads) thread.join();
    out.latency.merge(latency_);
    out.checked = checked_;
    out.wrong = wrong_;
    return error_.message.empty() ? Result<void>() : fail(error_);
}

void ReadLoop::work(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::unique_lock lock(mutex_);
    ++awake_;
    const auto work = [this] {
        told_ = false;
        return enough() || should_prepare() || over();
    };
    for (;;) {
        // Several at once, as the engine does: waking a thread costs more than checking a small block.
        const bool first = !std::exchange(patient_, true);
        --awake_;
        changed_.wait_for(lock, !first ? kSparePatience : landed_.empty() ? kIdlePatience : kPatience, work);
        ++awake_;
        if (first) patient_ = false;
        if (over()) break;
        while (prepared_.size() < kAhead && may_prepare() && prepare(random, lock)) {
        }
        for (bool checked = false; !landed_.empty() && !(checked && should_prepare()); checked = true) check(lock);
    }
    changed_.notify_all();
}

// Wakes a thread for what those that are awake would not come to soon.
void ReadLoop::tell() {
    if (told_ || !(enough() || should_prepare())) return;
    if (awake_ != 0 && landed_bytes_ + checking_bytes_ < kBytesAtOnce) return;
    told_ = true;
    changed_.notify_one();
}

void ReadLoop::check(std::unique_lock<std::mutex>& lock) {
    Slot& slot = *landed_.front();
    landed_.pop_front();
    ++checking_;
    const std::uint64_t bytes = together_ * load_.block;
    landed_bytes_ -= bytes;
    checking_bytes_ += bytes;
    tell();
    lock.unlock();
    std::uint64_t good = 0, wrong = 0;
    Result<void> failed;
    for (std::size_t i = 0; i < slot.blocks.size(); ++i) {
        if (!slot.blocks[i]) continue;  // given up since, by the writes of a mixed load
        auto checked = slot.read->finish(i);
        ++(checked ? good : wrong);
        if (!checked) failed = std::move(checked);
    }
    slot.read.reset();
    slot.blocks.clear();
    const auto took = static_cast<std::uint64_t>((Clock::now() - slot.begun).count());
    lock.lock();
    --checking_;
    checking_bytes_ -= bytes;
    idle_.push_back(&slot);
    checked_ += (good + wrong) * load_.block;
    if (!failed) error_ = failed.error();
    if (!failed && failed.error().code == Code::kCorrupt) wrong_ += wrong * load_.block;
    phase_.read_bytes += good * load_.block;
    for (std::uint64_t i = 0; i < good && phase_.measuring.load(); ++i) latency_.add(took);
}

// The device has `most_` reads; what comes next is ready when one of them lands. False when the blocks were given up since, or
// the pool is full of others that are being read.
bool ReadLoop::prepare(std::mt19937_64& random, std::unique_lock<std::mutex>& lock) {
    Slot& slot = *idle_.back();
    idle_.pop_back();
    ++preparing_;
    lock.unlock();
    slot.keys.clear();
    for (std::uint64_t i = 0; i < together_; ++i) slot.keys.push_back(key_of(load_.block, first_ + random() % blocks_));
    const std::uint64_t sizes[] = {load_.block};
    slot.read = files_.prepare(slot.keys, sizes, slot.blocks);
    const bool good = slot.read != nullptr;
    lock.lock();
    --preparing_;
    (good ? prepared_ : idle_).push_back(&slot);
    while (Slot* next = take_prepared()) {
        lock.unlock();
        start(*next);
        lock.lock();
    }
    return good;
}

ReadLoop::Slot* ReadLoop::take_prepared() {
    if (prepared_.empty() || under_way_ == most_) return nullptr;
    Slot* slot = prepared_.front();
    prepared_.pop_front();
    ++under_way_;
    return slot;
}

void ReadLoop::start(Slot& slot) {
    slot.begun = Clock::now();
    slot.read->start([this, &slot] {
        Slot* next = nullptr;
        {
            const std::lock_guard lock(mutex_);
            --under_way_;
            landed_.push_back(&slot);
            landed_bytes_ += together_ * load_.block;
            next = take_prepared();
            tell();
        }
        if (next != nullptr) start(*next);
    });
}

bool ReadLoop::should_prepare() const { return prepared_.size() * 2 <= kAhead && may_prepare(); }
bool ReadLoop::over() const {
    return phase_.stop.load() && under_way_ == 0 && checking_ == 0 && preparing_ == 0 && landed_.empty() && prepared_.empty();
}

bool ReadLoop::enough() const {
    return landed_.size() >= kAtOnce || landed_bytes_ >= kBytesAtOnce || (!landed_.empty() && under_way_ == 0);
}

}  // namespace pegaflow::cli::ssd
