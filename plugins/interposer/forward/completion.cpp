// SPDX-License-Identifier: Apache-2.0
// Ends: taken from the inner back end, held back or spoilt as the verdict says, and handed to the poller.
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "device.hpp"

namespace interposer {
namespace {

// An end that is to come after the next one comes after so long all the same.
constexpr std::uint64_t kLongestReorder = 100'000'000;

// Makes of what has arrived what the poller gets, late or spoilt as the verdict says.
void take_arrived(pega_device& device) {
    while (!device.arrived.empty()) {
        const pega_completion record = device.arrived.front();
        device.arrived.pop_front();
        std::unique_lock lock(device.mutex);
        const auto it = device.pending.find(record.user_data);
        if (it == device.pending.end() || (record.flags & PEGA_COMPLETION_TERMINAL) == 0) {
            device.held.push_back({record, 0, 0});
            continue;
        }
        const Pending& pending = *it->second;  // only polling removes it
        if (pending.verdict.corrupt && record.status == PEGA_OK) {
            lock.unlock();
            device.spoiler.spoil(device, pending.batch);
            lock.lock();
        }
        hold(device, pending, record);
    }
}

void end_expired(pega_device& device, std::uint64_t now) {
    for (const auto& [id, pending] : device.pending) {
        if (pending->verdict.hang && pending->batch.deadline_ns != 0 && now >= pending->batch.deadline_ns)
            end_hanging(device, pending->channel, &id, ETIMEDOUT);
    }
}

// Whether there is an end on its way that this one is to come after. Those that hang or are stuck may never come.
bool waits_for_next(const pega_device& device, const Held& held, std::uint64_t now) {
    if (held.until_next_ns == 0 || now >= held.until_next_ns) return false;
    return std::any_of(device.pending.begin(), device.pending.end(), [&](const auto& p) {
        return p.first != held.record.user_data && !p.second->verdict.hang && !p.second->stuck();
    });
}

std::uint32_t poll(pega_device* device, pega_completion* out, std::uint32_t capacity) {
    if (capacity == 0) return 0;
    begin_stuck(*device);
    poll_inner(*device);
    take_arrived(*device);
    const std::uint32_t stride = out->size;
    const std::lock_guard lock(device->mutex);
    const std::uint64_t now = device->now();
    end_expired(*device, now);
    std::uint32_t given = 0;
    for (std::size_t i = 0; i < device->held.size() && given < capacity;) {
        Held& held = device->held[i];
        if (held.due_ns > now) {
            ++i;
            continue;
        }
        if (held.until_next_ns != 0 && i + 1 < device->held.size()) {
            held.until_next_ns = 0;
            std::swap(device->held[i], device->held[i + 1]);
            continue;
        }
        if (waits_for_next(*device, held, now)) {
            ++i;
            continue;
        }
        const pega_completion record = held.record;
        device->held.erase(device->held.begin() + static_cast<std::ptrdiff_t>(i));
        auto* element = reinterpret_cast<pega_completion*>(reinterpret_cast<unsigned char*>(out) +
                                                           static_cast<std::size_t>(given) * stride);
        element->size = stride;
        pegaflow::backend::copy_out(element, record);
        ++given;
        const auto pending = device->pending.find(record.user_data);
        if ((record.flags & PEGA_COMPLETION_TERMINAL) == 0 || pending == device->pending.end()) continue;
        device->hooks->ended(pending->second->batch, record, pending->second->submitted_ns);
        device->pending.erase(pending);
    }
    return given;
}

int wait_fd(pega_device* device) { return device->epoll_fd; }

// When something here happens by the clock alone; UINT64_MAX = nothing does. The mutex is held.
std::uint64_t next_time(const pega_device& device, std::uint64_t now) {
    std::uint64_t next = UINT64_MAX;
    for (const Held& held : device.held)
        next = std::min(next, waits_for_next(device, held, now) ? std::max(held.due_ns, held.until_next_ns) : held.due_ns);
    for (const auto& [id, pending] : device.pending) {
        if (pending->begin_ns != 0) next = std::min(next, pending->begin_ns);
        if (pending->verdict.hang && pending->batch.deadline_ns != 0) next = std::min(next, pending->batch.deadline_ns);
    }
    return next;
}

pega_status arm(pega_device* device) {
    std::uint64_t drained = 0;
    [[maybe_unused]] auto count = ::read(device->event_fd, &drained, sizeof drained);
    count = ::read(device->timer_fd, &drained, sizeof drained);
    {
        const std::lock_guard lock(device->mutex);
        const std::uint64_t now = device->now();
        const std::uint64_t next = next_time(*device, now);
        if (next <= now || !device->arrived.empty()) return PEGA_PENDING;
        const std::uint64_t left = next == UINT64_MAX ? 0 : next - now;  // zero stops the timer
        itimerspec timer{};
        timer.it_value.tv_sec = static_cast<time_t>(left / 1'000'000'000);
        timer.it_value.tv_nsec = static_cast<long>(left % 1'000'000'000);
        ::timerfd_settime(device->timer_fd, 0, &timer, nullptr);
    }
    return device->inner.completion->arm(device->device);
}

}  // namespace

void hold(pega_device& device, const Pending& pending, const pega_completion& record) {
    const Verdict& verdict = pending.verdict;
    const std::uint64_t now = device.now();
    device.held.push_back(
        {record, verdict.delay_ns == 0 ? 0 : now + verdict.delay_ns, verdict.reorder ? now + kLongestReorder : 0});
}

void poll_inner(pega_device& device) {
    pega_completion records[64];
    records[0].size = sizeof records[0];
    const std::uint32_t got = device.inner.completion->poll(device.device, records, 64);
    device.arrived.insert(device.arrived.end(), records, records + got);
}

const pega_completion_table kCompletionTable = {sizeof(pega_completion_table), 0, &poll, &wait_fd, &arm};

}  // namespace interposer
