// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/sample.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <span>
#include <thread>

namespace pegaflow::cli {
namespace {

using Clock = std::chrono::steady_clock;

double micros(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::micro>(to - from).count();
}

double cpu_micros() {
    rusage use{};
    ::getrusage(RUSAGE_SELF, &use);
    const auto value = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec); };
    return value(use.ru_utime) + value(use.ru_stime);
}

std::vector<Scatter> scatters(Sides& sides, const Plan& plan, std::mt19937_64& random) {
    std::vector<Scatter> out;
    for (std::uint32_t i = 0; i < plan.slots(); ++i) {
        out.push_back(Scatter::make(plan.shape, sides.local(), i * plan.shape.device_bytes(), sides.remote(),
                                    i * plan.shape.host_bytes(), random));
    }
    return out;
}

// When a run ends: after so many transfers, and not before a time.
struct End {
    std::uint64_t transfers = 1;
    Clock::time_point time = Clock::time_point::min();
    bool reached(std::uint64_t done) const {
        return done >= transfers && (time == Clock::time_point::min() || Clock::now() >= time);
    }
};

// Of half a repetition: after `count`, or where seconds were asked for, after half of them and at least `least` transfers.
End end_of(const Plan& plan, std::uint64_t count, std::uint64_t least) {
    if (plan.seconds <= 0) return {count};
    const std::chrono::duration<double> half(plan.seconds / 2);
    return {least, Clock::now() + std::chrono::duration_cast<Clock::duration>(half)};
}

// What one thread of a pipelined run has moved, and when.
struct Stretch {
    Clock::time_point start, end;
    std::uint64_t transfers = 0;
    Result<void> outcome;
};

// Several in flight, from the first submission to the last completion.
Stretch keep_full(Channel& channel, std::span<Job> jobs, const Plan& plan) {
    Stretch out;
    out.start = Clock::now();
    // Each job at least once: what none has moved would be found wrong.
    const End end = end_of(plan, std::max<std::uint64_t>(plan.iterations, plan.outstanding * 4), jobs.size());
    for (; !end.reached(out.transfers) && out.outcome; ++out.transfers) {
        Job& job = jobs[out.transfers % jobs.size()];
        out.outcome = job.wait();
        if (out.outcome) out.outcome = job.submit(channel);
    }
    for (Job& job : jobs) {
        auto last = job.wait();
        if (out.outcome) out.outcome = std::move(last);
    }
    out.end = Clock::now();
    return out;
}

}  // namespace

double percentile(std::vector<double> values, double p) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1) + 0.5)];
}

double mean(const std::vector<double>& values) {
    return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
    if (values.size() < 2) return 0;
    const double m = mean(values);
    double squares = 0;
    for (const double v : values) squares += (v - m) * (v - m);
    return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double cv_percent(const std::vector<double>& values) { return values.size() < 2 ? 0 : 100 * deviation(values) / mean(values); }

Result<Measurement> Measurement::open(Sides& sides, const Plan& plan) {
    Measurement out(sides, plan);
    for (std::uint32_t i = 0; i < plan.threads; ++i) {
        PEGA_ASSIGN(Channel* const channel, sides.worker_channel(i));
        out.channels_.push_back(channel);
    }
    out.jobs_.resize(plan.slots());
    return out;
}

// One after the other, each alone: how long the caller waits.
Result<void> Measurement::solo() {
    const std::size_t own = plan_.outstanding;  // of the first thread
    for (std::uint32_t i = 0; i < plan_.warmup; ++i) {
        PEGA_TRY(jobs_[i % own].submit(*channels_[0]));
        PEGA_TRY(jobs_[i % own].wait());
    }
    const End end = end_of(plan_, plan_.iterations, 1);
    for (std::uint64_t i = 0; !end.reached(i); ++i) {
        Job& job = jobs_[(plan_.warmup + i) % own];
        const auto start = Clock::now();
        PEGA_TRY(job.submit(*channels_[0]));
        const auto submitted = Clock::now();
        PEGA_TRY(job.wait());
        point_.solo_us.push_back(micros(start, Clock::now()));
        point_.submit_us.push_back(micros(start, submitted));
    }
    return {};
}

// All threads at once: what moves in all, from the first submission to the last completion.
Result<void> Measurement::pipelined() {
    std::vector<Stretch> stretches(plan_.threads);
    const auto run = [&](std::size_t i) {
        stretches[i] = keep_full(*channels_[i], std::span(jobs_).subspan(i * plan_.outstanding, plan_.outstanding), plan_);
    };
    const double cpu = cpu_micros();
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < plan_.threads; ++i) others.emplace_back(run, i);
    run(0);
    for (std::thread& thread : others) thread.join();
    const double used = cpu_micros() - cpu;
    Clock::time_point start = stretches[0].start;
    Clock::time_point end = stretches[0].end;
    std::uint64_t transfers = 0;
    for (Stretch& stretch : stretches) {
        PEGA_TRY(std::move(stretch.outcome));
        start = std::min(start, stretch.start);
        end = std::max(end, stretch.end);
        transfers += stretch.transfers;
    }
    point_.rates.push_back(static_cast<double>(transfers * plan_.shape.bytes()) / micros(start, end) * 1e6);
    point_.cpu_pct.push_back(100 * used / micros(start, end));
    return {};
}

Result<void> Measurement::check(const std::vector<Scatter>& maps) {
    PEGA_ASSIGN(const std::uint64_t wrong, sides_->check(maps));
    point_.wrong_bytes += wrong;
    point_.verified = true;
    const auto* pages = static_cast<const std::byte*>(sides_->remote().address());
    for (std::size_t i = 0; plan_.digests && pages != nullptr && i < maps.size(); ++i) {
        const auto sums = jobs_[i].digest_sums();
        point_.digested = !sums.empty();
        point_.wrong_digests += maps[i].wrong_digests(sums, pages);
    }
    return {};
}

Result<void> Measurement::repeat() {
    const auto maps = scatters(*sides_, plan_, random_);
    for (std::size_t i = 0; i < jobs_.size(); ++i) jobs_[i].fill(maps[i], plan_.to_device, plan_.batch, plan_.digests);
    const bool checks = plan_.verify && (repetition_ == 0 || repetition_ + 1 == plan_.repetitions);
    if (checks) PEGA_TRY(sides_->prepare(plan_.to_device, plan_.seed + repetition_));
    PEGA_TRY(solo());
    PEGA_TRY(pipelined());
    ++repetition_;
    return checks ? check(maps) : Result<void>();
}

Result<Point> measure(Sides& sides, const Plan& plan) {
    PEGA_ASSIGN(Measurement measurement, Measurement::open(sides, plan));
    while (!measurement.is_over()) PEGA_TRY(measurement.repeat());
    return measurement.point();
}

Result<void> measure_in_turns(std::vector<Measurement>& points, std::uint64_t seed,
                              const std::function<void(std::size_t, std::uint32_t)>& announce) {
    std::mt19937_64 random(seed);
    std::vector<std::size_t> order(points.size());
    std::iota(order.begin(), order.end(), 0);
    for (std::uint32_t round = 0; !points.empty() && !points[0].is_over(); ++round) {
        if (round != 0) std::shuffle(order.begin(), order.end(), random);
        for (const std::size_t i : order) {
            announce(i, round);
            PEGA_TRY(points[i].repeat());
        }
    }
    return {};
}

Flow::Flow(Sides& sides, const Plan& plan) : sides_(sides), plan_(plan), jobs_(plan.outstanding) {}

Result<void> Flow::open() {
    PEGA_ASSIGN(channel_, sides_.channel());
    std::mt19937_64 random(plan_.seed);
    const auto maps = scatters(sides_, plan_, random);
    for (std::size_t i = 0; i < jobs_.size(); ++i) jobs_[i].fill(maps[i], plan_.to_device, plan_.batch, false);
    return {};
}

Result<void> Flow::run(const std::atomic<bool>& stop) {
    for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        Job& job = jobs_[i % jobs_.size()];
        if (i >= jobs_.size()) {
            PEGA_TRY(job.wait());
            bytes_.fetch_add(plan_.shape.bytes(), std::memory_order_relaxed);
        }
        PEGA_TRY(job.submit(channel_));
    }
    for (Job& job : jobs_) PEGA_TRY(job.wait());
    return {};
}

}  // namespace pegaflow::cli
