// SPDX-License-Identifier: Apache-2.0
#include "common/mapping.hpp"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <mutex>
#include <utility>

#include "pegaflow/backend.hpp"

namespace backend_common {

// Read by the signal handler, which may take no lock: `version` is odd while the range changes, and changes with it. Never
// freed, but used again.
struct WatchedRange {
    std::atomic<std::uint32_t> version{0};
    std::atomic<std::uintptr_t> begin{0}, end{0};
    std::atomic<bool> lost{false};
    bool used = false;             // guarded by the table's mutex
    WatchedRange* next = nullptr;  // constant once it is in the table
};

namespace {

struct Table {
    std::atomic<WatchedRange*> first{nullptr};
    std::mutex mutex;  // of those who change it
    struct sigaction previous{};
    bool installed = false;  // guarded by mutex
};
Table table;  // of the process, as signal handlers are

// The whole mapping at once: what was cut off of an object does not come back, and nobody shall see half of it. The mark is
// there before the zeros are.
bool replace(std::uintptr_t address) noexcept {
    for (WatchedRange* range = table.first.load(std::memory_order_acquire); range != nullptr; range = range->next) {
        const std::uint32_t version = range->version.load(std::memory_order_acquire);
        const std::uintptr_t begin = range->begin.load(std::memory_order_acquire);
        const std::uintptr_t end = range->end.load(std::memory_order_acquire);
        if (version % 2 != 0 || range->version.load(std::memory_order_acquire) != version) continue;  // not the one in use here
        if (address < begin || address >= end) continue;
        range->lost.store(true, std::memory_order_seq_cst);
        return ::mmap(reinterpret_cast<void*>(begin), end - begin, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
    }
    return false;
}

void pass_on(int signal, siginfo_t* info, void* context) noexcept {
    const struct sigaction& previous = table.previous;
    const bool sent = info->si_code <= 0;  // by somebody, and not by an access
    if ((previous.sa_flags & SA_SIGINFO) != 0) return previous.sa_sigaction(signal, info, context);
    if (previous.sa_handler == SIG_IGN && sent) return;
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
    ::sigaction(signal, &previous, nullptr);  // the access is made again, and ends the process as it would have
    if (sent) ::raise(signal);
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
    const int error = errno;
    const bool replaced = info->si_code > 0 && replace(reinterpret_cast<std::uintptr_t>(info->si_addr));
    if (!replaced) pass_on(signal, info, context);
    errno = error;
}

// The handler stays, so this module must.
void stay_loaded() noexcept {
    Dl_info own{};
    if (::dladdr(reinterpret_cast<const void*>(&on_bus_error), &own) != 0 && own.dli_fname != nullptr)
        ::dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

bool install() noexcept {
    if (table.installed) return true;
    stay_loaded();
    struct sigaction ours{};
    ours.sa_sigaction = &on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    ::sigemptyset(&ours.sa_mask);
    table.installed = ::sigaction(SIGBUS, nullptr, &table.previous) == 0 && ::sigaction(SIGBUS, &ours, nullptr) == 0;
    return table.installed;
}

void set_range(WatchedRange& range, std::uintptr_t begin, std::uintptr_t end) noexcept {
    range.version.fetch_add(1, std::memory_order_acq_rel);
    range.begin.store(begin, std::memory_order_release);
    range.end.store(end, std::memory_order_release);
    range.lost.store(false, std::memory_order_release);
    range.version.fetch_add(1, std::memory_order_release);
}

// Null when the handler cannot be installed.
WatchedRange* watch(std::uintptr_t begin, std::uintptr_t end) {
    const std::lock_guard lock(table.mutex);
    if (!install()) return nullptr;
    WatchedRange* range = table.first.load(std::memory_order_relaxed);
    while (range != nullptr && range->used) range = range->next;
    const bool fresh = range == nullptr;
    if (fresh) range = new WatchedRange;
    range->used = true;
    set_range(*range, begin, end);
    if (fresh) {
        range->next = table.first.load(std::memory_order_relaxed);
        table.first.store(range, std::memory_order_release);
    }
    return range;
}

void unwatch(WatchedRange& range) noexcept {
    const std::lock_guard lock(table.mutex);
    set_range(range, 0, 0);
    range.used = false;
}

}  // namespace

Mapping::Mapping(Mapping&& other) noexcept { *this = std::move(other); }

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(length_, other.length_);
    std::swap(lost_, other.lost_);
    std::swap(range_, other.range_);
    return *this;
}

Mapping::~Mapping() {
    if (range_ == nullptr) return;
    const std::uintptr_t begin = range_->begin.load(std::memory_order_relaxed);
    const std::uintptr_t end = range_->end.load(std::memory_order_relaxed);
    unwatch(*range_);
    ::munmap(reinterpret_cast<void*>(begin), end - begin);
}

pega_status Mapping::open(int fd, std::uint64_t offset, std::uint64_t length) {
    struct stat info{};
    if (::fstat(fd, &info) != 0 || !pegaflow::backend::in_range(offset, length, static_cast<std::uint64_t>(info.st_size)))
        return PEGA_REGION_LOST;
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t start = offset / page * page;
    const std::uint64_t mapped = (offset + length - start + page - 1) / page * page;
    void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(start));
    if (memory == MAP_FAILED) return PEGA_NO_MEMORY;
    const auto begin = reinterpret_cast<std::uintptr_t>(memory);
    range_ = watch(begin, begin + mapped);
    if (range_ == nullptr) {
        ::munmap(memory, mapped);
        return PEGA_NO_MEMORY;
    }
    lost_ = &range_->lost;
    data_ = static_cast<std::uint8_t*>(memory) + (offset - start);
    length_ = length;
    return PEGA_OK;
}

}  // namespace backend_common
