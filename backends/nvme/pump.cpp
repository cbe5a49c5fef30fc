// SPDX-License-Identifier: Apache-2.0
// The one loop that moves a device: takes batches in, feeds the ring, reaps it, gives ended batches back, sleeps.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "device.hpp"

namespace nvme_backend {
namespace {

constexpr std::uint64_t kWakeTag = 1;
// What has ended is reported in lots: the requests that follow from one lot are with the device while the next is reported.
// The first one of a burst is small: a device that says what it has done only when it has nothing left, as virtual disks do,
// stands still while that is reported. Each next one is twice as large, because every hand-over costs. Of large requests what
// the device has lasts longer than reporting takes.
constexpr unsigned kLot = 3, kLotOfLarge = 32;
constexpr std::uint64_t kLarge = 512 << 10;  // bytes
constexpr unsigned kFetchedAhead = 8;        // completions; what belongs to more would be gone again before their turn
constexpr int kGoneStepMs = 1;
constexpr std::uint64_t kRecoverStepNs = 1'000'000;

// The kernel knows the thread that a ring belongs to. What a new thread may share with one that has ended (an address of its
// own variables, an id) would pass for it.
const std::shared_ptr<PollingThread>& this_thread() {
    struct Owner {
        std::shared_ptr<PollingThread> thread = std::make_shared<PollingThread>();
        ~Owner() { thread->ended.store(true, std::memory_order_release); }
    };
    static thread_local const Owner owner;
    return owner.thread;
}

int open_ring(pega_device& device) {
    const int error = device.ring.open(device.options, device.deferred);
    if (error != 0) return error;
    device.ring_thread = this_thread();
    device.wake_armed = false;
    device.lot = kLot;
    forget_tables(device);
    for (Operation* op : device.again) op->buffer = -1;  // it was in the table of the ring before
    return 0;
}

void handle(pega_device& device, const io_uring_cqe& cqe) {
    if (cqe.user_data == kWakeTag) {
        if ((cqe.flags & IORING_CQE_F_MORE) == 0) device.wake_armed = false;
        std::uint64_t drained = 0;
        [[maybe_unused]] const auto count = ::read(device.event_fd, &drained, sizeof drained);
    } else if (cqe.user_data != 0) {
        complete(device, *reinterpret_cast<Operation*>(cqe.user_data), cqe.res);
    }
}

unsigned lot_of(const pega_device& device) {
    const std::uint64_t taken = device.options.depth - device.free_operations.size();
    return taken != 0 && device.bytes_moving / taken >= kLarge ? kLotOfLarge : kLot;
}

// Where a device ends its work in bursts nothing of it is in the caches: what the next completions touch is fetched ahead.
void fetch_ahead(io_uring& raw, unsigned count) {
    unsigned head = 0;
    const io_uring_cqe* cqe = nullptr;
    const Operation* ops[kFetchedAhead];
    unsigned found = 0;
    io_uring_for_each_cqe(&raw, head, cqe) {
        if (found == count) break;
        if (cqe->user_data <= kWakeTag) continue;
        ops[found] = reinterpret_cast<const Operation*>(cqe->user_data);
        __builtin_prefetch(ops[found]);
        __builtin_prefetch(reinterpret_cast<const char*>(ops[found]) + 64);
        ++found;
    }
    for (unsigned i = 0; i < found; ++i) {
        const char* batch = reinterpret_cast<const char*>(ops[i]->batch);
        for (std::size_t at = 0; at < sizeof(Batch); at += 64) __builtin_prefetch(batch + at, 1);
    }
}

// Takes up to kFetchedAhead completions.
unsigned reap_some(pega_device& device, unsigned most) {
    io_uring& raw = device.ring.raw();
    most = std::min(most, kFetchedAhead);
    fetch_ahead(raw, most);
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&raw, head, cqe) {
        handle(device, *cqe);
        if (++count == most) break;
    }
    if (count != 0) ::io_uring_cq_advance(&raw, count);
    return count;
}

unsigned reap(pega_device& device) {
    unsigned count = 0;
    for (unsigned some = 1; some != 0 && count < device.lot; count += some) some = reap_some(device, device.lot - count);
    if (count == 0) {
        device.lot = lot_of(device);
    } else if (count == device.lot) {
        device.lot = std::min(2 * device.lot, kLotOfLarge);
    }
    return count;
}

void take_incoming(pega_device& device) {
    {
        const std::lock_guard lock(device.mutex);
        device.sleeping = false;
        device.taken.swap(device.incoming);
    }
    for (Batch* batch : device.taken) {
        batch->active_index = device.active.size();
        device.active.push_back(batch);
        device.runnable[batch->priority()].push_back(batch);
    }
    device.taken.clear();
}

void give_back(pega_device& device) {
    if (device.ended.empty()) return;
    const std::lock_guard lock(device.mutex);
    for (Batch* batch : device.ended) {
        batch->release_regions();
        batch->in_use = false;
        batch->channel->free.push_back(batch);
        --batch->channel->in_flight;
    }
    device.ended.clear();
    device.idle.notify_all();
}

void act_on_cancels(pega_device& device) {
    if (!device.look_at_cancels.exchange(false, std::memory_order_acq_rel)) return;
    for (std::size_t i = device.active.size(); i-- > 0;) {
        Batch& batch = *device.active[i];
        if (!batch.cancel_requested.load(std::memory_order_acquire) || batch.status != PEGA_OK) continue;
        give_up(device, batch, PEGA_CANCELED, ECANCELED);
        i = std::min(i, device.active.size());
    }
}

void work(pega_device& device) {
    take_incoming(device);
    if (device.look_at_tables.exchange(false, std::memory_order_acq_rel)) change_tables(device);
    act_on_cancels(device);
    std::vector<Operation*> again;
    again.swap(device.again);
    for (Operation* op : again) retry(device, *op);
    feed(device);
}

// The operations that were prepared and that the kernel does not have.
std::vector<Operation*> take_back(pega_device& device) {
    std::vector<Operation*> out;
    for (const std::uint64_t tag : device.ring.take_back()) {
        if (tag == kWakeTag) device.wake_armed = false;
        if (tag <= kWakeTag) continue;
        out.push_back(reinterpret_cast<Operation*>(tag));
        out.back()->in_kernel = false;
        --device.in_kernel;
    }
    return out;
}

// What cannot be moved because there is no ring ends as failed.
void fail_all(pega_device& device, int error) {
    take_incoming(device);
    for (Operation* op : std::exchange(device.again, {})) refuse(device, *op, error);
    while (!device.active.empty()) give_up(device, *device.active.back(), PEGA_NO_MEMORY, error);
    give_back(device);
}

// Takes the ring from another thread. False as long as the kernel has requests of it: the thread that handed them in sees to
// them. When that has ended nobody can fetch their completions: they end with the ring, and are begun anew.
bool take_over(pega_device& device) {
    if (device.ring.is_open()) {
        reap(device);
        for (Operation* op : take_back(device)) device.again.push_back(op);
        give_back(device);
        if (device.in_kernel != 0 && !device.ring_thread->ended.load(std::memory_order_acquire)) return false;
        device.ring.close();
    }
    if (device.in_kernel == 0) return true;
    if (!device.ring.gone(kGoneStepMs)) return false;
    for (std::uint32_t i = 0; i < device.options.depth; ++i) {
        Operation& op = device.operations[i];
        if (op.batch != nullptr && std::exchange(op.in_kernel, false)) device.again.push_back(&op);
    }
    device.in_kernel = 0;
    return true;
}

// True when this thread may move the ring.
bool own_ring(pega_device& device) {
    if (inherited(device)) return false;
    if (device.ring.is_open() && (!device.ring.deferred() || device.ring_thread == this_thread())) return true;
    if (!take_over(device)) return false;
    const int error = open_ring(device);
    if (error == 0) return true;
    pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "nvme", "the ring cannot be set up: %s", std::strerror(error));
    fail_all(device, error);
    return false;
}

// The kernel takes nothing more from this ring: what it does not have ends as failed, what it has is waited for. Then comes a
// new ring. False when there is none.
bool recover(pega_device& device) {
    const int error = device.ring.refusal();
    pegaflow::backend::log(device.host, PEGA_LOG_ERROR, "nvme", "the kernel takes no requests: %s", std::strerror(error));
    for (Operation* op : take_back(device)) refuse(device, *op, error);
    if (device.in_kernel == 0) {
        device.ring.close();
        return own_ring(device);
    }
    for (Operation* op : take_back(device)) device.again.push_back(op);  // and cancellations, which it would not take either
    device.ring.wait(kRecoverStepNs);
    return true;
}

// False when there is no room for the request now: then sleep would be too deep.
bool arm_wake(pega_device& device) {
    if (device.wake_armed) return true;
    io_uring_sqe* entry = device.ring.entry();
    if (entry == nullptr) return false;
    ::io_uring_prep_poll_multishot(entry, device.event_fd, POLLIN);
    entry->user_data = kWakeTag;
    device.wake_armed = true;
    return true;
}

// False when only sleeping brings something.
bool worth_a_look(const pega_device& device) noexcept {
    return must_poll(device) || device.ring.ended() != 0 || device.ring.has_work();
}

// Hands in what was prepared, and takes what has ended.
void move(pega_device& device) {
    device.ring.flush(device.in_kernel != 0);
    if (reap(device) == 0) return;
    feed(device);  // what has ended made room
    device.ring.submit();
}

void woken(pega_device& device) noexcept {
    device.lot = lot_of(device);
    if (device.ring.has_work() || 2 * device.ring.ended() >= device.in_kernel) device.ring.hurry();
}

// False when there is something to do instead.
bool may_sleep(pega_device& device) {
    if (!device.again.empty()) return false;
    const std::lock_guard lock(device.mutex);
    if (!device.incoming.empty() || device.look_at_cancels.load() || device.look_at_tables.load() || device.interrupted.load())
        return false;
    device.sleeping = true;
    return true;
}

}  // namespace

bool must_poll(const pega_device& device) noexcept {
    return (device.ring.polled() && device.in_kernel != 0) || !device.again.empty();
}

bool pump(pega_device& device, std::uint64_t until_ns) {
    if (!own_ring(device)) return false;
    device.ring.announce(-1);
    for (;;) {
        work(device);
        // Else the sleep hands in what was prepared.
        if (until_ns == 0 || worth_a_look(device)) move(device);
        if (device.ring.refusal() != 0 && !recover(device)) return false;
        give_back(device);
        const bool over = until_ns == 0 || !device.records.empty() || device.interrupted.exchange(false);
        const std::uint64_t now = over || until_ns == kNoTimeout ? 0 : device.now();
        if (over || now >= until_ns) {
            device.ring.submit();
            return true;
        }
        if (worth_a_look(device)) continue;
        if (!may_sleep(device) || !arm_wake(device)) continue;
        device.ring.wait(until_ns == kNoTimeout ? kNoTimeout : until_ns - now);
        woken(device);
    }
}

}  // namespace nvme_backend
