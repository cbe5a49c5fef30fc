// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/pool.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.hpp"
#include "base/numa.hpp"
#include "base/thread.hpp"
#include "pegaflow/bytes.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kHugepage = std::uint64_t{2} << 20;
constexpr std::uint64_t kTouchShare = std::uint64_t{256} << 20;  // a thread a share, at most one a processor
constexpr std::uint64_t kTouchStep = std::uint64_t{64} << 20;    // between two looks at whether to stop
constexpr std::uint64_t kSmallPage = 4096;

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

std::string reason(const PoolOptions& options) {
    const char* advice = options.hugepages ? "; are enough huge pages set aside (vm.nr_hugepages)?" : "";
    return fmt::format("cannot map a pool of {}{}{}: {}{}", format_size(options.bytes), options.file.empty() ? "" : " in ",
                       options.file, std::strerror(errno), advice);
}

// Makes the system give memory to the range. False, with errno, when it has none: touching it would end the process.
bool touch(std::byte* from, std::uint64_t length) {
    if (::madvise(from, length, MADV_POPULATE_WRITE) == 0) return true;
    if (errno != EINVAL) return false;
    // A kernel that does not know it. A read-modify-write of nothing: a pool file that is attached again keeps its bytes.
    for (std::uint64_t at = 0; at < length; at += kSmallPage) {
        auto* byte = reinterpret_cast<volatile std::byte*>(from + at);
        *byte = *byte;
    }
    return true;
}

}  // namespace

Result<void> Pool::map(const PoolOptions& options) {
    int flags = options.file.empty() ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (!options.file.empty()) {
        fd_ = ::open(options.file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd_ < 0) return fail(Code::kNoMemory, reason(options), errno);
        // Two pools in one file would overwrite each other's blocks. The lock goes with the descriptor, however the process
        // ends.
        if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
            return fail(Code::kExists,
                        fmt::format("the pool file {} is in use: another process, or another engine of this one, has it open",
                                    options.file),
                        errno);
        }
        if (::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) return fail(Code::kNoMemory, reason(options), errno);
    } else if (options.hugepages) {
        flags |= MAP_HUGETLB;
    }
    void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, fd_, 0);
    if (memory == MAP_FAILED) return fail(Code::kNoMemory, reason(options), errno);
    base_ = static_cast<std::byte*>(memory);
    if (!options.hugepages) ::madvise(memory, bytes_, MADV_HUGEPAGE);
    return {};
}

void Pool::divide(const PoolOptions& options, std::uint64_t page) {
    std::vector<base::NumaNode> nodes = base::numa_nodes();
    if (!options.numa_affinity || bytes_ < nodes.size() * kHugepage) nodes.resize(1);
    nodes_ = nodes.size();
    const std::uint64_t share = bytes_ / nodes_ / page * page;
    const auto end_of = [&](std::size_t node) { return node + 1 == nodes_ ? bytes_ : (node + 1) * share; };
    const std::uint64_t wanted = options.slice_bytes == 0 ? bytes_ : options.slice_bytes;
    const std::uint64_t length = std::max(page, (wanted / nodes_ + page - 1) / page * page);
    for (std::uint64_t round = 0; round * length < end_of(nodes_ - 1) - (nodes_ - 1) * share; ++round) {
        for (std::size_t node = 0; node < nodes_; ++node) {
            const std::uint64_t offset = node * share + round * length;
            if (offset >= end_of(node)) continue;
            auto slice = std::make_unique<Slice>();
            slice->node = nodes[node].id;
            slice->offset = offset;
            slice->length = std::min(length, end_of(node) - offset);
            slices_.push_back(std::move(slice));
        }
    }
}

Result<void> Pool::prepare(std::size_t first, std::size_t end) {
    const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
    std::atomic<int> error{0};
    std::vector<std::thread> threads;
    for (std::size_t number = first; number < end; ++number) {
        const Slice& slice = *slices_[number];
        base::prefer_node(base_ + slice.offset, slice.length, slice.node);
        const std::uint64_t shares = (slice.length + kTouchShare - 1) / kTouchShare;
        const std::uint64_t workers =
            std::clamp<std::uint64_t>(shares, 1, std::max<std::size_t>(1, processors / (end - first)));
        const std::uint64_t share = (slice.length / workers + kHugepage) / kHugepage * kHugepage;
        for (std::uint64_t w = 0; w < workers; ++w) {
            const auto touch_share = [&, share, w] {
                const std::uint64_t limit = std::min(slice.length, (w + 1) * share);
                for (std::uint64_t at = w * share; at < limit && !stop_.load() && error.load() == 0; at += kTouchStep) {
                    if (!touch(base_ + slice.offset + at, std::min(kTouchStep, limit - at))) error.store(errno);
                }
            };
            auto thread = base::start_thread([&, touch_share] {
                if (nodes_ > 1) base::bind_thread_to_node(slice.node);
                touch_share();
            });
            if (thread) {
                threads.push_back(std::move(*thread));
            } else {
                touch_share();  // later, and perhaps from afar: prefer_node says where the memory is to be
            }
        }
    }
    for (std::thread& thread : threads) thread.join();
    if (stop_.load()) return fail(Code::kCanceled, "the pool is closing");
    if (error.load() != 0) {
        return fail(Code::kNoMemory,
                    fmt::format("the system has no memory for slice {} of {} of the pool: {}; make pool.size smaller, or free "
                                "memory or huge pages",
                                first + 1, slices_.size(), std::strerror(error.load())),
                    error.load());
    }
    for (std::size_t number = first; number < end; ++number) {
        slices_[number]->slab.add(slices_[number]->offset, slices_[number]->length);
        slices_[number]->ready.store(true, std::memory_order_release);
    }
    return {};
}

void Pool::prepare_rest(std::size_t first) {
    for (; first < slices_.size() && !stop_.load(); first += nodes_) {
        const auto prepared = prepare(first, std::min(first + nodes_, slices_.size()));
        if (prepared) continue;
        if (prepared.error().code != Code::kCanceled) {
            incomplete_.store(true, std::memory_order_relaxed);
            base::log_error("engine", "{}; the pool stays at {} of {}", prepared.error().message, format_size(ready_bytes()),
                            format_size(bytes_));
        }
        return;
    }
    base::log_info("engine", "all {} of the pool are ready", format_size(bytes_));
}

Result<std::unique_ptr<Pool>> Pool::create(const PoolOptions& options) {
    if (options.bytes < Slab::kGranule) {
        return fail(Code::kInvalid, fmt::format("a pool of {} is too small, expected at least {}", format_size(options.bytes),
                                                format_size(Slab::kGranule)));
    }
    std::unique_ptr<Pool> pool(new Pool());
    const std::uint64_t page = options.hugepages ? kHugepage : Slab::kGranule;
    pool->bytes_ = (options.bytes + page - 1) / page * page;
    PEGA_TRY(pool->map(options));
    pool->divide(options, page);
    const std::size_t first = std::min(pool->nodes_, pool->slices_.size());
    PEGA_TRY(pool->prepare(0, first));
    if (first < pool->slices_.size()) {
        PEGA_ASSIGN(pool->background_, base::start_thread([raw = pool.get(), first] { raw->prepare_rest(first); }));
    }
    return pool;
}

void Pool::close() {
    stop_.store(true);
    if (background_.joinable()) background_.join();
}

Pool::~Pool() {
    close();
    if (base_ != nullptr) ::munmap(base_, bytes_);
    if (fd_ >= 0) ::close(fd_);
}

std::uint64_t Pool::allocate(std::uint64_t bytes, int node) {
    std::uint64_t page = Slab::kNone;
    take(bytes, node, {}, {&page, 1});
    return page;
}

std::uint64_t Pool::allocate_many(std::uint64_t bytes, std::uint64_t count, int node, std::vector<std::uint64_t>& out,
                                  const Usable& usable) {
    const std::size_t before = out.size();
    out.resize(before + count);
    const std::uint64_t taken = take(bytes, node, usable, std::span(out).subspan(before));
    out.resize(before + taken);
    return taken;
}

std::uint64_t Pool::take(std::uint64_t bytes, int node, const Usable& usable, std::span<std::uint64_t> out) {
    std::uint64_t done = 0;
    for (const bool preferred : {true, false}) {
        for (std::size_t number = 0; number < slices_.size() && done < out.size(); ++number) {
            Slice& slice = *slices_[number];
            if ((slice.node == node) != preferred || !slice.ready.load(std::memory_order_acquire)) continue;
            if (usable == nullptr || usable(number)) done += slice.slab.allocate_many(bytes, out.subspan(done));
        }
    }
    return done;
}

std::size_t Pool::slice_of(std::uint64_t offset) const noexcept {
    const auto it = std::find_if(slices_.begin(), slices_.end(), [&](const auto& slice) {
        return offset >= slice->offset && offset - slice->offset < slice->length;
    });
    return static_cast<std::size_t>(it - slices_.begin());
}

void Pool::free_page(std::uint64_t offset, std::uint64_t bytes) noexcept {
    slices_[slice_of(offset)]->slab.free(offset, bytes);
}

std::uint64_t Pool::ready_bytes() const noexcept {
    std::uint64_t bytes = 0;
    for (const auto& slice : slices_) bytes += slice->ready.load(std::memory_order_acquire) ? slice->length : 0;
    return bytes;
}

std::uint64_t Pool::most_pages(std::uint64_t bytes) const noexcept {
    const bool all = !incomplete();
    std::uint64_t pages = 0;
    for (const auto& slice : slices_) pages += all || slice->ready.load(std::memory_order_acquire) ? slice->length / bytes : 0;
    return pages;
}

std::uint64_t Pool::used() const {
    std::uint64_t used = 0;
    for (const auto& slice : slices_) used += slice->slab.used();
    return used;
}

std::uint64_t Pool::largest_free() const {
    std::uint64_t largest = 0;
    for (const auto& slice : slices_) largest = std::max(largest, slice->slab.largest_free());
    return largest;
}

}  // namespace pegaflow::engine
