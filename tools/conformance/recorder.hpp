// SPDX-License-Identifier: Apache-2.0
// recorder.hpp - the results of one run: which checks it wants, how each ended, and who hears of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/conformance/conformance.hpp"
#include "tools/conformance/fixture.hpp"

namespace pegaflow::conformance {

class Recorder {
public:
    // `options` is borrowed.
    explicit Recorder(const Options& options) : options_(options) {}

    // Runs a check, unless it is not wanted. False when it failed.
    template <class Work>
    bool check(const std::string& name, Work work) {
        if (name.find(options_.only) == std::string::npos || reached_++ < options_.pass_over) return true;
        if (options_.on_begin) options_.on_begin(name);
        CheckResult result{name, Outcome::kPassed, ""};
        try {
            work();
        } catch (const Skipped& why) {
            result = {name, Outcome::kSkipped, why.what()};
        } catch (const std::exception& what) {
            result = {name, Outcome::kFailed, what.what()};
        }
        add(std::move(result));
        return results_.back().outcome != Outcome::kFailed;
    }
    void add(CheckResult result) {
        if (options_.on_result) options_.on_result(result);
        results_.push_back(std::move(result));
    }
    std::vector<CheckResult> take() { return std::move(results_); }

private:
    const Options& options_;
    std::size_t reached_ = 0;
    std::vector<CheckResult> results_;
};

// checks_policy.cpp
void run_policies(const PolicySubject& subject, std::uint64_t seed, Recorder& recorder);

}  // namespace pegaflow::conformance
