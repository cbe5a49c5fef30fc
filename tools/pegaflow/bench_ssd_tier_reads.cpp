// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/bench_ssd_tier_reads.hpp"

#include <algorithm>
#include <thread>
#include <utility>

namespace pegaflow::cli::ssd {

using namespace engine;

namespace {

constexpr std::uint64_t kScope = 1;
constexpr unsigned kCheckers = 2;
constexpr std::size_t kSpareSlots = 16;  // for reads that landed
constexpr std::uint64_t kBytesTogether = std::uint64_t{64} << 10;
constexpr std::uint64_t kMinReads = 4;  // under way, so that the device is busy when one lands
// Reads of several blocks beyond that. The back end has `depth` blocks under way and no more: these wait their turn in it, so
// that it is not short of blocks when only the last ones of a read are left.
constexpr std::uint64_t kWaiting = 2;
constexpr auto kStopStep = std::chrono::milliseconds(50);

}  // namespace

BlockKey key_of(std::uint64_t block_bytes, std::uint64_t number) {
    const std::uint64_t words[] = {block_bytes, number, ~number, 0};  // 32 bytes, as hashes have
    return BlockKey(kScope, 0, std::string_view(reinterpret_cast<const char*>(words), sizeof words));
}

ReadLoop::ReadLoop(tier::FileTier& files, const Load& load, std::uint64_t first, std::uint64_t blocks, std::uint64_t seed,
                   Phase& phase)
    : files_(files), load_(load), first_(first), blocks_(blocks), phase_(phase), random_(seed) {
    const std::uint64_t depth = std::uint64_t{load.depth} * load.threads;
    together_ = std::clamp<std::uint64_t>(kBytesTogether / load.block, 1, std::max<std::uint64_t>(1, depth / kMinReads));
    most_ = depth / together_ + (together_ == 1 ? 0 : kWaiting);
    for (std::uint64_t i = 0; i < most_ + ReadPace::kMostAhead + kSpareSlots; ++i) {
        slots_.push_back(std::make_unique<Slot>());
        idle_.push_back(slots_.back().get());
    }
}

Result<void> ReadLoop::run(Run& out) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kCheckers; ++i) threads.emplace_back([this] { work(); });
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

void ReadLoop::work() {
    std::unique_lock lock(mutex_);
    pace_.at_work();
    const auto work = [this] {
        pace_.looked();
        return pace_.due() || should_prepare() || over();
    };
    for (;;) {
        // Several at once, as the engine does: waking a thread costs more than checking a small block.
        pace_.asleep();
        if (std::exchange(patient_, true)) {
            changed_.wait(lock, work);
        } else {
            changed_.wait_for(lock, pace_.nap(), work);
            patient_ = false;
        }
        pace_.at_work();
        if (over()) break;
        while (may_prepare() && prepare(lock, Wait::kYes)) {
        }
        for (bool checked = false; !landed_.empty() && !(checked && should_prepare()); checked = true) check_landed(lock);
    }
    changed_.notify_all();
}

void ReadLoop::check_landed(std::unique_lock<std::mutex>& lock) {
    Slot& slot = *landed_.front();
    landed_.pop_front();
    pace_.taken(together_ * load_.block);
    ++checking_;
    const bool wake = pace_.should_wake(should_prepare());
    lock.unlock();
    if (wake) changed_.notify_one();
    check(slot, lock);
}

// Returns with the lock, which it does not have before.
void ReadLoop::check(Slot& slot, std::unique_lock<std::mutex>& lock) {
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
    pace_.ended(together_ * load_.block);
    idle_.push_back(&slot);
    checked_ += (good + wrong) * load_.block;
    if (!failed) error_ = failed.error();
    if (!failed && failed.error().code == Code::kCorrupt) wrong_ += wrong * load_.block;
    phase_.read_bytes += good * load_.block;
    for (std::uint64_t i = 0; i < good && phase_.measuring.load(); ++i) latency_.add(took);
    if (over()) changed_.notify_all();
}

// The device has `most_` reads; what comes next is ready when one of them lands. False when the blocks were given up since, or
// the pool is full of others that are being read.
bool ReadLoop::prepare(std::unique_lock<std::mutex>& lock, Wait wait) {
    Slot& slot = *idle_.back();
    idle_.pop_back();
    ++preparing_;
    pace_.prepare(together_ * load_.block);
    slot.keys.clear();
    for (std::uint64_t i = 0; i < together_; ++i) slot.keys.push_back(key_of(load_.block, first_ + random_() % blocks_));
    lock.unlock();
    const std::uint64_t sizes[] = {load_.block};
    slot.read = files_.prepare(slot.keys, sizes, slot.blocks, wait);
    const bool good = slot.read != nullptr;
    lock.lock();
    (good ? prepared_ : idle_).push_back(&slot);
    if (!good) pace_.unprepare(together_ * load_.block);
    while (Slot* next = take_prepared()) {
        lock.unlock();
        start(*next);
        lock.lock();
    }
    --preparing_;
    if (over()) changed_.notify_all();
    return good;
}

ReadLoop::Slot* ReadLoop::take_prepared() {
    if (prepared_.empty() || pace_.under_way() == most_) return nullptr;
    Slot* slot = prepared_.front();
    prepared_.pop_front();
    pace_.unprepare(together_ * load_.block);
    pace_.started();
    return slot;
}

void ReadLoop::start(Slot& slot) {
    slot.begun = Clock::now();
    slot.read->start([this, &slot] { landed(slot); });
}

void ReadLoop::landed(Slot& slot) {
    const auto now = Clock::now();
    const std::uint64_t bytes = together_ * load_.block;
    std::unique_lock lock(mutex_);
    pace_.landed(bytes, slot.begun, now);
    Slot* const next = take_prepared();
    if (!pace_.here(bytes)) {
        landed_.push_back(&slot);
        const bool wake = pace_.should_wake(should_prepare());
        if (next != nullptr) lock.unlock();  // else the loop may be gone when the lock is
        if (wake) changed_.notify_one();
        if (next != nullptr) start(*next);
        return;
    }
    ++checking_;
    ++preparing_;  // nobody goes before this returns
    pace_.taken(bytes);
    lock.unlock();
    if (next != nullptr) start(*next);
    const auto begun = Clock::now();
    check(slot, lock);
    if (may_prepare() && !std::exchange(replacing_, true)) {
        prepare(lock, Wait::kNo);
        replacing_ = false;
    }
    pace_.done_here(Clock::now() - begun);
    --preparing_;
    if (over()) changed_.notify_all();
    if (pace_.should_wake(should_prepare())) changed_.notify_one();
}

bool ReadLoop::should_prepare() const { return may_prepare() && pace_.short_ahead(); }
bool ReadLoop::over() const {
    return phase_.stop.load() && pace_.under_way() == 0 && checking_ == 0 && preparing_ == 0 && landed_.empty() &&
           prepared_.empty();
}

}  // namespace pegaflow::cli::ssd
