// SPDX-License-Identifier: Apache-2.0
#include "engine/prefetch.hpp"

#include <algorithm>
#include <utility>

#include "base/thread.hpp"

namespace pegaflow::engine {

Prefetcher::Prefetcher(Tier& tier, TierHost& host, const Options& options, std::function<void(BlockRef)> insert)
    : tier_(tier), host_(host), options_(options), insert_(std::move(insert)), pace_(options.groups_ahead) {}

Result<std::unique_ptr<Prefetcher>> Prefetcher::create(Tier& tier, TierHost& host, const Options& options,
                                                       std::function<void(BlockRef)> insert) {
    std::unique_ptr<Prefetcher> out(new Prefetcher(tier, host, options, std::move(insert)));
    for (std::uint32_t i = 0; i < options.threads; ++i) {
        PEGA_ASSIGN(auto thread, base::start_thread([raw = out.get()] { raw->run(); }));
        out->threads_.push_back(std::move(thread));
    }
    return out;
}

bool Prefetcher::close(Clock::time_point deadline) {
    {
        std::unique_lock lock(mutex_);
        stop_ = true;  // nobody is let in any more
        for (auto it = requests_.begin(); it != requests_.end();) it = forget(it);
        changed_.notify_all();
        if (!changed_.wait_until(lock, deadline, [this] { return groups_ == 0; })) return false;
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return true;
}

void Prefetcher::let_go() {
    for (std::thread& thread : threads_) thread.detach();
}

bool Prefetcher::has_room(std::uint64_t bytes) const {
    return pace_.under_way() == 0 || bytes_in_flight_ + bytes <= options_.bytes_in_flight;
}

bool Prefetcher::can_prepare() const {
    if (waiting_.empty()) return false;
    if (pace_.room_ahead()) return true;
    return pace_.ahead() == 0 && has_room(std::get<Fetch*>(*waiting_.begin())->bytes);
}

// Worth waking a thread: a device that could have a read has none waiting, or soon will.
bool Prefetcher::should_prepare() const { return can_prepare() && pace_.short_ahead(); }

// The most urgent block, and as many of the next ones as are worth one transfer. Blocks that came while their requests waited
// end here.
std::shared_ptr<Prefetcher::Group> Prefetcher::next_group() {
    auto group = std::make_shared<Group>();
    while (!waiting_.empty()) {
        Fetch* const fetch = std::get<Fetch*>(*waiting_.begin());
        if (!group->fetches.empty()) {
            const Fetch& first = *group->fetches.front();
            const bool joins = !first.alone && !fetch->alone && first.page_bytes == fetch->page_bytes &&
                               group->bytes + fetch->bytes <= std::min(options_.bytes_together, options_.bytes_in_flight);
            if (!joins) break;
        }
        waiting_.erase(waiting_.begin());
        fetch->block = host_.resident(fetch->key);
        if (fetch->block) {
            end_fetch(*fetch, true);
            continue;
        }
        fetch->reading = true;
        group->fetches.push_back(fetch);
        group->bytes += fetch->bytes;
    }
    return group;
}

void Prefetcher::prepare(std::unique_lock<std::mutex>& lock, Wait wait) {
    const auto group = next_group();
    if (group->fetches.empty()) return;
    ++groups_;
    pace_.prepare(group->bytes);
    lock.unlock();
    std::vector<BlockKey> keys;
    keys.reserve(group->fetches.size());
    for (const Fetch* fetch : group->fetches) keys.push_back(fetch->key);
    group->read = tier_.prepare(keys, group->fetches.front()->page_bytes, group->blocks, wait);
    const bool whole = std::all_of(group->blocks.begin(), group->blocks.end(), [](const BlockRef& b) { return bool(b); });
    if (!whole && wait == Wait::kNo) group->read.reset();
    lock.lock();
    group->outcomes.assign(group->fetches.size(), wait == Wait::kNo ? Outcome::kLater : Outcome::kGone);
    if (!group->read) {
        pace_.unprepare(group->bytes);
        return end_group(*group);
    }
    prepared_.push_back(group);
    while (const auto next = take_prepared()) {
        lock.unlock();
        start_read(next);
        lock.lock();
    }
}

std::shared_ptr<Prefetcher::Group> Prefetcher::take_prepared() {
    const auto wanted = [](const Fetch* fetch) { return !fetch->waiters.empty(); };
    while (!prepared_.empty() && std::none_of(prepared_.front()->fetches.begin(), prepared_.front()->fetches.end(), wanted)) {
        const auto group = std::move(prepared_.front());
        prepared_.pop_front();
        pace_.unprepare(group->bytes);
        end_group(*group);
    }
    if (prepared_.empty() || !has_room(prepared_.front()->bytes)) return nullptr;
    auto group = std::move(prepared_.front());
    prepared_.pop_front();
    pace_.unprepare(group->bytes);
    pace_.started();
    group->begun = Clock::now();
    bytes_in_flight_ += group->bytes;
    return group;
}

void Prefetcher::start_read(const std::shared_ptr<Group>& group) {
    group->read->start([this, group] { landed(group); });
}

// Runs on a thread of the back end, which must not wait: what was prepared takes the place of what landed at once.
void Prefetcher::landed(const std::shared_ptr<Group>& group) {
    std::unique_lock lock(mutex_);
    bytes_in_flight_ -= group->bytes;
    pace_.landed(group->bytes, group->begun, Clock::now());
    const std::shared_ptr<Group> next = take_prepared();
    if (!pace_.here(group->bytes)) {
        landed_.push_back(group);
        const bool wake = pace_.should_wake(should_prepare());
        // A thread that wakes wants the lock. Without a group of ours the prefetcher may be gone when the lock is.
        if (next) lock.unlock();
        if (wake) changed_.notify_one();
        if (next) start_read(next);
        return;
    }
    pace_.taken(group->bytes);
    lock.unlock();
    if (next) start_read(next);
    const auto begun = Clock::now();
    check(*group);
    lock.lock();
    // A read may land while it is begun: then the first of us goes on.
    if (can_prepare() && !std::exchange(replacing_, true)) {
        prepare(lock, Wait::kNo);
        replacing_ = false;
    }
    pace_.done_here(Clock::now() - begun);
    end_check(*group);
    if (pace_.should_wake(should_prepare())) changed_.notify_one();
}

void Prefetcher::finish_read(std::unique_lock<std::mutex>& lock) {
    const std::shared_ptr<Group> group = std::move(landed_.front());
    landed_.pop_front();
    pace_.taken(group->bytes);
    const bool wake = pace_.should_wake(should_prepare());
    lock.unlock();
    if (wake) changed_.notify_one();
    check(*group);
    lock.lock();
    end_check(*group);
}

void Prefetcher::check(Group& group) {
    for (std::size_t i = 0; i < group.blocks.size(); ++i) {
        if (!group.blocks[i]) continue;
        const auto finished = group.read->finish(i);
        group.outcomes[i] = finished                                  ? Outcome::kGood
                            : finished.error().code == Code::kCorrupt ? Outcome::kGone
                                                                      : Outcome::kFailed;
        if (finished) insert_(group.blocks[i]);
    }
    group.read.reset();
}

void Prefetcher::end_check(Group& group) {
    pace_.ended(group.bytes);
    end_group(group);
}

void Prefetcher::end_group(Group& group) {
    if (--groups_ == 0 && stop_) changed_.notify_all();
    for (std::size_t i = 0; i < group.fetches.size(); ++i) {
        Fetch& fetch = *group.fetches[i];
        const Outcome outcome = group.outcomes[i];
        const bool again = outcome == Outcome::kLater || (outcome == Outcome::kFailed && group.fetches.size() > 1);
        if (again && !fetch.waiters.empty()) {
            fetch.alone |= outcome == Outcome::kFailed;  // it may have been another block's fault
            fetch.reading = false;
            waiting_.insert(place_of(fetch));
            continue;
        }
        if (outcome == Outcome::kGood) fetch.block = std::move(group.blocks[i]);
        end_fetch(fetch, outcome == Outcome::kGood);
    }
}

// False when there will be none any more.
bool Prefetcher::wait_for_work(std::unique_lock<std::mutex>& lock) {
    const auto work = [this] {
        pace_.looked();
        return pace_.due() || should_prepare() || (stop_ && groups_ == 0);
    };
    pace_.asleep();
    for (;;) {
        if (groups_ == 0) {
            changed_.wait(lock, [&] { return work() || groups_ != 0; });
        } else if (patient_) {
            changed_.wait(lock, work);
        } else {
            patient_ = true;
            changed_.wait_for(lock, pace_.nap(), work);
            patient_ = false;
        }
        const bool something = !landed_.empty() || can_prepare();
        if (!something && !(stop_ && groups_ == 0)) continue;
        pace_.at_work();
        return something;
    }
}

void Prefetcher::run() {
    std::unique_lock lock(mutex_);
    pace_.at_work();
    while (wait_for_work(lock)) {
        // The device goes first, as long as what landed does not pile up.
        while (can_prepare() && !pace_.due()) prepare(lock, Wait::kYes);
        for (bool first = true; !landed_.empty() && (first || !should_prepare()); first = false) finish_read(lock);
    }
    changed_.notify_all();
}

void Prefetcher::add_stats(TierStats& stats) const {
    const std::lock_guard lock(mutex_);
    stats.prefetch_requests = started_;
    for (const auto& [name, request] : requests_) ++(request.in ? stats.prefetch_active : stats.prefetch_waiting);
    stats.prefetch_bytes = bytes_in_flight_;
    stats.prefetch_joined = joined_;
    for (const auto& [key, fetch] : fetches_) stats.prefetch_reading_blocks += fetch->reading ? 1 : 0;
    stats.prefetch_canceled = canceled_ + stale_;
    stats.prefetch_stale = stale_;
    stats.prefetch_expired = expired_;
    stats.prefetch_too_slow = too_slow_;
    stats.prefetch_failed = failed_;
    stats.prefetch_queue_full = queue_full_;
}

}  // namespace pegaflow::engine
