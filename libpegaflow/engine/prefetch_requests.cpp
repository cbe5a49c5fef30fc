// SPDX-License-Identifier: Apache-2.0
// What the prefetcher is asked for: requests, from when they come until they are forgotten, and the fetches that they share.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/prefetch.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kProbeBytes = std::uint64_t{1} << 20;  // with which a tier that seems too slow is tried

// At most so many blocks of the prefix, and one at least.
void keep_front(Prefetcher::Wish& wish, std::uint64_t most) {
    most = std::max<std::uint64_t>(1, most);
    if (wish.keys.size() > most) wish.keys.erase(wish.keys.begin() + static_cast<std::ptrdiff_t>(most), wish.keys.end());
}

}  // namespace

Prefetcher::Progress Prefetcher::poll(const Name& name, std::vector<BlockRef>* held, std::uint64_t* fetched) {
    const std::lock_guard lock(mutex_);
    const auto it = requests_.find(name);
    if (it == requests_.end()) return Progress::kUnknown;
    Request& request = it->second;
    if (it->first.hashes != name.hashes) {
        ++canceled_;
        forget(it);
        return Progress::kUnknown;
    }
    request.asked = Clock::now();
    if (!request.over) return Progress::kLoading;
    *held = std::move(request.wish.held);
    *fetched = request.fetched;
    forget(it);
    return Progress::kOver;
}

Result<bool> Prefetcher::start(const Name& name, Wish wish) {
    const std::uint64_t block_bytes = std::accumulate(wish.page_bytes.begin(), wish.page_bytes.end(), std::uint64_t{0});
    const std::lock_guard lock(mutex_);
    if (stop_ || block_bytes == 0) return false;
    if (const auto it = requests_.find(name); it != requests_.end()) {  // of two that asked at one time, the other was first
        if (it->first.hashes == name.hashes) return true;
        ++canceled_;
        forget(it);
    }
    keep_front(wish, options_.max_bytes / block_bytes);
    if (wish.keys.empty() || !worth_it(wish, block_bytes)) return false;
    if (requests_.size() >= options_.max_requests) {
        ++queue_full_;
        return fail(
            Code::kQueueFull,
            fmt::format("{} queries wait for the tier or have not come back for what it brought, as many as may: ask again",
                        requests_.size()));
    }
    const auto now = Clock::now();
    Request& request = requests_[name];
    request.bytes = wish.keys.size() * block_bytes;
    request.wish = std::move(wish);
    request.turn = next_turn_++;
    request.deadline = now + options_.time;
    request.asked = now;
    turns_.emplace(request.turn, &request);
    count_queued(request);
    ++started_;
    too_slow_since_.reset();
    let_in();
    return true;
}

bool Prefetcher::worth_it(Wish& wish, std::uint64_t block_bytes) {
    if (options_.prefill_tokens_per_second <= 0) return true;
    const double anew = static_cast<double>(wish.keys.size()) * options_.tokens_per_block / options_.prefill_tokens_per_second;
    if (tier_.estimate_seconds(wish.keys.size() * block_bytes, queued_bytes_) <= anew) return true;
    const auto now = Clock::now();
    if (!too_slow_since_) too_slow_since_ = now;
    if (now - *too_slow_since_ < options_.probe_interval) {
        ++too_slow_;
        return false;
    }
    keep_front(wish, kProbeBytes / block_bytes);
    return true;
}

void Prefetcher::let_in() {
    while (!turns_.empty() && !stop_) {
        Request& request = *turns_.begin()->second;
        if (reserved_bytes_ != 0 && reserved_bytes_ + request.bytes > options_.max_bytes) break;
        turns_.erase(turns_.begin());
        request.in = true;
        reserved_bytes_ += request.bytes;
        for (std::size_t i = 0; i < request.wish.keys.size(); ++i) join(request, i);
        count_queued(request);
    }
    changed_.notify_all();
}

// What a request waits for has changed.
void Prefetcher::count_queued(Request& request) {
    const std::uint64_t block_bytes = request.bytes / request.wish.keys.size();
    const std::uint64_t now = request.over ? 0 : request.in ? request.fetches.size() * block_bytes : request.bytes;
    queued_bytes_ += now;
    queued_bytes_ -= std::exchange(request.queued, now);
}

void Prefetcher::join(Request& request, std::size_t position) {
    const BlockKey& key = request.wish.keys[position];
    const auto [it, added] = fetches_.try_emplace(key_of(key));
    if (added) {
        it->second = std::make_unique<Fetch>(key, request.wish.page_bytes);
        Fetch& fetch = *it->second;
        fetch.bytes = request.bytes / request.wish.keys.size();
        fetch.position = position;
        fetch.order = next_order_++;
        waiting_.insert(place_of(fetch));
    } else {
        Fetch& fetch = *it->second;
        if (std::find(fetch.waiters.begin(), fetch.waiters.end(), &request) != fetch.waiters.end()) return;  // named twice
        ++joined_;
        if (!fetch.reading && position < fetch.position) {
            waiting_.erase(place_of(fetch));
            fetch.position = position;
            waiting_.insert(place_of(fetch));
        }
    }
    it->second->waiters.push_back(&request);
    request.fetches[position] = it->second.get();
}

// The request does not wait any more for what lies at `from` and behind.
void Prefetcher::detach(Request& request, std::size_t from) {
    for (auto it = request.fetches.lower_bound(from); it != request.fetches.end();) {
        Fetch& fetch = *it->second;
        std::erase(fetch.waiters, &request);
        it = request.fetches.erase(it);
        if (!fetch.waiters.empty() || fetch.reading) continue;
        waiting_.erase(place_of(fetch));
        fetches_.erase(key_of(fetch.key));
    }
    if (request.fetches.empty()) {
        request.over = true;
        turns_.erase(request.turn);
    }
    count_queued(request);
}

Prefetcher::Requests::iterator Prefetcher::forget(Requests::iterator place) {
    Request& request = place->second;
    detach(request, 0);
    if (request.in) reserved_bytes_ -= request.bytes;
    const auto next = requests_.erase(place);
    let_in();
    return next;
}

void Prefetcher::end_fetch(Fetch& fetch, bool good) {
    if (!good && !fetch.waiters.empty()) ++failed_;
    const std::vector<Request*> waiters = std::move(fetch.waiters);
    for (Request* request : waiters) {
        const auto it = std::find_if(request->fetches.begin(), request->fetches.end(),
                                     [&](const auto& entry) { return entry.second == &fetch; });
        const std::size_t position = it->first;
        request->fetches.erase(it);
        if (good) {
            ++request->fetched;
            request->wish.held.push_back(fetch.block);
        } else {
            detach(*request, position);  // a prefix ends at its first gap
        }
        if (request->fetches.empty()) request->over = true;
        count_queued(*request);
    }
    fetches_.erase(key_of(fetch.key));
}

void Prefetcher::drop_instance(const std::string& instance) {
    const std::lock_guard lock(mutex_);
    for (auto it = requests_.begin(); it != requests_.end();) {
        if (it->first.instance != instance) {
            ++it;
            continue;
        }
        ++canceled_;
        it = forget(it);
    }
}

void Prefetcher::tick(Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    for (auto it = requests_.begin(); it != requests_.end();) {
        Request& request = it->second;
        if (now - request.asked >= options_.idle) {
            ++stale_;
            it = forget(it);
            continue;
        }
        if (!request.over && now >= request.deadline) {
            ++expired_;
            detach(request, 0);
        }
        ++it;
    }
}

}  // namespace pegaflow::engine
