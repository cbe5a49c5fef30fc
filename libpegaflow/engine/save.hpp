// SPDX-License-Identifier: Apache-2.0
// save.hpp - a save under way: what it copies, in which batches. save_claims.cpp decides that, save.cpp starts and ends it.
#pragma once

#include <atomic>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/state.hpp"

namespace pegaflow::engine {

// Layers of one request that were given the same blocks: they are claimed and copied together.
struct SaveList {
    std::uint32_t group = 0;
    std::uint32_t shard = 0;
    std::span<const std::uint32_t> block_ids;
    std::span<const std::string_view> hashes;
    std::vector<const WorkerLayer*> layers;
    std::vector<std::uint32_t> numbers;  // of the layers, in the shard
};

// Blocks of a list whose claims cover the same layers and whose pages lie in one slice of the pool: one batch.
struct SavePart {
    void reserve(std::size_t blocks) {
        claims.reserve(blocks);
        local_index.reserve(blocks);
        remote_index.reserve(blocks);
    }

    const SaveList* list = nullptr;
    std::size_t slice = 0;  // of the pool
    std::vector<FillClaim> claims;
    std::vector<std::uint64_t> local_index, remote_index;
    Transfer transfer;
    const Shard* digested = nullptr;  // the copy is asked for digests: it fills whole pages of this shard
};

class SaveOperation final : public Operation {
public:
    SaveOperation(Engine::State& s, std::shared_ptr<Instance> owner, Worker& w, base::Gate::Pass engine_pass,
                  base::Gate::Pass worker_pass, Clock::time_point when, std::function<void(Result<SaveOutcome>)> callback)
        : Operation(std::move(owner), when),
          state(s),
          worker(w),
          passes{std::move(engine_pass), std::move(worker_pass)},
          done(std::move(callback)) {}

    void cancel() override {
        for (const auto& part : parts) worker.saves().cancel(part->transfer);
    }
    void part_done(SavePart& part, pega_status status, std::uint64_t bytes);
    // One of `remaining` is over; the last one ends the operation.
    void release_share();

    Engine::State& state;
    Worker& worker;
    base::Gate::Pass passes[2];
    std::function<void(Result<SaveOutcome>)> done;
    const Clock::time_point started = Clock::now();
    std::vector<SaveList> lists;
    std::vector<std::unique_ptr<SavePart>> parts;
    std::atomic<std::size_t> remaining{1};  // parts, and the submitter itself
    std::atomic<pega_status> failure{PEGA_OK};
    SaveOutcome outcome;
    std::atomic<std::uint64_t> bytes{0};
    std::uint64_t id = 0;

private:
    void seal(SavePart& part);
    std::uint64_t whole_digest(const SavePart& part, std::size_t number, std::uint64_t copied) const noexcept;
    void finish();
};

// The lists of a request whose worker is `worker`, layers with the same blocks together. kInvalid with what is wrong. [any]
Result<std::vector<SaveList>> make_save_lists(const Instance& instance, const Worker& worker, const SaveRequest& request);
// Claims what nobody has of the operation's lists, and makes its parts; what was claimed before an error stays in them.
// kNoMemory when there are no pages for it, kDeadlineExceeded, kInvalid. [any]
Result<void> claim_lists(SaveOperation& op, const Instance& instance);

}  // namespace pegaflow::engine
