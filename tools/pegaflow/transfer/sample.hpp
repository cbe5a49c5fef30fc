// SPDX-License-Identifier: Apache-2.0
// sample.hpp - runs transfers and times them: alone, several at a time, and both directions at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "tools/pegaflow/transfer/job.hpp"
#include "tools/pegaflow/transfer/sides.hpp"

namespace pegaflow::cli {

struct Plan {
    Shape shape;
    bool to_device = false;
    std::uint32_t outstanding = 4;  // of pipelined runs, for each thread
    std::uint32_t iterations = 20, warmup = 5, repetitions = 5;
    double seconds = 0;         // of a repetition, instead of iterations: half alone, half pipelined; 0 = count
    std::uint32_t threads = 1;  // that submit in pipelined runs, each through a channel of its own
    std::uint64_t batch = 0;    // blocks a submission; 0 = a transfer is one submission
    std::uint64_t seed = 1;
    bool verify = true;
    bool digests = false;  // asked for along with the bytes

    // Transfers whose memory does not meet.
    std::uint32_t slots() const noexcept { return threads * outstanding; }
    std::uint64_t device_bytes() const noexcept { return slots() * shape.device_bytes(); }
    std::uint64_t host_bytes() const noexcept { return slots() * shape.host_bytes(); }
};

// What one point gave. Times are those of single transfers, rates those of pipelined ones.
struct Point {
    std::vector<double> solo_us, submit_us;
    std::vector<double> rates;    // bytes per second, one a repetition
    std::vector<double> cpu_pct;  // processor time of this process in percent of the time, of pipelined runs
    std::uint64_t wrong_bytes = 0;
    bool verified = false;
    bool digested = false;  // the device computed digests
    std::uint64_t wrong_digests = 0;
};

double percentile(std::vector<double> values, double p);
double mean(const std::vector<double>& values);
double deviation(const std::vector<double>& values);  // of the sample; 0 below two values
double cv_percent(const std::vector<double>& values);

// A point under measurement. Its repetitions may lie between those of other points on the same sides, which meets a drift of
// the machine better than one point after the other.
class Measurement {
public:
    // `sides` outlive it, and hold what the plan's slots need.
    static Result<Measurement> open(Sides& sides, const Plan& plan);
    Result<void> repeat();  // the next of the plan's repetitions
    bool is_over() const noexcept { return repetition_ == plan_.repetitions; }
    const Plan& plan() const noexcept { return plan_; }
    const Point& point() const noexcept { return point_; }

private:
    Measurement(Sides& sides, const Plan& plan) : sides_(&sides), plan_(plan), random_(plan.seed) {}
    Result<void> solo();
    Result<void> pipelined();
    Result<void> check(const std::vector<Scatter>& maps);

    Sides* sides_;
    Plan plan_;
    Point point_;
    std::mt19937_64 random_;
    std::uint32_t repetition_ = 0;
    std::vector<Channel*> channels_;  // one a thread
    std::vector<Job> jobs_;           // those of one thread lie together
};

// All repetitions, one after the other.
Result<Point> measure(Sides& sides, const Plan& plan);
// The repetitions of all points in turns, in another order each round, which `seed` tells; `announce` is told before each which
// point and round it is. All points have the same number of repetitions.
Result<void> measure_in_turns(std::vector<Measurement>& points, std::uint64_t seed,
                              const std::function<void(std::size_t point, std::uint32_t round)>& announce);

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
    std::vector<Job> jobs_;
    std::atomic<std::uint64_t> bytes_{0};
};

}  // namespace pegaflow::cli
