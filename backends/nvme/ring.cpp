// SPDX-License-Identifier: Apache-2.0
#include "ring.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace nvme_backend {
namespace {

constexpr unsigned kFileSlots = 1024;
constexpr unsigned kBufferSlots = 1024;
constexpr std::uint64_t kMinSlice = 1 << 20;

}  // namespace

int Ring::open(const Options& options, bool deferred) {
    const unsigned always = IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | (options.poll ? IORING_SETUP_IOPOLL : 0) |
                            (options.passthrough ? IORING_SETUP_SQE128 | IORING_SETUP_CQE32 : 0);
    const unsigned best = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    const unsigned shared[] = {always, always & ~IORING_SETUP_SUBMIT_ALL};
    const unsigned alone[] = {always | best, always | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, always,
                              always & ~IORING_SETUP_SUBMIT_ALL};
    int error = EINVAL;
    const auto attempt = [&](unsigned flags) {
        io_uring_params params{};
        params.flags = flags;
        // Cancellations need entries beside the requests that they end.
        error = -::io_uring_queue_init_params(options.depth * 2, &raw_, &params);
        return error != EINVAL;
    };
    if (deferred ? !std::any_of(std::begin(alone), std::end(alone), attempt)
                 : !std::any_of(std::begin(shared), std::end(shared), attempt)) {
        return error;
    }
    if (error != 0) return error;
    open_ = true;
    announced_ = announcing_ = hurry_ = false;
    refusal_ = 0;
    make_tables(options.fixed);
    return 0;
}

void Ring::make_tables(bool fixed) noexcept {
    file_used_.clear();
    buffer_used_.clear();
    if (::io_uring_register_files_sparse(&raw_, fixed ? kFileSlots : 1) == 0) file_used_.resize(fixed ? kFileSlots : 1);
    if (fixed && ::io_uring_register_buffers_sparse(&raw_, kBufferSlots) == 0) buffer_used_.resize(kBufferSlots);
    if (lifeline_ >= 0) ::close(std::exchange(lifeline_, -1));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return;
    lifeline_ = ends[0];
    if (add_file(ends[1]) < 0) ::close(std::exchange(lifeline_, -1));
    ::close(ends[1]);
}

Ring::~Ring() {
    close();
    if (lifeline_ >= 0) ::close(lifeline_);
}

void Ring::close() noexcept {
    if (open_) ::io_uring_queue_exit(&raw_);
    open_ = false;
}

bool Ring::gone(int milliseconds) const noexcept {
    pollfd end = {lifeline_, 0, 0};
    return lifeline_ >= 0 && ::poll(&end, 1, milliseconds) == 1 && (end.revents & POLLHUP) != 0;
}

io_uring_sqe* Ring::entry() noexcept {
    if (hurry_) submit();
    io_uring_sqe* entry = ::io_uring_get_sqe(&raw_);
    if (entry != nullptr) return entry;
    note(::io_uring_submit(&raw_));
    return ::io_uring_get_sqe(&raw_);
}

void Ring::submit() noexcept {
    if (!unsent()) return;
    hurry_ = false;
    note(::io_uring_submit(&raw_));
}

// What a call said that hands in and perhaps waits: a number, or an errno below zero.
void Ring::note(int result) noexcept {
    switch (result) {
        case -EINTR:
        case -EAGAIN:  // no memory for a request
        case -EBUSY:   // completions wait for room
        case -ETIME:
            refusal_ = 0;
            break;
        default:
            refusal_ = result < 0 && unsent() ? -result : 0;
    }
}

std::vector<std::uint64_t> Ring::take_back() {
    io_uring_sq& sq = raw_.sq;
    const unsigned first = *sq.khead;
    std::vector<std::uint64_t> out;
    for (unsigned at = first; at != sq.sqe_tail; ++at)
        out.push_back(sq.sqes[static_cast<std::size_t>(at & sq.ring_mask) << (wide() ? 1 : 0)].user_data);
    sq.sqe_head = sq.sqe_tail = first;
    IO_URING_WRITE_ONCE(*sq.ktail, first);  // the kernel looks only when it is entered
    refusal_ = 0;
    return out;
}

bool Ring::has_work() const noexcept {
    return (IO_URING_READ_ONCE(*raw_.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

void Ring::flush(bool busy) noexcept {
    if (ended() == 0 && (has_work() || (polled() && busy))) {
        hurry_ = hurry_ && !unsent();
        note(::io_uring_submit_and_get_events(&raw_));
    } else {
        submit();
    }
}

void Ring::wait(std::uint64_t timeout_ns) noexcept {
    if (timeout_ns == kNoTimeout) {  // a timer for each sleep would cost more than the sleep
        note(::io_uring_submit_and_wait(&raw_, 1));
        return;
    }
    __kernel_timespec timeout{};
    timeout.tv_sec = static_cast<long long>(timeout_ns / 1'000'000'000);
    timeout.tv_nsec = static_cast<long long>(timeout_ns % 1'000'000'000);
    io_uring_cqe* first = nullptr;
    note(::io_uring_submit_and_wait_timeout(&raw_, &first, 1, &timeout, nullptr));
}

bool Ring::announce(int event_fd) noexcept {
    if (event_fd < 0) {
        if (announcing_) ::io_uring_cq_eventfd_toggle(&raw_, false);
        announcing_ = false;
        return true;
    }
    if (!announced_) announced_ = ::io_uring_register_eventfd(&raw_, event_fd) == 0;
    if (!announced_) return false;
    ::io_uring_cq_eventfd_toggle(&raw_, true);
    announcing_ = true;
    std::atomic_thread_fence(std::memory_order_seq_cst);  // the kernel writes the flags first, then looks at the switch
    return !has_work() && ended() == 0;
}

int Ring::find_room(const std::vector<bool>& used, std::uint64_t count) const noexcept {
    std::uint64_t run = 0;
    for (std::size_t i = 0; i < used.size(); ++i) {
        run = used[i] ? 0 : run + 1;
        if (run == count) return static_cast<int>(i + 1 - count);
    }
    return -1;
}

int Ring::add_file(int fd) noexcept {
    const int slot = find_room(file_used_, 1);
    if (slot < 0 || ::io_uring_register_files_update(&raw_, static_cast<unsigned>(slot), &fd, 1) != 1) return -1;
    file_used_[static_cast<std::size_t>(slot)] = true;
    return slot;
}

void Ring::drop_file(int slot) noexcept {
    const int none = -1;
    ::io_uring_register_files_update(&raw_, static_cast<unsigned>(slot), &none, 1);
    file_used_[static_cast<std::size_t>(slot)] = false;
}

int Ring::add_buffer(void* base, std::uint64_t length, std::uint64_t* slice_bytes, int* error) noexcept {
    *error = 0;
    while (*slice_bytes / 2 >= std::max(length, kMinSlice)) *slice_bytes /= 2;
    for (; *slice_bytes >= kMinSlice; *slice_bytes /= 2) {
        const std::uint64_t count = (length + *slice_bytes - 1) / *slice_bytes;
        const int first = find_room(buffer_used_, count);
        if (first < 0) return -1;
        std::uint64_t done = 0;
        for (; done < count; ++done) {
            const std::uint64_t at = done * *slice_bytes;
            const iovec slice = {static_cast<char*>(base) + at, std::min(*slice_bytes, length - at)};
            const __u64 tag = 0;
            const int result = ::io_uring_register_buffers_update_tag(
                &raw_, static_cast<unsigned>(first) + static_cast<unsigned>(done), &slice, &tag, 1);
            if (result == 1) continue;
            *error = result < 0 ? -result : ENOMEM;
            break;
        }
        std::fill_n(buffer_used_.begin() + first, static_cast<std::ptrdiff_t>(done), true);
        if (done == count) return first;
        drop_buffer(first, done);
        // What is too large or too scattered may be taken in parts; a limit on locked memory holds for all of them together.
        if (done != 0) return -1;
    }
    return -1;
}

void Ring::drop_buffer(int first, std::uint64_t count) noexcept {
    for (std::uint64_t i = 0; i < count; ++i) {
        const iovec none = {nullptr, 0};
        const __u64 tag = 0;
        const auto slot = static_cast<unsigned>(first) + static_cast<unsigned>(i);
        ::io_uring_register_buffers_update_tag(&raw_, slot, &none, &tag, 1);
        buffer_used_[slot] = false;
    }
}

}  // namespace nvme_backend
