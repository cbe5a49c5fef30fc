// SPDX-License-Identifier: Apache-2.0
// prefetch.hpp - brings blocks of a slower tier into the pool for the queries that asked for them.
//
// A query that misses blocks which the tier has becomes a request; asked again with the same name it learns whether it is over.
// Requests are let in as long as their bytes fit under the bound, in the order in which they came; the others, a bounded
// number, wait their turn until their deadline. Among those that are in, the block nearest to the front of its prefix is read
// first, small ones several at a time. A block that several requests want is read once. Blocks stay pinned for their requests
// until these are asked for again or dropped.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "engine/read_pace.hpp"
#include "engine/tier/tier.hpp"

namespace pegaflow::engine {

class Prefetcher {
public:
    using Clock = std::chrono::steady_clock;

    struct Options {
        std::uint64_t max_bytes = 0;              // of all requests that are in
        std::uint64_t max_requests = UINT64_MAX;  // in or not
        std::uint64_t bytes_in_flight = 0;        // being read at one time
        std::uint64_t bytes_together = 0;         // blocks below this are read in groups up to this
        std::size_t groups_ahead = 0;  // prepared while others are read, so that the device need not wait for a thread
        std::chrono::nanoseconds time{}, idle{};
        std::uint32_t threads = 2;
        double prefill_tokens_per_second = 0;
        std::uint32_t tokens_per_block = 0;
        std::chrono::nanoseconds probe_interval = std::chrono::seconds(1);  // of a tier that seems too slow
    };
    // Who asks, and for what: a name that comes again with other hashes is another request.
    struct Name {
        std::string instance, request;
        std::uint32_t group = 0;
        std::uint64_t hashes = 0;  // a hash of all hashes asked for
    };
    struct Wish {
        std::vector<BlockKey> keys;             // in the order of the prefix
        std::vector<std::uint64_t> page_bytes;  // of each block
        std::vector<BlockRef> held;             // stay pinned as long as the request
    };
    enum class Progress { kUnknown, kLoading, kOver };

    // `insert` makes a block resident. It and `host` are called from threads of the prefetcher, and outlive it, as `tier` does.
    // kNoMemory when the system has no threads to give.
    static Result<std::unique_ptr<Prefetcher>> create(Tier& tier, TierHost& host, const Options& options,
                                                      std::function<void(BlockRef)> insert);
    ~Prefetcher() { close(); }

    // How a request stands. When it is over, it is forgotten; `held` gets what it pinned, and `fetched` how many blocks came.
    // [any]
    Progress poll(const Name& name, std::vector<BlockRef>* held, std::uint64_t* fetched);
    // Begins a request, unless it has begun. False when it is not worth it: nothing to fetch, or computing anew would be
    // faster. After a while of the latter one goes through, for its first blocks: only reads show that the tier has become
    // faster. kQueueFull: there are as many requests as may be. [any]
    Result<bool> start(const Name& name, Wish wish);
    void drop_instance(const std::string& instance);
    // Ends what is late or forgotten. [any]
    void tick(Clock::time_point now);
    // Drops all requests, and waits for the reads under way. False when some have not ended at `deadline`: then it must not be
    // destroyed, and can be closed again. Idempotent. [serial]
    bool close(Clock::time_point deadline = Clock::time_point::max());
    // Its threads go on alone: for one that could not be closed, and stays as long as the process. [serial]
    void let_go();
    void add_stats(TierStats& stats) const;

private:
    struct Request;
    struct Fetch {
        Fetch(const BlockKey& k, std::vector<std::uint64_t> sizes) : key(k), page_bytes(std::move(sizes)) {}
        const BlockKey key;
        const std::vector<std::uint64_t> page_bytes;
        std::uint64_t bytes = 0;
        std::size_t position = 0;  // the smallest among its requests
        std::uint64_t order = 0;
        bool reading = false;
        bool alone = false;  // a group that it was in could not be read
        BlockRef block;
        std::vector<Request*> waiters;
    };
    enum class Outcome {
        kGone,    // not there, wrong, or without room in the pool
        kFailed,  // could not be read
        kLater,   // whoever prepared it could not wait for room
        kGood
    };
    struct Group {  // that is read as one
        std::vector<Fetch*> fetches;
        std::vector<BlockRef> blocks;  // by fetch; empty when the tier does not have it
        std::vector<Outcome> outcomes;
        std::uint64_t bytes = 0;
        std::unique_ptr<TierRead> read;
        Clock::time_point begun;
    };
    struct Request {
        Wish wish;
        std::uint64_t turn = 0;
        std::uint64_t bytes = 0;
        bool in = false, over = false;
        std::uint64_t queued = 0;  // bytes of blocks that it waits for
        std::uint64_t fetched = 0;
        Clock::time_point deadline, asked;
        std::map<std::size_t, Fetch*> fetches;  // by position; those that have not ended
    };
    using Key = std::tuple<std::uint64_t, std::uint32_t, std::string>;
    using Place = std::tuple<std::size_t, std::uint64_t, Fetch*>;  // in order of urgency
    struct ByName {                                                // whatever the hashes
        bool operator()(const Name& a, const Name& b) const {
            return std::tie(a.request, a.group, a.instance) < std::tie(b.request, b.group, b.instance);
        }
    };
    using Requests = std::map<Name, Request, ByName>;

    Prefetcher(Tier& tier, TierHost& host, const Options& options, std::function<void(BlockRef)> insert);

    static Key key_of(const BlockKey& key) { return {key.scope, key.group, std::string(key.hash())}; }
    static Place place_of(Fetch& fetch) { return {fetch.position, fetch.order, &fetch}; }

    // prefetch_requests.cpp
    bool worth_it(Wish& wish, std::uint64_t block_bytes);
    void let_in();
    void count_queued(Request& request);
    void join(Request& request, std::size_t position);
    void end_fetch(Fetch& fetch, bool good);
    void detach(Request& request, std::size_t from);
    Requests::iterator forget(Requests::iterator request);

    void run();
    std::shared_ptr<Group> next_group();
    void prepare(std::unique_lock<std::mutex>& lock, Wait wait);
    std::shared_ptr<Group> take_prepared();
    void start_read(const std::shared_ptr<Group>& group);
    void landed(const std::shared_ptr<Group>& group);
    void finish_read(std::unique_lock<std::mutex>& lock);
    void check(Group& group);
    void end_check(Group& group);
    void end_group(Group& group);
    bool has_room(std::uint64_t bytes) const;
    bool can_prepare() const;
    bool should_prepare() const;
    bool wait_for_work(std::unique_lock<std::mutex>& lock);

    Tier& tier_;
    TierHost& host_;
    const Options options_;
    const std::function<void(BlockRef)> insert_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    // All guarded by mutex_.
    Requests requests_;
    std::map<std::uint64_t, Request*> turns_;  // of those that wait to be let in, in the order in which they came
    std::map<Key, std::unique_ptr<Fetch>> fetches_;
    std::set<Place> waiting_;
    std::deque<std::shared_ptr<Group>> prepared_, landed_;
    std::uint64_t groups_ = 0;  // that have not ended: being prepared, prepared, under way, landed, being finished
    ReadPace pace_;             // of the groups
    bool patient_ = false;      // a thread sleeps that looks by itself at what is not worth waking one
    bool replacing_ = false;    // a thread on which a group landed prepares another one
    std::uint64_t reserved_bytes_ = 0, queued_bytes_ = 0, bytes_in_flight_ = 0, next_order_ = 0, next_turn_ = 0;
    std::optional<Clock::time_point> too_slow_since_;  // no request began since then
    bool stop_ = false;
    std::uint64_t started_ = 0, joined_ = 0, canceled_ = 0, stale_ = 0, expired_ = 0, too_slow_ = 0, failed_ = 0,
                  queue_full_ = 0;
    std::vector<std::thread> threads_;
};

}  // namespace pegaflow::engine
