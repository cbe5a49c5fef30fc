// SPDX-License-Identifier: Apache-2.0
// What joins the engine and its tier: blocks go down when they have digests, and come up when a query asks for them.
#include <fmt/format.h>

#include <algorithm>

#include "engine/state.hpp"
#include "engine/tier/file_tier.hpp"

namespace pegaflow {
namespace engine {
namespace {

constexpr std::size_t kOffersAgain = 16;           // of one query
constexpr std::uint64_t kReadTogether = 64 << 10;  // what keeps a device busy longer than a thread takes to wake

}  // namespace

Prefetcher::Name prefetch_name(const QueryRequest& request) {
    Prefetcher::Name name{std::string(request.instance_id), std::string(request.request_id), request.group,
                          request.hashes.size()};
    for (const std::string_view hash : request.hashes) name.hashes = base::hash_bytes(hash.data(), hash.size(), name.hashes);
    return name;
}

}  // namespace engine

using engine::Block;
using engine::BlockKey;
using engine::BlockRef;
using engine::Clock;
using engine::Prefetcher;

Result<void> Engine::State::open_tier() {
    const TierOptions& o = options.tier;
    if (!options.digests) return fail(Code::kInvalid, "a tier needs digests: what is read back is checked against them");
    if (o.threads == 0 || o.threads > 64)
        return fail(Code::kInvalid, fmt::format("{} tier threads, expected 1 to 64", o.threads));
    if (o.io_time <= o.io_time.zero() || o.prefetch_time <= o.prefetch_time.zero() || o.idle_time <= o.idle_time.zero())
        return fail(Code::kInvalid, "the times of a tier must be positive");
    if (o.max_prefetch_requests == 0) return fail(Code::kInvalid, "max_prefetch_requests is 0, expected at least 1");
    PEGA_ASSIGN(tier, engine::tier::FileTier::open(o, {fabric, scopes, *this, *pool, *pool_regions}));
    Prefetcher::Options p;
    p.max_bytes = o.prefetch_bytes != 0 ? o.prefetch_bytes : pool->capacity() / 4;
    p.max_requests = o.max_prefetch_requests;
    p.bytes_in_flight = o.read_bytes_in_flight;
    p.bytes_together = engine::kReadTogether;
    p.groups_ahead = engine::ReadPace::kMostAhead;
    p.time = o.prefetch_time;
    p.idle = o.idle_time;
    p.threads = o.threads;
    p.prefill_tokens_per_second = o.prefill_tokens_per_second;
    p.tokens_per_block = o.tokens_per_block;
    PEGA_ASSIGN(prefetcher, Prefetcher::create(*tier, *this, p, [this](const BlockRef& block) {
                    bool admitted = false;
                    if (index->insert_resident(block, &admitted, true)) ++counters.insertions;
                }));
    return {};
}

BlockRef Engine::State::resident(const BlockKey& key) { return index->peek(key.scope, key.group, key.hash()); }

BlockRef Engine::State::make_block(const BlockKey& key, std::span<const std::uint64_t> page_bytes, engine::Wait wait) {
    BlockRef block(new Block(key, engine::table_hash(key.scope, key.group, key.hash()), *pool));
    std::vector<std::uint64_t> evicted;  // empty as long as the pool is not full
    for (const std::uint64_t bytes : page_bytes) {
        std::uint64_t offset = pool->allocate(bytes, PEGA_NUMA_ANY);
        if (offset == engine::Slab::kNone) {
            evicted.clear();
            if (allocate_pages(bytes, 1, PEGA_NUMA_ANY, nullptr, evicted, wait) == 0) return {};
            offset = evicted.front();
        }
        block->pages.push_back({offset, bytes});
    }
    return block;
}

void Engine::State::offer_again(const std::vector<BlockRef>& blocks) {
    std::size_t offers = 0;
    for (const BlockRef& block : blocks) {
        if (block->offered.load(std::memory_order_relaxed) || !block->digested.load(std::memory_order_acquire)) continue;
        tier->offer(block);
        if (++offers == engine::kOffersAgain) return;
    }
}

Result<bool> Engine::State::begin_prefetch(const QueryRequest& request, const engine::Instance& instance,
                                           const Prefetcher::Name& name, const std::vector<BlockRef>& found,
                                           const std::vector<std::uint32_t>& positions) {
    Prefetcher::Wish wish;
    wish.held = found;
    std::size_t next = 0;  // of `positions`
    for (std::size_t i = request.group == 0 ? found.size() : 0; i < request.hashes.size(); ++i) {
        if (request.group != 0 && next < positions.size() && positions[next] == i) {
            ++next;
            continue;
        }
        const BlockKey key(instance.scope, request.group, request.hashes[i]);
        if (BlockRef here = resident(key)) {
            wish.held.push_back(std::move(here));
        } else if (tier->contains(key) && !index->being_copied(key.scope, key.group, key.hash())) {
            wish.keys.push_back(key);  // what is being copied would come first, and the fetch for nothing
        } else if (request.group == 0) {
            break;
        } else {
            return false;  // all or nothing
        }
    }
    if (wish.keys.empty()) return false;
    for (const auto& shard : instance.layout.shapes[request.group].shards) wish.page_bytes.push_back(shard.page_bytes);
    auto started = prefetcher->start(name, std::move(wish));
    if (!started) ++counters.queue_full;
    return started;
}

Result<void> Engine::flush_to_tier(Clock::time_point deadline) {
    State& s = *state_;
    const auto pass = s.gate.enter();
    if (!pass) return fail(Code::kCanceled, "the engine is closing");
    s.wait_for_digests(deadline);
    return s.tier ? s.tier->flush(deadline) : Result<void>();
}

bool Engine::stored(std::string_view instance_id, std::string_view hash, std::uint32_t group) const {
    const auto pass = state_->gate.enter();
    const auto instance = state_->instance(instance_id);
    return pass && state_->tier && instance && (*instance)->sealed.load(std::memory_order_acquire) && !hash.empty() &&
           hash.size() <= kMaxHashBytes && state_->tier->contains(BlockKey((*instance)->scope, group, hash));
}

std::vector<TierDeviceInfo> Engine::tier_devices() const {
    const auto pass = state_->gate.enter();
    if (!pass || !state_->tier) return {};
    return state_->tier->devices();
}

}  // namespace pegaflow
