// SPDX-License-Identifier: Apache-2.0
// conformance.hpp - the suites that every back end and every policy passes, run on a module file, ours or a stranger's, through
// the C ABI alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pegaflow/abi/policy.h"

namespace pegaflow::conformance {

enum class Outcome { kPassed = 0, kFailed = 1, kSkipped = 2 };

struct CheckResult {
    std::string name;
    Outcome outcome = Outcome::kPassed;
    std::string text;  // what was wrong, or why it was skipped
};

struct Options {
    std::string path;                                   // the module file
    std::vector<std::string> options;                   // "key=value" for probe and open
    std::uint64_t seed = 1;                             // of the random batches
    std::string only;                                   // run only checks whose name contains this
    std::vector<std::string> companions;                // further module files that an interposer may ask for by name
    std::function<void(const std::string&)> on_begin;   // called before each check
    std::function<void(const CheckResult&)> on_result;  // called after each check
    std::size_t pass_over = 0;                          // checks at the beginning that are left out
};

// Runs the suites of what the module offers: those of policies, or that of back ends, where each check opens the first device
// afresh. A module that cannot be used at all is one failed check: "entry" (the file, its symbol, its version) or "tables"
// (one of them or a mandatory member is missing), by the words with which the core refuses it. [serial]
std::vector<CheckResult> run(const Options& options);

// The same in a process of its own, forked here: a module that crashes, ends the process or takes longer than `limit` for one
// check has failed that check, and a new process goes on with the next one. The calling process loads no module and has no
// other threads. [serial]
std::vector<CheckResult> run_apart(const Options& options, std::chrono::seconds limit);

// Policies by their tables; null = not offered.
struct PolicySubject {
    const pega_eviction_table* eviction = nullptr;
    const pega_admission_table* admission = nullptr;
    const pega_host* host = nullptr;
    std::vector<pega_option> options;  // for create
};
// Runs the suites of policies. [serial]
std::vector<CheckResult> run(const PolicySubject& subject, std::uint64_t seed = 1, const std::string& only = "");

}  // namespace pegaflow::conformance
