// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/recovery.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/crc32c.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint64_t kTailBytes = std::uint64_t{64} << 10;  // trailer and, most often, the table before it

class SegmentScan {
public:
    SegmentScan(const ReadBytes& read, const Superblock& superblock, std::uint64_t slot, const ScanOptions& options)
        : read_(read), superblock_(superblock), base_(superblock.segment_at(slot)), options_(options) {
        found_.slot = slot;
    }

    Result<FoundSegment> run() {
        PEGA_TRY(read_header());
        if (found_.kind != FoundSegment::Kind::kOpen) return std::move(found_);
        PEGA_ASSIGN(const bool sealed, read_table());
        if (sealed && !options_.walk_sealed) return std::move(found_);
        std::vector<Record> by_table = std::move(found_.records);
        const std::uint64_t table_end = found_.data_end;
        found_.records.clear();
        PEGA_TRY(walk(sealed));
        if (sealed) {
            if (found_.data_end != table_end) problem("its extents end at {}, its trailer says {}", found_.data_end, table_end);
            found_.data_end = table_end;
            found_.records = std::move(by_table);
        }
        return std::move(found_);
    }

private:
    template <class... Args>
    void problem(fmt::format_string<Args...> format, Args&&... args) {
        found_.problems.push_back(
            fmt::format("segment {} at {}: {}", found_.slot, base_, fmt::format(format, std::forward<Args>(args)...)));
    }
    Result<void> read(std::uint64_t offset, std::span<std::byte> out) const { return read_(base_ + offset, out); }
    std::vector<std::byte>& keep(std::size_t bytes) {
        found_.text.push_back(std::make_unique<std::vector<std::byte>>(bytes));
        return *found_.text.back();
    }

    Result<void> read_header() {
        std::vector<std::byte> block(kBlockBytes);
        PEGA_TRY(read(0, block));
        auto header = decode_segment_header(block);
        if (!header) {
            const bool blank = std::all_of(block.begin(), block.end(), [](std::byte b) { return b == std::byte{0}; });
            if (header.error().code == Code::kUnsupported) found_.kind = FoundSegment::Kind::kForeign;
            if (!blank) problem("{}", header.error().message);
            return {};
        }
        if (header->container != superblock_.container || header->slot != found_.slot) {
            problem("its header belongs to segment {} of {} container", header->slot,
                    header->container == superblock_.container ? "this" : "another");
            return {};
        }
        found_.kind = FoundSegment::Kind::kOpen;
        found_.header = *header;
        found_.data_end = kBlockBytes;
        found_.chain = closing_digest(block);
        return {};
    }

    // True when the segment was sealed and its table is whole.
    Result<bool> read_table() {
        const std::uint64_t size = superblock_.segment_bytes;
        std::vector<std::byte> tail(std::min(kTailBytes, size));
        PEGA_TRY(read(size - tail.size(), tail));
        auto trailer = decode_segment_trailer(std::span(tail).last(kBlockBytes));
        if (!trailer) {
            if (trailer.error().code != Code::kNotFound) problem("{}", trailer.error().message);
            return false;
        }
        if (trailer->sequence != found_.header.sequence) return false;  // of an earlier use of the segment
        const SegmentTrailer& t = *trailer;
        const bool sane = t.table_at >= t.data_end && t.data_end >= kBlockBytes && t.table_at % kBlockBytes == 0 &&
                          t.table_at <= size - kBlockBytes && t.table_bytes <= size - kBlockBytes - t.table_at;
        if (!sane) {
            problem("its trailer has impossible numbers");
            return false;
        }
        std::vector<std::byte>& table = keep(t.table_bytes);
        if (t.table_at >= size - tail.size()) {
            const auto from = tail.begin() + static_cast<std::ptrdiff_t>(t.table_at - (size - tail.size()));
            std::copy_n(from, t.table_bytes, table.begin());
        } else {
            PEGA_TRY(read(t.table_at, table));
        }
        if (base::crc32c(table.data(), table.size()) != t.table_digest) {
            problem("the checksum of its table does not fit; its extents are read instead");
            return false;
        }
        auto records = decode_table(table, kBlockBytes, t.data_end);
        if (!records) {
            problem("{}", records.error().message);
            return false;
        }
        found_.kind = FoundSegment::Kind::kSealed;
        found_.records = std::move(*records);
        found_.data_end = t.data_end;
        found_.extents = t.extents;
        found_.chain = t.chain;
        return true;
    }

    // From extent to extent, as long as they follow each other.
    Result<void> walk(bool sealed) {
        std::vector<std::byte> start(kBlockBytes);
        std::vector<std::byte> first(kBlockBytes);
        PEGA_TRY(read(0, first));
        std::uint32_t chain = closing_digest(first);
        std::uint64_t at = kBlockBytes;
        std::uint32_t number = 0;
        const std::uint64_t end = superblock_.segment_bytes - kBlockBytes;
        while (at + kBlockBytes <= end) {
            PEGA_TRY(read(at, start));
            auto header = decode_extent_header(start, end - at);
            if (!header || header->sequence != found_.header.sequence || header->number != number || header->chain != chain) {
                // Nothing there, or a leftover, is where the log ends; a damaged one inside a sealed segment is not.
                if (sealed && at < found_.data_end) problem("the extent at {} is damaged", at);
                break;
            }
            std::vector<std::byte>& descriptor = keep(header->descriptor_bytes);
            PEGA_TRY(read(at, descriptor));
            auto records = decode_extent(*header, descriptor, at);
            if (!records) {
                problem("the extent at {}: {}", at, records.error().message);
                break;
            }
            if (!sealed) PEGA_TRY(take(*records));
            chain = closing_digest(descriptor);
            at += header->descriptor_bytes + header->payload_bytes;
            ++number;
        }
        found_.data_end = at;
        found_.extents = number;
        found_.chain = chain;
        return {};
    }

    Result<void> take(std::vector<Record>& records) {
        std::vector<std::byte> page;
        for (Record& record : records) {
            bool whole = true;
            std::uint64_t at = record.offset;
            for (const StoredPage& stored : record.pages) {
                if (!options_.verify_open) break;
                page.resize(stored.bytes());
                PEGA_TRY(read(at, page));
                whole = whole && digest_part(page.data(), stored.content) == stored.digest;
                at += stored.bytes();
            }
            if (whole) {
                found_.records.push_back(std::move(record));
            } else {
                ++found_.dropped_records;
            }
        }
        return {};
    }

    const ReadBytes& read_;
    const Superblock& superblock_;
    const std::uint64_t base_;
    const ScanOptions& options_;
    FoundSegment found_;
};

}  // namespace

Result<FoundSegment> scan_segment(const ReadBytes& read, const Superblock& superblock, std::uint64_t slot,
                                  const ScanOptions& options) {
    return SegmentScan(read, superblock, slot, options).run();
}

void scan_container(const ReadBytes& read, const Superblock& superblock, unsigned threads, const ScanOptions& options,
                    const std::function<void(FoundSegment)>& visit) {
    std::atomic<std::uint64_t> next{0};
    std::mutex visiting;
    const auto work = [&] {
        for (std::uint64_t slot = next.fetch_add(1); slot < superblock.segment_count; slot = next.fetch_add(1)) {
            auto found = scan_segment(read, superblock, slot, options);
            if (!found) {
                FoundSegment unreadable;
                unreadable.kind = FoundSegment::Kind::kForeign;
                unreadable.slot = slot;
                unreadable.problems.push_back(fmt::format("segment {}: {}", slot, found.error().message));
                found = std::move(unreadable);
            }
            const std::lock_guard lock(visiting);
            visit(std::move(*found));
        }
    };
    std::vector<std::thread> pool;
    for (unsigned i = 1; i < threads; ++i) pool.emplace_back(work);
    work();
    for (std::thread& thread : pool) thread.join();
}

}  // namespace pegaflow::engine::tier
