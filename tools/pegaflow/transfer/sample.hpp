// SPDX-License-Identifier: Apache-2.0
// sample.hpp - runs transfers and times them: alone, several at a time, and both directions at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/pegaflow/transfer/sides.hpp"

namespace pegaflow::cli {

struct Plan {
    Shape shape;
    bool to_device = false;
    std::uint32_t outstanding = 4;  // of pipelined runs
    std::uint32_t iterations = 20, warmup = 3, repetitions = 5;
    std::uint64_t seed = 1;
    bool verify = true;
    bool digests = false;  // asked for along with the bytes
};

// What one point gave. Times are those of single transfers, rates those of pipelined ones.
struct Point {
    std::vector<double> solo_us, submit_us;
    std::vector<double> rates;  // bytes per second, one a repetition
    std::uint64_t wrong_bytes = 0;
    bool verified = false;
    bool digested = false;  // the device computed digests
    std::uint64_t wrong_digests = 0;
};

double percentile(std::vector<double> values, double p);
double mean(const std::vector<double>& values);
double cv_percent(const std::vector<double>& values);

Result<Point> measure(Sides& sides, const Plan& plan);

// Transfers of one direction until `stop`: counts what has completed. For measurements of several things at once.
class Flow {
public:
    Flow(Sides& sides, const Plan& plan);
    Result<void> open();
    Result<void> run(const std::atomic<bool>& stop);
    std::uint64_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

private:
    Sides& sides_;
    Plan plan_;
    Channel channel_;
    std::vector<Scatter> scatters_;
    std::vector<Transfer> transfers_;
    std::atomic<std::uint64_t> bytes_{0};
};

}  // namespace pegaflow::cli
