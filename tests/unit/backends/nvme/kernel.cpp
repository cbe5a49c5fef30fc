// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/backends/nvme/kernel.hpp"

#include <map>

namespace nvme_test {

Kernel& kernel() {
    static Kernel one;
    return one;
}

namespace {

// How far the requests and completions of a ring have been shown.
struct Shown {
    unsigned requests = 0, completions = 0;
};

std::map<const io_uring*, Shown>& shown() {
    static std::map<const io_uring*, Shown> all;
    return all;
}

bool before(unsigned a, unsigned b) { return static_cast<int>(a - b) < 0; }

void show_requests(io_uring& ring) {
    unsigned& at = shown()[&ring].requests;
    if (before(at, *ring.sq.khead) || before(ring.sq.sqe_tail, at)) at = *ring.sq.khead;
    for (; at != ring.sq.sqe_tail; ++at) {
        if (kernel().on_request) kernel().on_request(ring.sq.sqes[at & ring.sq.ring_mask]);
    }
}

void show_completions(io_uring& ring) {
    unsigned& at = shown()[&ring].completions;
    if (before(at, *ring.cq.khead)) at = *ring.cq.khead;
    for (const unsigned end = io_uring_smp_load_acquire(ring.cq.ktail); at != end; ++at) {
        if (kernel().on_completion) kernel().on_completion(ring.cq.cqes[at & ring.cq.ring_mask]);
    }
}

}  // namespace

extern "C" {

int real_setup(unsigned entries, io_uring* ring, io_uring_params* params) asm("__real_io_uring_queue_init_params");
int wrapped_setup(unsigned entries, io_uring* ring, io_uring_params* params) asm("__wrap_io_uring_queue_init_params");
int real_submit(io_uring* ring) asm("__real_io_uring_submit");
int wrapped_submit(io_uring* ring) asm("__wrap_io_uring_submit");
int real_wait(io_uring* ring, unsigned count) asm("__real_io_uring_submit_and_wait");
int wrapped_wait(io_uring* ring, unsigned count) asm("__wrap_io_uring_submit_and_wait");
int real_events(io_uring* ring) asm("__real_io_uring_submit_and_get_events");
int wrapped_events(io_uring* ring) asm("__wrap_io_uring_submit_and_get_events");
int real_timed(io_uring* ring, io_uring_cqe** first, unsigned count, __kernel_timespec* time,
               sigset_t* mask) asm("__real_io_uring_submit_and_wait_timeout");
int wrapped_timed(io_uring* ring, io_uring_cqe** first, unsigned count, __kernel_timespec* time,
                  sigset_t* mask) asm("__wrap_io_uring_submit_and_wait_timeout");
int real_buffers(io_uring* ring, unsigned at, const iovec* memory, const __u64* tags,
                 unsigned count) asm("__real_io_uring_register_buffers_update_tag");
int wrapped_buffers(io_uring* ring, unsigned at, const iovec* memory, const __u64* tags,
                    unsigned count) asm("__wrap_io_uring_register_buffers_update_tag");

}  // extern "C"

namespace {

void make_noise(io_uring& ring) {
    if (kernel().noise == 0) return;
    // The back end's own requests wait beside them.
    for (; kernel().noise != 0; --kernel().noise) {
        io_uring_sqe* entry = ::io_uring_get_sqe(&ring);
        if (entry == nullptr) {
            real_submit(&ring);
            entry = ::io_uring_get_sqe(&ring);
        }
        ::io_uring_prep_nop(entry);
        entry->user_data = 0;
    }
    real_submit(&ring);
    kernel().overflowed = (IO_URING_READ_ONCE(*ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0;
}

template <class Call>
int hand_in(io_uring& ring, Call call) {
    if (!kernel().refusals.empty() && ::io_uring_sq_ready(&ring) != 0) {
        const int error = kernel().refusals.front();
        kernel().refusals.pop_front();
        ring.sq.sqe_head = ring.sq.sqe_tail;  // as liburing leaves it when the kernel says no
        IO_URING_WRITE_ONCE(*ring.sq.ktail, ring.sq.sqe_tail);
        return -error;
    }
    show_requests(ring);
    make_noise(ring);
    const int result = call();
    show_completions(ring);
    return result;
}

}  // namespace

int wrapped_setup(unsigned entries, io_uring* ring, io_uring_params* params) {
    Kernel& k = kernel();
    k.rings.push_back(params->flags);
    shown().erase(ring);
    if ((params->flags & k.unknown_flags) != 0) return -k.setup_error;
    if (k.places != 0) {
        params->flags |= IORING_SETUP_CQSIZE;
        params->cq_entries = k.places;
    }
    return real_setup(entries, ring, params);
}

int wrapped_submit(io_uring* ring) {
    return hand_in(*ring, [=] { return real_submit(ring); });
}

int wrapped_wait(io_uring* ring, unsigned count) {
    ++kernel().waits;
    return hand_in(*ring, [=] { return real_wait(ring, count); });
}

int wrapped_events(io_uring* ring) {
    return hand_in(*ring, [=] { return real_events(ring); });
}

int wrapped_timed(io_uring* ring, io_uring_cqe** first, unsigned count, __kernel_timespec* time, sigset_t* mask) {
    ++kernel().waits;
    return hand_in(*ring, [=] { return real_timed(ring, first, count, time, mask); });
}

int wrapped_buffers(io_uring* ring, unsigned at, const iovec* memory, const __u64* tags, unsigned count) {
    const bool adds = memory->iov_base != nullptr;
    const int error = adds && kernel().on_buffer ? kernel().on_buffer(*memory) : 0;
    return error != 0 ? -error : real_buffers(ring, at, memory, tags, count);
}

}  // namespace nvme_test
