// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/replay_tier.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "engine/block/index.hpp"
#include "engine/tier/catalog.hpp"
#include "engine/tier/tier.hpp"
#include "engine/tier/write_queue.hpp"
#include "engine/tier/writer.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::cli {
namespace {

using namespace engine;
using engine::tier::DataIo;

constexpr std::uint64_t kScope = 1;

// All pages are one page of zeros: only sizes and order matter here.
class Host final : public TierHost, public PageOwner {
public:
    Host(BlockIndex*& index, std::uint64_t block_bytes)
        : index_(index), zeros_(block_bytes), digest_(digest_part(zeros_.data(), zeros_.size())) {}
    BlockRef resident(const BlockKey& key) override { return index_->peek(key.scope, key.group, key.hash()); }
    BlockRef make_block(const BlockKey& key, std::span<const std::uint64_t>, Wait) override {
        BlockRef block(new Block(key, table_hash(key.scope, key.group, key.hash()), *this));
        block->pages.push_back({0, zeros_.size(), zeros_.size(), digest_, true});
        return block;
    }
    const std::byte* pool_base() const override { return zeros_.data(); }
    void free_page(std::uint64_t, std::uint64_t) noexcept override {}
    BlockRef sealed(const BlockKey& key) {
        BlockRef block = make_block(key, {}, Wait::kNo);
        block->digested = true;
        return block;
    }

private:
    BlockIndex*& index_;
    std::vector<std::byte> zeros_;
    std::uint64_t digest_;
};

class CountingDevice final : public DataIo {
public:
    void submit(Op, Memory, std::span<const Piece>, Ended ended) override { ended({}); }
    std::span<std::byte> staging() override { return staging_; }
    void flush(Ended ended) override { ended({}); }
    Result<void> reserve(std::uint64_t, std::uint64_t) override { return {}; }
    Result<void> discard(std::uint64_t, std::uint64_t) override { return {}; }

private:
    std::vector<std::byte> staging_ = std::vector<std::byte>(tier::Writer::staging_bytes({}));
};

class Replay {
public:
    Replay(const TierReplayOptions& options, const EvictionFactory& eviction, AdmissionPolicy& admission)
        : options_(options), host_(index_pointer_, options.block_bytes), index_(eviction, admission, host_) {
        index_pointer_ = &index_;
        scopes_.number_of("trace", "layout");
        super_.segment_bytes = options.segment_bytes;
        super_.segment_count = std::max<std::uint64_t>(4, options.ssd_blocks * options.block_bytes / options.segment_bytes);
        catalog_.add_container(super_);
        writer_ =
            std::make_unique<tier::Writer>(tier::Writer::Parts{device_, catalog_, scopes_, queue_, host_, counters_, nullptr},
                                           super_, 0, tier::WriterOptions{}, std::span<const tier::FoundSegment>(), 0);
    }
    ~Replay() {
        queue_.stop();
        writer_.reset();
    }

    void request(const std::vector<std::string_view>& hashes) {
        std::vector<BlockRef> held;
        index_.lookup_prefix(kScope, 0, hashes, held);
        out_.memory_hits += held.size();
        std::size_t i = held.size();
        for (; i < hashes.size(); ++i) {
            const BlockKey key(kScope, 0, hashes[i]);
            if (BlockRef here = host_.resident(key)) {
                ++out_.memory_hits;
                held.push_back(std::move(here));
                continue;
            }
            const auto location = catalog_.pin(key);
            if (!location) break;
            catalog_.unpin(location);
            ++out_.ssd_hits;
            held.push_back(keep(key));
        }
        held.clear();
        for (; i < hashes.size(); ++i) {
            const BlockKey key(kScope, 0, hashes[i]);
            if (host_.resident(key)) continue;
            BlockRef block = keep(key);
            if (!catalog_.contains(key)) queue_.push(std::move(block));
        }
        queue_.wait_empty(std::chrono::steady_clock::time_point::max());
    }

    TierReplay outcome() {
        const tier::Counters& c = counters_;
        out_.stored_blocks = c.stored_blocks;
        out_.rewritten_blocks = c.rewritten_blocks;
        out_.evicted_blocks = c.evicted_blocks;
        out_.evicted_segments = c.evicted_segments;
        out_.segments = super_.segment_count;
        out_.block_bytes = c.block_bytes;
        out_.rewritten_bytes = c.rewritten_bytes;
        out_.table_bytes = c.table_bytes;
        return out_;
    }

private:
    // Makes the block resident and gives others up for it.
    BlockRef keep(const BlockKey& key) {
        BlockRef block = host_.sealed(key);
        bool admitted = false;
        index_.insert_resident(block, &admitted, true);
        while (index_.resident() > options_.memory_blocks && index_.evict_one()) {
        }
        return block;
    }

    const TierReplayOptions options_;
    BlockIndex* index_pointer_ = nullptr;
    Host host_;
    BlockIndex index_;
    ScopeTable scopes_;
    tier::Superblock super_;
    tier::Catalog catalog_{scopes_};
    tier::WriteQueue queue_{UINT64_MAX / 2};
    tier::Counters counters_;
    CountingDevice device_;
    std::unique_ptr<tier::Writer> writer_;
    TierReplay out_;
};

}  // namespace

Result<TierReplay> replay_tier(const std::vector<std::vector<std::uint32_t>>& requests,
                               const std::function<std::string(std::uint32_t)>& hash, const TierReplayOptions& options) {
    if (options.memory_blocks == 0 || options.ssd_blocks == 0)
        return fail(Code::kInvalid, "a replay with an SSD needs room for at least one block on each tier");
    PEGA_ASSIGN(const auto eviction, make_eviction_policy("lru", options.memory_blocks));
    PEGA_ASSIGN(const auto admission, make_admission_policy("none"));
    Replay replay(options, eviction, *admission);
    for (const auto& request : requests) {
        std::vector<std::string> hashes;
        for (const std::uint32_t number : request) hashes.push_back(hash(number));
        replay.request({hashes.begin(), hashes.end()});
    }
    return replay.outcome();
}

}  // namespace pegaflow::cli
