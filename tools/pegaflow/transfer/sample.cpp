// SPDX-License-Identifier: Apache-2.0
#include "tools/pegaflow/transfer/sample.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

namespace pegaflow::cli {
namespace {

using Clock = std::chrono::steady_clock;

double micros(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::micro>(to - from).count();
}

std::vector<Scatter> scatters(Sides& sides, const Plan& plan, std::mt19937_64& random) {
    std::vector<Scatter> out;
    for (std::uint32_t i = 0; i < plan.outstanding; ++i) {
        out.push_back(Scatter::make(plan.shape, sides.local(), i * plan.shape.bytes(), sides.remote(),
                                    i * plan.shape.host_bytes(), random));
    }
    return out;
}

// One after the other, each alone: how long the caller waits.
Result<void> solo(Channel& channel, std::vector<Transfer>& transfers, const Plan& plan, Point& point) {
    for (std::uint32_t i = 0; i < plan.warmup + plan.iterations; ++i) {
        Transfer& transfer = transfers[i % transfers.size()];
        const auto start = Clock::now();
        PEGA_ASSIGN(const Completion done, channel.submit_wait(transfer));
        const auto submitted = Clock::now();
        PEGA_TRY(done.wait());
        const auto end = Clock::now();
        if (i < plan.warmup) continue;
        point.solo_us.push_back(micros(start, end));
        point.submit_us.push_back(micros(start, submitted));
    }
    return {};
}

// Several in flight: what moves in all, from the first submission to the last completion.
Result<double> pipelined(Channel& channel, std::vector<Transfer>& transfers, const Plan& plan) {
    std::vector<Completion> in_flight(transfers.size());
    const auto start = Clock::now();
    const std::uint32_t count = std::max<std::uint32_t>(plan.iterations, plan.outstanding * 4);
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::size_t slot = i % transfers.size();
        if (i >= transfers.size()) PEGA_TRY(in_flight[slot].wait());
        PEGA_ASSIGN(in_flight[slot], channel.submit_wait(transfers[slot]));
    }
    for (const Completion& completion : in_flight) PEGA_TRY(completion.wait());
    return static_cast<double>(count * plan.shape.bytes()) / micros(start, Clock::now()) * 1e6;
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

double cv_percent(const std::vector<double>& values) {
    if (values.size() < 2) return 0;
    const double m = mean(values);
    double squares = 0;
    for (const double v : values) squares += (v - m) * (v - m);
    return 100 * std::sqrt(squares / static_cast<double>(values.size() - 1)) / m;
}

Result<Point> measure(Sides& sides, const Plan& plan) {
    Point point;
    std::mt19937_64 random(plan.seed);
    PEGA_ASSIGN(Channel channel, sides.channel());
    std::vector<Transfer> transfers(plan.outstanding);
    for (std::uint32_t repetition = 0; repetition < plan.repetitions; ++repetition) {
        const auto maps = scatters(sides, plan, random);
        for (std::uint32_t i = 0; i < plan.outstanding; ++i) {
            maps[i].fill(transfers[i], plan.to_device);
            if (plan.digests) transfers[i].digests();
        }
        const bool check = plan.verify && (repetition == 0 || repetition + 1 == plan.repetitions);
        if (check) PEGA_TRY(sides.prepare(plan.to_device, plan.seed + repetition));
        PEGA_TRY(solo(channel, transfers, plan, point));
        PEGA_ASSIGN(const double rate, pipelined(channel, transfers, plan));
        point.rates.push_back(rate);
        if (!check) continue;
        PEGA_ASSIGN(const std::uint64_t wrong, sides.check(maps));
        point.wrong_bytes += wrong;
        point.verified = true;
        const auto* pages = static_cast<const std::byte*>(sides.remote().address());
        for (std::uint32_t i = 0; plan.digests && pages != nullptr && i < plan.outstanding; ++i) {
            const auto sums = transfers[i].digest_sums();
            point.digested = !sums.empty();
            point.wrong_digests += maps[i].wrong_digests(sums, pages);
        }
    }
    return point;
}

Flow::Flow(Sides& sides, const Plan& plan) : sides_(sides), plan_(plan), transfers_(plan.outstanding) {}

Result<void> Flow::open() {
    PEGA_ASSIGN(channel_, sides_.channel());
    std::mt19937_64 random(plan_.seed);
    scatters_ = scatters(sides_, plan_, random);
    for (std::size_t i = 0; i < transfers_.size(); ++i) scatters_[i].fill(transfers_[i], plan_.to_device);
    return {};
}

Result<void> Flow::run(const std::atomic<bool>& stop) {
    std::vector<Completion> in_flight;
    for (std::size_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
        const std::size_t slot = i % transfers_.size();
        if (in_flight.size() == transfers_.size()) {
            PEGA_TRY(in_flight[slot].wait());
            bytes_.fetch_add(plan_.shape.bytes(), std::memory_order_relaxed);
        } else {
            in_flight.emplace_back();
        }
        PEGA_ASSIGN(in_flight[slot], channel_.submit_wait(transfers_[slot]));
    }
    for (const Completion& completion : in_flight) PEGA_TRY(completion.wait());
    return {};
}

}  // namespace pegaflow::cli
