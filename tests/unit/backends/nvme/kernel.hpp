// SPDX-License-Identifier: Apache-2.0
// kernel.hpp - what a test lets the kernel answer: the back end's calls of liburing come by here, where the linker leads them.
#pragma once

#include <liburing.h>

#include <deque>
#include <functional>
#include <vector>

namespace nvme_test {

struct Kernel {
    // The next calls that have requests to hand in fail with these errnos, and nothing is taken.
    std::deque<int> refusals;
    // Flags that a ring cannot have here, those of all rings that were asked for, and the errno that they get.
    unsigned unknown_flags = 0;
    std::vector<unsigned> rings;
    int setup_error = EINVAL;
    // Places for completions of new rings; 0 = as many as usual.
    unsigned places = 0;
    // Completions of no meaning that are there before the next call hands in anything.
    unsigned noise = 0;
    bool overflowed = false;  // there was no place for some of them
    unsigned waits = 0;       // calls that sleep when nothing has ended
    // Each request before the kernel has it, and each completion before the back end sees it; both may be changed.
    std::function<void(io_uring_sqe&)> on_request;
    std::function<void(io_uring_cqe&)> on_completion;
    // What registering a piece of memory comes to: an errno, or 0 = what the kernel says.
    std::function<int(const iovec&)> on_buffer;
};

// The one that all rings of the process have. Tests begin with a plain one.
Kernel& kernel();

}  // namespace nvme_test
