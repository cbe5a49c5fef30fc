// SPDX-License-Identifier: Apache-2.0
#include "engine/pool/pool.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "base/numa.hpp"
#include "pegaflow/bytes.hpp"

namespace pegaflow::engine {
namespace {

constexpr std::uint64_t kHugepage = std::uint64_t{2} << 20;
constexpr std::uint64_t kTouchSlice = std::uint64_t{256} << 20;  // a thread a slice, at most one a processor
constexpr std::uint64_t kSmallPage = 4096;

std::string reason(const PoolOptions& options) {
    const char* advice = options.hugepages ? "; are enough huge pages set aside (vm.nr_hugepages)?" : "";
    return fmt::format("cannot map a pool of {}{}{}: {}{}", format_size(options.bytes), options.file.empty() ? "" : " in ",
                       options.file, std::strerror(errno), advice);
}

}  // namespace

Result<void> Pool::map(const PoolOptions& options) {
    int flags = options.file.empty() ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    if (!options.file.empty()) {
        fd_ = ::open(options.file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) return fail(Code::kNoMemory, reason(options), errno);
    } else if (options.hugepages) {
        flags |= MAP_HUGETLB;
    }
    void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, fd_, 0);
    if (memory == MAP_FAILED) return fail(Code::kNoMemory, reason(options), errno);
    base_ = static_cast<std::byte*>(memory);
    if (!options.hugepages) ::madvise(memory, bytes_, MADV_HUGEPAGE);
    return {};
}

void Pool::touch() {
    std::vector<std::thread> threads;
    const std::size_t processors = std::max(1U, std::thread::hardware_concurrency());
    for (const Arena& arena : arenas_) {
        base::prefer_node(base_ + arena.offset, arena.length, arena.node);
        const std::uint64_t slices = (arena.length + kTouchSlice - 1) / kTouchSlice;
        const std::uint64_t workers =
            std::clamp<std::uint64_t>(slices, 1, std::max<std::size_t>(1, processors / arenas_.size()));
        for (std::uint64_t w = 0; w < workers; ++w) {
            threads.emplace_back([this, &arena, workers, w] {
                if (arenas_.size() > 1) base::bind_thread_to_node(arena.node);
                const std::uint64_t share = (arena.length / workers + kSmallPage) / kSmallPage * kSmallPage;
                const std::uint64_t end = std::min(arena.length, (w + 1) * share);
                for (std::uint64_t at = w * share; at < end; at += kSmallPage) {
                    // A read-modify-write of nothing: a pool file that is attached again keeps its bytes.
                    auto* byte = reinterpret_cast<volatile std::byte*>(base_ + arena.offset + at);
                    *byte = *byte;
                }
            });
        }
    }
    for (std::thread& thread : threads) thread.join();
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
    std::vector<base::NumaNode> nodes = base::numa_nodes();
    if (!options.numa_affinity || pool->bytes_ < nodes.size() * kHugepage) nodes.resize(1);
    const std::uint64_t share = pool->bytes_ / nodes.size() / page * page;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
        const std::uint64_t offset = i * share;
        const std::uint64_t length = i + 1 == nodes.size() ? pool->bytes_ - offset : share;
        pool->arenas_.push_back({nodes[i].id, offset, length, std::make_unique<Slab>()});
        pool->arenas_.back().slab->add(offset, length);
    }
    pool->touch();
    return pool;
}

Pool::~Pool() {
    if (base_ != nullptr) ::munmap(base_, bytes_);
    if (fd_ >= 0) ::close(fd_);
}

std::uint64_t Pool::allocate(std::uint64_t bytes, int node) {
    std::vector<std::uint64_t> one;
    return allocate_many(bytes, 1, node, one) == 1 ? one[0] : Slab::kNone;
}

std::uint64_t Pool::allocate_many(std::uint64_t bytes, std::uint64_t count, int node, std::vector<std::uint64_t>& out) {
    std::uint64_t done = 0;
    for (const bool preferred : {true, false}) {
        for (Arena& arena : arenas_) {
            if (done < count && (arena.node == node) == preferred) done += arena.slab->allocate_many(bytes, count - done, out);
        }
    }
    return done;
}

Pool::Arena& Pool::arena_of(std::uint64_t offset) noexcept {
    return *std::find_if(arenas_.begin(), arenas_.end(),
                         [&](const Arena& a) { return offset >= a.offset && offset < a.offset + a.length; });
}

void Pool::free_page(std::uint64_t offset, std::uint64_t bytes) noexcept { arena_of(offset).slab->free(offset, bytes); }

std::uint64_t Pool::used() const {
    std::uint64_t used = 0;
    for (const Arena& arena : arenas_) used += arena.slab->used();
    return used;
}

std::uint64_t Pool::largest_free() const {
    std::uint64_t largest = 0;
    for (const Arena& arena : arenas_) largest = std::max(largest, arena.slab->largest_free());
    return largest;
}

}  // namespace pegaflow::engine
