// SPDX-License-Identifier: Apache-2.0
// ring.hpp - one io_uring with its tables of registered files and buffers, set up as well as the kernel allows.
//
// Belongs to the thread that opened it when `deferred()`; else to whoever holds the device's poll mutex.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <string>
#include <vector>

#include "options.hpp"

namespace nvme_backend {

constexpr std::uint64_t kNoTimeout = UINT64_MAX;

class Ring {
public:
    Ring() = default;
    ~Ring();
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    // Tries the best set of flags first, then plainer ones. 0 or an errno.
    int open(const Options& options, bool deferred);
    // What the kernel has of it goes on until it ends.
    void close() noexcept;
    // After close: whether the kernel has let go of everything; waits for it for so long.
    bool gone(int milliseconds) const noexcept;

    bool is_open() const noexcept { return open_; }
    bool deferred() const noexcept { return (raw_.flags & IORING_SETUP_DEFER_TASKRUN) != 0; }
    bool polled() const noexcept { return (raw_.flags & IORING_SETUP_IOPOLL) != 0; }
    bool wide() const noexcept { return (raw_.flags & IORING_SETUP_SQE128) != 0; }
    io_uring& raw() noexcept { return raw_; }

    // Room for a request, handing in what waits when there is none; null when the kernel takes nothing now.
    io_uring_sqe* entry() noexcept;
    // Hands in what was prepared. What the kernel does not take now (it was interrupted, or is short of something) stays
    // prepared, and goes with the next call. [data]
    void submit() noexcept;
    // Something is prepared that the kernel does not have. [data]
    bool unsent() const noexcept { return ::io_uring_sq_ready(&raw_) != 0; }
    // Why the kernel does not take it, and will not when it is asked again; 0 = it may. [data]
    int refusal() const noexcept { return refusal_; }
    // Forgets what the kernel does not have. The user data of those requests, in their order.
    std::vector<std::uint64_t> take_back();
    // As submit, and lets completion work run when nothing is there to reap. [data]
    void flush(bool busy) noexcept;
    // As submit, but sleeps until a completion or for so long; kNoTimeout = for ever.
    void wait(std::uint64_t timeout_ns) noexcept;
    // How many completions are there to reap, and whether more are known to come by a flush. [data]
    unsigned ended() const noexcept { return ::io_uring_cq_ready(&raw_); }
    bool has_work() const noexcept;
    // The next request goes as soon as another follows: the device has little to do. [data]
    void hurry() noexcept { hurry_ = true; }

    // From now on the eventfd becomes readable when there is something to reap; -1 = no longer. False when there is already.
    bool announce(int event_fd) noexcept;

    // A slot of the table of files, or -1 when there is no table or no room.
    int add_file(int fd) noexcept;
    void drop_file(int slot) noexcept;
    // Registers the memory in slices of *slice_bytes, made smaller while the kernel refuses. The first of consecutive slots, or
    // -1: then `error` is the kernel's reason, 0 = the table is full or not there.
    int add_buffer(void* base, std::uint64_t length, std::uint64_t* slice_bytes, int* error) noexcept;
    void drop_buffer(int first, std::uint64_t count) noexcept;

private:
    int find_room(const std::vector<bool>& used, std::uint64_t count) const noexcept;
    void note(int result) noexcept;
    void make_tables(bool fixed) noexcept;

    io_uring raw_{};
    bool open_ = false;
    bool hurry_ = false;
    int refusal_ = 0;
    int lifeline_ = -1;                            // end of a pipe whose other end the ring alone has
    bool announced_ = false, announcing_ = false;  // the eventfd is known; it is written to
    std::vector<bool> file_used_, buffer_used_;
};

}  // namespace nvme_backend
