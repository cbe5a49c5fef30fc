// SPDX-License-Identifier: Apache-2.0
// The client's side of a load's outcome: it makes the object in shared memory, watches it, and unlinks it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <thread>

#include "pegaflow/client.hpp"
#include "rpc/load_state.hpp"

namespace pegaflow {

struct LoadState::Mapping {
    std::string name;
    void* memory = nullptr;
    rpc::LoadStateRecord* record = nullptr;
    ~Mapping() {
        if (memory == nullptr) return;
        ::munmap(memory, rpc::kLoadStateBytes);
        ::shm_unlink(("/" + name).c_str());
    }
};

LoadState::LoadState(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}
LoadState::LoadState(LoadState&&) noexcept = default;
LoadState& LoadState::operator=(LoadState&&) noexcept = default;
LoadState::~LoadState() = default;

Result<LoadState> LoadState::create() {
    auto mapping = std::make_unique<Mapping>();
    std::uint64_t random[2] = {};
    if (::getrandom(random, sizeof random, 0) != sizeof random)
        return fail(Code::kNoMemory, "no random bytes for a name", errno);
    mapping->name = fmt::format("pega_load_{:016x}{:016x}", random[0], random[1]);
    const int fd = ::shm_open(("/" + mapping->name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return fail(Code::kNoMemory, fmt::format("cannot create the shared memory object {}", mapping->name), errno);
    void* memory = ::ftruncate(fd, rpc::kLoadStateBytes) == 0
                       ? ::mmap(nullptr, rpc::kLoadStateBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                       : MAP_FAILED;
    ::close(fd);
    if (memory == MAP_FAILED) {
        ::shm_unlink(("/" + mapping->name).c_str());
        return fail(Code::kNoMemory, fmt::format("cannot map the shared memory object {}", mapping->name), errno);
    }
    mapping->memory = memory;
    const std::uint64_t offset = sizeof(std::uint64_t);
    std::memcpy(memory, &offset, sizeof offset);
    mapping->record = new (static_cast<char*>(memory) + offset) rpc::LoadStateRecord;
    mapping->record->state.store(rpc::kLoadPending, std::memory_order_release);
    mapping->record->magic.store(rpc::kLoadStateMagic, std::memory_order_release);
    mapping->record->version.store(rpc::kLoadStateVersion, std::memory_order_release);
    return LoadState(std::move(mapping));
}

const std::string& LoadState::shm_name() const noexcept { return mapping_->name; }
std::int64_t LoadState::state() const noexcept { return mapping_->record->state.load(std::memory_order_acquire); }

Result<void> LoadState::wait(std::chrono::nanoseconds timeout) const {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (int spins = 0; !ready(); ++spins) {
        if (std::chrono::steady_clock::now() >= deadline) return fail(Code::kDeadlineExceeded, "the load has not ended yet");
        if (spins > 100) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    if (state() < 0) return fail(Code::kInternal, "the load failed; the server's log says why");
    return {};
}

}  // namespace pegaflow
