// SPDX-License-Identifier: Apache-2.0
// phase.hpp - a stretch of the soak: what its threads share, and running them until it is over and everything is closed.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pegaflow/transfer.hpp"
#include "tests/torture/cuda_soak/driver.hpp"
#include "tests/torture/cuda_soak/random.hpp"
#include "tests/torture/cuda_soak/watch.hpp"

namespace pegaflow::soak {

// What the threads of one phase share.
struct Phase {
    std::uint64_t id = 0;  // part of what choices follow from
    Report* report = nullptr;
    Watch* watch = nullptr;
    std::string name;                  // "warm-up" or "main"
    std::vector<std::string> devices;  // one or two
    std::map<std::string, const HeldGpu*> gpus;
    std::chrono::steady_clock::time_point end;
    std::unique_ptr<Fabric> looking;            // path = loop, for checkers
    std::vector<std::unique_ptr<Fabric>> pool;  // one a path, shared by all threads
    bool over() const { return report->failed() || std::chrono::steady_clock::now() >= end; }
};

// A Fabric of the cuda back end with that path and options that are chosen.
std::unique_ptr<Fabric> open_fabric(const std::string& path, Random& random);
const std::vector<std::string>& all_paths();

// Runs so many workers a GPU, and one thread a GPU with other processes. `phase` has its report, watch, name, id, devices,
// gpus.
void run_phase(Phase& phase, std::uint64_t workers, std::chrono::milliseconds time);

}  // namespace pegaflow::soak
