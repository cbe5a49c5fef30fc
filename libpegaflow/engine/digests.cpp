// SPDX-License-Identifier: Apache-2.0
// Digests of pages: those that copies did not bring are computed in the background; all are checked here.
#include "pegaflow/digest.hpp"

#include <algorithm>

#include "base/log.hpp"
#include "engine/state.hpp"

namespace pegaflow {
namespace engine {
namespace {

constexpr std::size_t kDigestsAhead = 2;      // blocks
constexpr std::uint64_t kDigestFetch = 1024;  // bytes of each
constexpr std::uint64_t kCacheLine = 64;
constexpr std::size_t kDigestBlocks = 64;                       // taken at once by the digest thread,
constexpr std::uint64_t kDigestBytes = std::uint64_t{8} << 20;  // and no more when they are this large

// Fetches what a digest touches first, which other processors wrote; the rest the processor fetches by itself.
void expect(const std::byte* bytes, std::uint64_t length) noexcept {
    for (std::uint64_t at = 0; at < std::min(kDigestFetch, length); at += kCacheLine) __builtin_prefetch(bytes + at);
}

}  // namespace
}  // namespace engine

using engine::Block;
using engine::BlockRef;
using engine::Clock;
using engine::Page;
using engine::Shard;

std::uint64_t Engine::State::digest_gaps(const Shard& shard, const Page& page) const noexcept {
    std::uint64_t sum = 0;
    for (const Shard::Gap& gap : shard.gaps) sum += digest_part(pool->base() + page.offset + gap.offset, gap.bytes, gap.offset);
    return sum;
}

bool Engine::State::is_unfinished(const Block& block) const noexcept {
    return options.digests && (tier != nullptr || !block.digested.load(std::memory_order_acquire));
}

void Engine::State::finish_later(std::vector<BlockRef> blocks) {
    if (blocks.empty()) return;
    const std::lock_guard lock(background_mutex);
    unfinished.insert(unfinished.end(), std::make_move_iterator(blocks.begin()), std::make_move_iterator(blocks.end()));
    digest_wanted.notify_one();
}

bool Engine::State::wait_for_digest() {
    std::unique_lock lock(background_mutex);
    if (stop || (unfinished.empty() && finishing == 0)) return false;
    const std::uint64_t seen = finished;
    digests_changed.wait(lock, [&] { return stop || finished != seen; });
    return !stop;
}

void Engine::State::wait_for_digests(Clock::time_point deadline) {
    std::unique_lock lock(background_mutex);
    const std::uint64_t all = finished + finishing + unfinished.size();
    digests_changed.wait_until(lock, deadline, [&] { return stop || finished >= all; });
}

bool Engine::State::verify(Block& block) {
    if (!block.digested.load(std::memory_order_acquire)) return true;
    for (std::size_t i = 0; i < block.pages.size(); ++i) {
        const Page& page = block.pages[i];
        if (digest_part(pool->base() + page.offset, page.content) == page.digest) continue;
        ++counters.mismatches;
        if (index->erase(block)) ++counters.quarantined;
        base::log_error("engine", "a resident block of {} bytes lost its digest (page {}); it was dropped", block.footprint(),
                        i);
        return false;
    }
    return true;
}

// Nobody else writes digests of a block that is complete, and nobody reads them before `digested`.
void Engine::State::finish_digests(Block& block) const noexcept {
    if (block.digested.load(std::memory_order_acquire)) return;
    for (Page& page : block.pages) {
        if (page.has_digest) continue;
        page.digest = digest_part(pool->base() + page.offset, page.content);
        page.has_digest = true;
    }
    block.digested.store(true, std::memory_order_release);
}

// The first page of a block whose digests are to be computed.
void Engine::State::expect_digests(const Block& block) const noexcept {
    if (block.pages.empty() || block.digested.load(std::memory_order_relaxed)) return;
    engine::expect(pool->base() + block.pages[0].offset, block.pages[0].content);
}

void Engine::State::run_digests() {
    std::vector<BlockRef> batch;
    std::unique_lock lock(background_mutex);
    for (;;) {
        digest_wanted.wait_for(lock, std::chrono::seconds(1), [&] { return stop || !unfinished.empty(); });
        digest_heartbeat.beat();
        if (stop) return;
        for (std::uint64_t bytes = 0;
             !unfinished.empty() && bytes < engine::kDigestBytes && batch.size() < engine::kDigestBlocks;) {
            bytes += unfinished.front()->footprint();
            batch.push_back(std::move(unfinished.front()));
            unfinished.pop_front();
        }
        finishing = batch.size();
        lock.unlock();
        for (std::size_t i = 0; i < batch.size(); ++i) {
            if (i + engine::kDigestsAhead < batch.size()) expect_digests(*batch[i + engine::kDigestsAhead]);
            finish_digests(*batch[i]);
            if (tier) tier->offer(batch[i]);
            batch[i] = {};
        }
        lock.lock();
        finished += std::exchange(finishing, 0);
        batch.clear();
        digests_changed.notify_all();
    }
}

}  // namespace pegaflow
