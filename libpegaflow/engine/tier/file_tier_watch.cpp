// SPDX-License-Identifier: Apache-2.0
// A file tier's devices when they fail, hang, or are let go: what is not used for a while, and how the tier ends.
#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "base/log.hpp"
#include "engine/tier/file_tier.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint32_t kFailuresUntilOffline = 8;
constexpr auto kOfflineTime = std::chrono::seconds(5);
constexpr auto kCloseStep = std::chrono::milliseconds(1);
constexpr auto kFlushStep = std::chrono::milliseconds(20);

}  // namespace

void FileTier::read_ended(Store& store, std::uint64_t bytes, Clock::time_point begun, const Result<void>& result) {
    const auto now = Clock::now();
    const std::lock_guard lock(mutex_);
    if (result) {
        cost_.ended(bytes, begun, now);
        store.failures_in_a_row = 0;
        return;
    }
    cost_.failed(begun, now);
    ++counters_.read_failures;
    if (++store.failures_in_a_row < kFailuresUntilOffline || !store.read_problem.empty()) return;
    store.read_problem = result.error().message;
    store.try_again = now + kOfflineTime;
    catalog_.set_readable(store.number, false);
    base::log_error("tier", "{}: {} reads in a row failed ({}); its blocks are misses until it answers again", store.info.path,
                    store.failures_in_a_row, store.read_problem);
}

void FileTier::tick(Clock::time_point now) {
    for (const auto& store : stores_) {
        if (store->io) end_late(*store, now);
    }
    {
        const std::lock_guard lock(mutex_);
        for (const auto& store : stores_) {
            if (store->read_problem.empty() || now < store->try_again) continue;
            store->read_problem.clear();
            store->failures_in_a_row = kFailuresUntilOffline - 1;  // one more failure, and it is offline again
            catalog_.set_readable(store->number, store->late_problem.empty());
        }
    }
    // What no writer will take must not stay pinned.
    if (!writable()) {
        while (shed()) {
        }
    }
}

// What takes too long is cancelled. As long as something has not ended all the same, nothing more is given to the device.
void FileTier::end_late(Store& store, Clock::time_point now) {
    const std::size_t late = store.io->expire(now);
    {
        const std::lock_guard lock(mutex_);
        if ((late == 0) == store.late_problem.empty()) return;
        store.late_problem = late == 0
                                 ? ""
                                 : fmt::format("{} of what the device was asked for took longer than {} s and has not ended",
                                               late, std::chrono::duration<double>(options_.io_time).count());
        catalog_.set_readable(store.number, late == 0 && store.read_problem.empty());
        store.writer->set_late(late != 0);  // within the lock: several look at the same time
    }
    if (late == 0) {
        base::log_info("tier", "{}: everything has ended; it is used again", store.info.path);
    } else {
        base::log_error("tier", "{}: {} transfers have not ended in time; it is not used until they do", store.info.path, late);
    }
}

void FileTier::cancel_reads() {
    for (const auto& store : stores_) {
        if (store->io) store->io->cancel_reads();
    }
}

Result<void> FileTier::flush(Clock::time_point deadline) {
    for (;;) {
        tick(Clock::now());  // at the end of the engine nobody else does
        offer_deferred();
        const bool empty = queue_.wait_empty(std::min(deadline, Clock::now() + kFlushStep));
        const std::lock_guard lock(deferred_mutex_);
        if (empty && deferred_.empty()) return {};
        if (Clock::now() < deadline) continue;
        return fail(Code::kDeadlineExceeded,
                    fmt::format("{} blocks still wait to be stored", queue_.blocks() + deferred_.size()));
    }
}

bool FileTier::over(const Store& store) { return (!store.writer || store.writer->ended()) && (!store.io || store.io->idle()); }

bool FileTier::close(Clock::time_point deadline) {
    if (std::exchange(closed_, true)) return all_over_;
    [[maybe_unused]] const auto flushed = flush(std::max(deadline, Clock::now()));
    queue_.stop();
    for (const auto& store : stores_) {
        if (store->writer) store->writer->request_stop(deadline);
    }
    const auto patience = give_up_time(options_.io_time);
    const bool for_ever = deadline > Clock::time_point::max() - patience;
    const auto limit = for_ever ? deadline : std::max(deadline, Clock::now()) + patience;
    const auto all_over = [this] { return std::ranges::all_of(stores_, [](const auto& store) { return over(*store); }); };
    while (!all_over() && Clock::now() < limit) {
        const auto now = Clock::now();
        for (const auto& store : stores_) {
            if (!store->io) continue;
            end_late(*store, now);  // nobody else does any more
            if (now >= deadline) store->io->expire(now, true);
        }
        std::this_thread::sleep_for(kCloseStep);
    }
    while (shed()) {
    }
    all_over_ = true;
    for (const auto& store : stores_) {
        if (over(*store)) {
            store->io.reset();
            store->container.reset();
            continue;
        }
        all_over_ = false;
        if (store->writer) store->writer->let_go();
        base::log_error("tier", "{}: transfers that were cancelled have not ended", store->info.path);
    }
    return all_over_;
}

}  // namespace pegaflow::engine::tier
