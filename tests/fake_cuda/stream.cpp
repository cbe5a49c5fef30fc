// SPDX-License-Identifier: Apache-2.0
#include "stream.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

namespace fake_cuda {
namespace {

// What travels in an event's handle.
struct Content {
    char name[56];
    int process;
};
static_assert(sizeof(Content) <= sizeof(IpcHandle));

// How often the count of an event that another process reaches is looked at.
constexpr auto kGlance = std::chrono::microseconds(50);

}  // namespace

Event::~Event() {
    if (name_.empty()) return;
    ::munmap(counts_, sizeof(Counts));
    if (owner_ == ::getpid()) ::shm_unlink(name_.c_str());
}

bool Event::share() {
    Memory::instance();  // removes what an earlier process of this number left
    static std::atomic<int> next{0};
    const std::string name = object_prefix(::getpid()) + "event_" + std::to_string(next++);
    void* const object = map_object(name, sizeof(Counts), true);
    if (object == nullptr) return false;
    counts_ = new (object) Counts;
    name_ = name;
    owner_ = ::getpid();
    return true;
}

bool Event::open(const IpcHandle& handle) {
    Content content{};
    std::memcpy(&content, handle.bytes, sizeof content);
    content.name[sizeof content.name - 1] = 0;
    if (!std::string(content.name).starts_with(object_prefix(content.process) + "event_")) return false;
    void* const object = map_object(content.name, sizeof(Counts), false);
    if (object == nullptr) return false;
    counts_ = static_cast<Counts*>(object);
    name_ = content.name;
    owner_ = content.process;
    return true;
}

bool Event::export_handle(IpcHandle* out) const {
    if (name_.empty()) return false;
    Content content{};
    std::snprintf(content.name, sizeof content.name, "%s", name_.c_str());
    content.process = owner_;
    *out = {};
    std::memcpy(out->bytes, &content, sizeof content);
    return true;
}

std::uint64_t Event::record() { return ++counts_->recorded; }

void Event::reach(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    std::uint64_t before = counts_->reached;
    while (before < number && !counts_->reached.compare_exchange_weak(before, number)) {
    }
    when_ = std::chrono::steady_clock::now();
    changed_.notify_all();
}

std::uint64_t Event::recorded() { return counts_->recorded; }

std::chrono::steady_clock::time_point Event::when() {
    const std::lock_guard lock(mutex_);
    return when_;
}

// Nobody waits for a process that is gone: streams of the fake driver must end.
bool Event::owner_is_alive() const { return ::kill(owner_, 0) == 0 || errno != ESRCH; }

// One of a process that was killed before it stays as it was, as a driver's does.
bool Event::complete() { return counts_->reached >= counts_->recorded; }

void Event::wait(std::uint64_t number) {
    std::unique_lock lock(mutex_);
    const auto reached = [&] { return counts_->reached >= number; };
    if (name_.empty()) return changed_.wait(lock, reached);
    while (!changed_.wait_for(lock, kGlance, reached)) {
        if (!owner_is_alive()) return;
    }
}

Stream::Stream(int gpu) : device(gpu), thread_([this] { run(); }) {}

Stream::~Stream() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

void Stream::push(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    changed_.notify_all();
}

void Stream::synchronize() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queue_.empty() && !busy_; });
}

void Stream::run() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const auto work = std::move(queue_.front());
        queue_.pop_front();
        busy_ = true;
        lock.unlock();
        work();
        lock.lock();
        busy_ = false;
        changed_.notify_all();
    }
}

}  // namespace fake_cuda
