// SPDX-License-Identifier: Apache-2.0
// doctor.hpp - what an examination found, and the examinations that have a file of their own.
#pragma once

#include <string>
#include <vector>

namespace pegaflow::cli {

struct Finding {
    std::string level;  // ok, warn, fail
    std::string subject;
    std::string text;
    std::string advice;
};

// Disks that may hold a cache: kind, scheduler, poll queues, write cache, alignment, link.
void check_disks(std::vector<Finding>& out);

}  // namespace pegaflow::cli
