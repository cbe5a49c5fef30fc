// SPDX-License-Identifier: Apache-2.0
// time.hpp - seconds as Python gives them, and waits that a signal can interrupt.
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "errors.hpp"

namespace pegaflow::python {

using Seconds = std::optional<double>;  // None = no limit

// nanoseconds::max() for None and for anything longer than a century; ValueError when negative or not a number.
std::chrono::nanoseconds to_duration(Seconds seconds);
std::chrono::steady_clock::time_point to_deadline(Seconds timeout);

// Calls `ended` without the lock, each time with a short while to wait, until it returns true or the time is up; in between
// lets Python handle signals. False = the time is up.
bool wait_in_steps(Seconds timeout, const std::function<bool(std::chrono::nanoseconds)>& ended);

}  // namespace pegaflow::python
