// SPDX-License-Identifier: Apache-2.0
#include "time.hpp"

#include <algorithm>
#include <cmath>

namespace pegaflow::python {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kForever = 100.0 * 365 * 24 * 3600;
constexpr std::chrono::nanoseconds kStep = std::chrono::milliseconds(100);  // how late Ctrl-C may be

}  // namespace

std::chrono::nanoseconds to_duration(Seconds seconds) {
    if (!seconds || *seconds > kForever) return std::chrono::nanoseconds::max();
    if (std::isnan(*seconds) || *seconds < 0) raise_invalid("a time must be a number of seconds that is not negative, or None");
    return std::chrono::nanoseconds(static_cast<std::int64_t>(*seconds * 1e9));
}

Clock::time_point to_deadline(Seconds timeout) {
    const std::chrono::nanoseconds left = to_duration(timeout);
    return left == std::chrono::nanoseconds::max() ? Clock::time_point::max() : Clock::now() + left;
}

bool wait_in_steps(Seconds timeout, const std::function<bool(std::chrono::nanoseconds)>& ended) {
    const Clock::time_point deadline = to_deadline(timeout);
    for (;;) {
        const auto left = deadline == Clock::time_point::max()
                              ? kStep
                              : std::clamp<std::chrono::nanoseconds>(deadline - Clock::now(), {}, kStep);
        if (unlocked([&] { return ended(left); })) return true;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (Clock::now() >= deadline) return false;
    }
}

}  // namespace pegaflow::python
