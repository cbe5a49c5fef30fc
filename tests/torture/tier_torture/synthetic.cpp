// SPDX-License-Identifier: Apache-2.0
// Containers as a start finds them, as large as one likes: headers and tables are all that it reads of full segments.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <span>

#include "engine/tier/container.hpp"
#include "engine/tier/extent_builder.hpp"
#include "engine/tier/recovery.hpp"
#include "tests/torture/tier_torture/verbs.hpp"

namespace pegaflow::torture {

namespace {

// The container's file, beside whoever else has it open; no page of it stays in the page cache.
class File {
public:
    explicit File(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
    ~File() {
        if (fd_ < 0) return;
        ::fsync(fd_);
        ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
        ::close(fd_);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    Result<void> write(std::span<const std::byte> bytes, std::uint64_t at) const {
        if (::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(bytes.size())) return {};
        return fail(Code::kNoMemory, fmt::format("{} bytes cannot be written at {}", bytes.size(), at), errno);
    }

private:
    int fd_;
};

}  // namespace

Result<void> synthesize(const std::string& dir, std::uint64_t gib, std::uint64_t block_kib) {
    using namespace engine::tier;
    constexpr std::uint64_t kSegment = 64 << 20;
    PEGA_ASSIGN(auto container, Container::open(dir, (gib << 30) * 103 / 100 + kSegment * 8, kSegment));
    const Superblock super = container->superblock();
    const File file(container->path());
    std::vector<std::byte> memory(4 << 20);
    std::uint64_t blocks = 0;
    const std::uint64_t wanted = (gib << 30) / (block_kib << 10);
    const std::string fingerprint(32, 'f');
    for (std::uint64_t slot = 0; slot < super.segment_count && blocks < wanted; ++slot) {
        encode(SegmentHeader{super.container, slot + 1, slot, 0, 0}, std::span(memory).first(kBlockBytes));
        const auto header = std::span(memory).first(kBlockBytes);
        const std::uint32_t chain = closing_digest(header);
        PEGA_TRY(file.write(header, super.segment_at(slot)));
        ExtentBuilder builder({kSegment, 4 << 20, 1 << 20, 3 << 20}, slot + 1, chain);
        std::vector<Record> all;
        std::vector<std::string> names;
        names.reserve(kSegment / (block_kib << 10) + 1);
        for (bool full = false; !full && blocks < wanted;) {
            for (;;) {
                names.push_back(hash_of(1, blocks));
                Record record{"torture", fingerprint, 0, names.back(), 0, {{static_cast<std::uint32_t>(block_kib << 10), 7}}};
                if (!builder.fits(record)) break;
                builder.add(std::move(record));
                ++blocks;
            }
            full = builder.empty();
            if (full) break;
            auto extent = builder.finish(memory);
            all.insert(all.end(), extent.records.begin(), extent.records.end());
        }
        const std::uint64_t used = builder.close(all, memory);
        PEGA_TRY(file.write(std::span(memory).first(used), super.segment_at(slot) + kSegment - used));
    }
    if (blocks < wanted) return fail(Code::kNoMemory, fmt::format("there is room for {} of {} blocks", blocks, wanted));
    std::cout << fmt::format("{} blocks of {} KiB in {} segments\n", blocks, block_kib, super.segment_count);
    return {};
}

Result<void> recover(const std::string& dir) {
    PEGA_ASSIGN(const auto container, engine::tier::Container::open_read_only(dir));
    const std::uint64_t capacity = container->superblock().total_bytes();
    {
        const File forgotten(container->path());
    }
    PEGA_ASSIGN(const auto fabric, Fabric::open({.backends = {"host", "nvme"}}));
    EngineOptions options;
    options.pool_bytes = kPoolBytes;
    options.tier.paths = {dir};
    options.tier.capacity_bytes = capacity;
    options.tier.segment_bytes = container->superblock().segment_bytes;
    PEGA_ASSIGN(const auto engine, Engine::create(options, *fabric));
    const auto devices = engine->tier_devices();
    if (devices.size() != 1 || devices[0].state != "ok")
        return fail(Code::kRegionLost, devices.empty() ? "there is no tier" : devices[0].problem);
    std::cout << fmt::format("{} blocks ({} bytes) found in {:.3f} s\n", devices[0].recovered_blocks, devices[0].live_bytes,
                             devices[0].recovery_seconds);
    return {};
}

}  // namespace pegaflow::torture
