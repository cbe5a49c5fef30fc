// SPDX-License-Identifier: Apache-2.0
#include "engine/tier/recovery.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/crc32c.hpp"
#include "base/thread.hpp"
#include "pegaflow/digest.hpp"

namespace pegaflow::engine::tier {
namespace {

constexpr std::uint64_t kTailBytes = std::uint64_t{64} << 10;  // trailer and, most often, the table before it
constexpr std::uint64_t kLookBytes = std::uint64_t{1} << 20;

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
        if (found_.kind == FoundSegment::Kind::kForeign || (sealed && !options_.walk_sealed)) return std::move(found_);
        std::vector<Record> by_table = std::move(found_.records);
        const std::uint64_t table_end = found_.data_end;
        const std::uint32_t extents = found_.extents;
        found_.records.clear();
        PEGA_TRY(walk(sealed));
        if (sealed && found_.kind == FoundSegment::Kind::kSealed) {
            if (found_.data_end != table_end || found_.extents != extents)
                problem("its {} extents end at {}, its trailer says {} and {}", found_.extents, found_.data_end, extents,
                        table_end);
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
    std::uint64_t log_end() const { return superblock_.segment_bytes - kBlockBytes; }
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

    void leave_alone() {
        found_.kind = FoundSegment::Kind::kForeign;
        found_.records.clear();
    }

    // True when the segment was sealed and its table is whole.
    Result<bool> read_table() {
        const std::uint64_t size = superblock_.segment_bytes;
        std::vector<std::byte> tail(std::min(kTailBytes, size));
        PEGA_TRY(read(size - tail.size(), tail));
        auto trailer = decode_segment_trailer(std::span(tail).last(kBlockBytes));
        if (!trailer) {
            if (trailer.error().code != Code::kNotFound) problem("{}", trailer.error().message);
            if (trailer.error().code == Code::kUnsupported) leave_alone();
            return false;
        }
        if (trailer->sequence != found_.header.sequence) return false;  // of an earlier use of the segment
        const SegmentTrailer& t = *trailer;
        const bool sane = t.table_at >= t.data_end && t.data_end >= kBlockBytes && t.table_at % kBlockBytes == 0 &&
                          t.table_at <= size - kBlockBytes && t.table_bytes <= size - kBlockBytes - t.table_at &&
                          t.table_bytes <= kMaxTableBytes;
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
        found_.closing_bytes = size - t.table_at;
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
        // Behind its end a sealed segment may have extents that were given up.
        const std::uint64_t end = sealed ? found_.data_end : log_end();
        while (at + kBlockBytes <= end) {
            PEGA_TRY(read(at, start));
            const ExtentHeader next{0, found_.header.sequence, number, chain, 0, 0};
            auto header = decode_extent_header(start, log_end() - at);
            if (!header || !is_extent(*header, next)) {
                PEGA_TRY(judge_end(at, start, next, sealed && at < found_.data_end));
                if (found_.kind == FoundSegment::Kind::kForeign) return {};
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

    static bool is_extent(const ExtentHeader& header, const ExtentHeader& expected) {
        return header.sequence == expected.sequence && header.number == expected.number && header.chain == expected.chain;
    }

    // The log ends here, where `expected` would go on: nothing there, or a leftover, is as it should be. A damaged extent is
    // not, nor one of another version; inside a sealed segment, nothing is.
    Result<void> judge_end(std::uint64_t at, std::span<const std::byte> start, const ExtentHeader& expected, bool inside) {
        const auto header = decode_extent_header(start, log_end() - at);
        if (!header && header.error().code == Code::kUnsupported) {
            PEGA_ASSIGN(const bool flipped, is_ours_with_other_version(at, start, expected));
            if (!flipped) {
                problem("at {}: {}", at, header.error().message);
                leave_alone();
                return {};
            }
            found_.damaged = true;
        } else if (almost_extent(start, expected)) {
            found_.damaged = true;
        }
        if (found_.damaged || inside) problem("the extent at {} is damaged", at);
        if (found_.damaged || inside || !options_.walk_sealed) return {};
        return look_behind(at, expected);
    }

    // Whether it is the next extent once its version is what this program writes: bits of the number have changed.
    Result<bool> is_ours_with_other_version(std::uint64_t at, std::span<const std::byte> start, const ExtentHeader& expected) {
        std::vector<std::byte> descriptor(start.begin(), start.end());
        set_known_version(descriptor);
        const auto header = decode_extent_header(descriptor, log_end() - at);
        if (!header || !is_extent(*header, expected)) return false;
        descriptor.resize(header->descriptor_bytes);
        PEGA_TRY(read(at, descriptor));
        set_known_version(descriptor);
        return decode_extent(*header, descriptor, at).has_value();
    }

    // As long as a segment is written, some extents of it may be there without the one before them, but not many: then that one
    // was stored once.
    Result<void> look_behind(std::uint64_t at, const ExtentHeader& expected) {
        std::vector<std::byte> bytes(kLookBytes);
        for (std::uint64_t from = at; from < log_end(); from += bytes.size()) {
            bytes.resize(std::min<std::uint64_t>(bytes.size(), log_end() - from));
            PEGA_TRY(read(from, bytes));
            for (std::uint64_t i = 0; i < bytes.size(); i += kBlockBytes) {
                const auto header = decode_extent_header(std::span(bytes).subspan(i, kBlockBytes), log_end() - from - i);
                if (!header || header->sequence != expected.sequence || header->number <= expected.number) continue;
                PEGA_ASSIGN(const std::uint32_t behind, chained_from(from + i, *header));
                if (behind < kMostExtentsUnstored) continue;
                found_.damaged = true;
                problem("the extent at {} is damaged: behind it {} follow each other", at, behind);
                return {};
            }
        }
        return {};
    }

    // How many extents follow each other from here, as far as it matters.
    Result<std::uint32_t> chained_from(std::uint64_t at, ExtentHeader header) const {
        std::vector<std::byte> descriptor;
        for (std::uint32_t count = 0;; ++count) {
            descriptor.resize(header.descriptor_bytes);
            PEGA_TRY(read(at, descriptor));
            if (count == kMostExtentsUnstored || !decode_extent(header, descriptor, at)) return count;
            const ExtentHeader next{0, header.sequence, header.number + 1, closing_digest(descriptor), 0, 0};
            at += header.descriptor_bytes + header.payload_bytes;
            if (at + kBlockBytes > log_end()) return count + 1;
            descriptor.resize(kBlockBytes);
            PEGA_TRY(read(at, descriptor));
            const auto there = decode_extent_header(descriptor, log_end() - at);
            if (!there || !is_extent(*there, next)) return count + 1;
            header = *there;
        }
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
            if (!found) found = scan_segment(read, superblock, slot, options);
            if (!found) {
                FoundSegment unreadable;
                unreadable.kind = FoundSegment::Kind::kForeign;
                unreadable.slot = slot;
                unreadable.unreadable = true;
                unreadable.problems.push_back(fmt::format("segment {}: {}", slot, found.error().message));
                found = std::move(unreadable);
            }
            const std::lock_guard lock(visiting);
            visit(std::move(*found));
        }
    };
    std::vector<std::thread> pool;
    for (unsigned i = 1; i < threads; ++i) {
        auto thread = base::start_thread(work);
        if (!thread) break;  // those that there are do it all
        pool.push_back(std::move(*thread));
    }
    work();
    for (std::thread& thread : pool) thread.join();
}

}  // namespace pegaflow::engine::tier
