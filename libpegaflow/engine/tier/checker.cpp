// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/checker.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <tuple>

#include "base/thread.hpp"
#include "engine/tier/container.hpp"
#include "engine/tier/recovery.hpp"
#include "engine/tier/write_history.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::engine::tier {
namespace {

// That may lack their tables: one that is written, the next one, and those that extents under way go to.
constexpr std::size_t kNewest = kMostExtentsUnstored + 2;

std::string hex(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return out;
}

class Check {
public:
    Check(const Container& container, const CheckOptions& options, CheckReport& report)
        : container_(container), options_(options), report_(report) {}

    void run() {
        check_superblocks();
        const ReadBytes read = [this](std::uint64_t offset, std::span<std::byte> out) { return container_.read(offset, out); };
        scan_container(read, container_.superblock(), options_.threads, {.verify_open = false, .walk_sealed = true},
                       [this](FoundSegment found) { found_.push_back(std::move(found)); });
        WriteHistory history;
        for (const FoundSegment& segment : found_) {
            count(segment);
            history.add(segment);
        }
        report_.lifetime_written_bytes = history.lifetime_bytes();
        check_tables();
        count_blocks();
        if (options_.pages) check_pages();
    }

private:
    void check_superblocks() {
        std::vector<std::byte> first(kBlockBytes), copy(kBlockBytes);
        if (container_.read(0, first) && !decode_superblock(first))
            report_.problems.push_back("the superblock at 0: " + decode_superblock(first).error().message);
        if (container_.read(kSuperblockCopyAt, copy) && !decode_superblock(copy)) {
            report_.problems.push_back(fmt::format("the copy of the superblock at {}: {}", kSuperblockCopyAt,
                                                   decode_superblock(copy).error().message));
        }
    }

    void count(const FoundSegment& segment) {
        using Kind = FoundSegment::Kind;
        report_.empty_segments += segment.kind == Kind::kEmpty ? 1 : 0;
        report_.sealed_segments += segment.kind == Kind::kSealed ? 1 : 0;
        report_.open_segments += segment.kind == Kind::kOpen ? 1 : 0;
        report_.foreign_segments += segment.kind == Kind::kForeign ? 1 : 0;
        report_.problems.insert(report_.problems.end(), segment.problems.begin(), segment.problems.end());
        if (segment.kind == Kind::kEmpty || segment.kind == Kind::kForeign) return;
        report_.records += segment.records.size();
        for (const Record& record : segment.records) report_.record_bytes += record.bytes();
        report_.log_bytes += segment.data_end;
    }

    // A segment gets its table soon after it is full, and at the latest when the next server starts.
    void check_tables() {
        std::vector<const FoundSegment*> order;
        for (const FoundSegment& segment : found_) {
            if (segment.kind == FoundSegment::Kind::kSealed || segment.kind == FoundSegment::Kind::kOpen)
                order.push_back(&segment);
        }
        std::ranges::sort(order, std::greater(), [](const FoundSegment* segment) { return segment->header.sequence; });
        for (std::size_t i = kNewest; i < order.size(); ++i) {
            if (order[i]->kind == FoundSegment::Kind::kSealed) continue;
            report_.problems.push_back(
                fmt::format("segment {}: it has no table, though {} others were begun after it", order[i]->slot, i));
        }
    }

    // What a server would find: the newest record of each key.
    void count_blocks() {
        std::map<std::tuple<std::string_view, std::string_view, std::uint32_t, std::string_view>,
                 std::pair<std::uint64_t, const Record*>>
            newest;
        for (const FoundSegment& segment : found_) {
            for (const Record& r : segment.records) {
                auto& entry = newest[{r.name_space, r.fingerprint, r.group, r.hash}];
                if (entry.second == nullptr || entry.first < segment.header.sequence) entry = {segment.header.sequence, &r};
            }
        }
        for (const auto& [key, entry] : newest) {
            auto& scope = report_.scopes[{std::string(std::get<0>(key)), std::string(std::get<1>(key))}];
            ++scope.blocks;
            scope.bytes += entry.second->bytes();
            ++report_.blocks;
            report_.block_bytes += entry.second->bytes();
        }
    }

    void check_record(const FoundSegment& segment, const Record& record, std::vector<std::byte>& buffer) {
        std::uint64_t at = container_.superblock().segment_at(segment.slot) + record.offset;
        for (std::size_t i = 0; i < record.pages.size(); ++i) {
            buffer.resize(record.pages[i].bytes());
            const auto read = container_.read(at, buffer);
            const bool whole = read && digest_part(buffer.data(), record.pages[i].content) == record.pages[i].digest;
            const std::lock_guard lock(mutex_);
            ++report_.pages_read;
            if (!whole) {
                ++report_.wrong_pages;
                report_.problems.push_back(fmt::format("segment {}: block {} of group {}: page {} at {}: {}", segment.slot,
                                                       hex(record.hash), record.group, i, at,
                                                       read ? "does not have its digest" : read.error().message));
            }
            at += buffer.size();
        }
    }

    void check_pages() {
        std::atomic<std::size_t> next{0};
        const auto work = [&] {
            std::vector<std::byte> buffer;
            for (std::size_t i = next.fetch_add(1); i < found_.size(); i = next.fetch_add(1)) {
                for (const Record& record : found_[i].records) check_record(found_[i], record, buffer);
            }
        };
        std::vector<std::thread> threads;
        for (unsigned i = 1; i < options_.threads; ++i) {
            auto thread = base::start_thread(work);
            if (!thread) break;  // those that there are do it all
            threads.push_back(std::move(*thread));
        }
        work();
        for (std::thread& thread : threads) thread.join();
    }

    const Container& container_;
    const CheckOptions& options_;
    CheckReport& report_;  // its counts of pages and its problems are guarded by mutex_ while threads run
    std::mutex mutex_;
    std::vector<FoundSegment> found_;
};

}  // namespace

Result<CheckReport> check_container(const std::string& path, const CheckOptions& options) {
    const auto begin = std::chrono::steady_clock::now();
    PEGA_ASSIGN(const auto container, Container::open_read_only(path));
    CheckReport report;
    report.path = container->path();
    report.in_use = container->locked_by_other();
    report.version = kFormatVersion;
    report.segment_bytes = container->superblock().segment_bytes;
    report.capacity_bytes = container->superblock().segment_count * report.segment_bytes;
    Check(*container, options, report).run();
    std::sort(report.problems.begin(), report.problems.end());
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
}

}  // namespace pegaflow::engine::tier
