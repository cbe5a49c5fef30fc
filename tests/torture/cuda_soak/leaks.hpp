// SPDX-License-Identifier: Apache-2.0
// leaks.hpp - what a process holds, counted when everything of the soak is closed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/torture/cuda_soak/driver.hpp"
#include "tests/torture/cuda_soak/report.hpp"

namespace pegaflow::soak {

struct Resources {
    std::uint64_t descriptors = 0, threads = 0, resident = 0;
    std::map<std::string, std::uint64_t> gpu_used;  // bytes, by device; those that the driver tells
    std::vector<std::string> objects;               // of this process in /dev/shm
    static Resources count(const std::map<std::string, const HeldGpu*>& gpus);
};

// Reports what is more than before; waits a while for what goes by itself.
void check_leaks(const Resources& before, const std::map<std::string, const HeldGpu*>& gpus, bool fake, Report& report);

}  // namespace pegaflow::soak
