// SPDX-License-Identifier: Apache-2.0
// report.hpp - what the soak did and what went wrong: counters, failures, the summary.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "pegaflow/result.hpp"

namespace pegaflow::soak {

enum class Kind { kToHost, kToGpu, kWithinGpu, kBetweenDevices, kMixed, kPeerRead, kPeerWrite, kCount };
const char* name_of(Kind kind);

// Who does what: with the seed, all that is needed to find the choices again.
struct Where {
    std::string thread;  // "main cuda:0 worker 2"
    std::uint64_t iteration = 0;
};

// Thrown by what cannot go on; each thread of the soak reports it as a failure and ends.
struct Trouble {
    std::string text;
};

template <class T>
T need(Result<T> result, const char* what) {
    if (!result) throw Trouble{std::string(what) + ": " + result.error().message};
    return std::move(*result);
}
inline void need(const Result<void>& result, const char* what) {
    if (!result) throw Trouble{std::string(what) + ": " + result.error().message};
}

struct Gpu {
    std::string device, name;
};

class Report {
public:
    Report(std::uint64_t seed, bool json) : seed_(seed), json_(json) {}

    // Prints it at once; everyone ends soon.
    void fail(const Where& where, const std::string& text);
    // For what can never be cleaned up: prints the summary and ends the process.
    [[noreturn]] void abandon(const Where& where, const std::string& text);
    // Said once, and again in the summary.
    void skip(const std::string& text);
    bool failed() const noexcept { return failures_.load() != 0; }
    // Prints the summary; whether all was right.
    bool finish();

    std::uint64_t seed() const noexcept { return seed_; }

    std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(Kind::kCount)> transfers{};
    std::atomic<std::uint64_t> ended_well{0}, cancelled{0}, not_started{0};
    std::atomic<std::uint64_t> bytes_moved{0}, bytes_verified{0};
    std::atomic<std::uint64_t> wrong_bytes{0}, leaks{0};
    std::atomic<std::uint64_t> cancels_asked{0}, cancels_late{0};
    std::atomic<std::uint64_t> sessions{0}, regions{0}, closed_in_flight{0}, gates{0}, marks{0};
    std::atomic<std::uint64_t> peers_killed{0}, peer_lost{0}, peer_rounds{0};
    // Set before threads start:
    std::vector<Gpu> gpus;
    int driver = 0;
    std::string resources;  // of the end, against those after the warm-up; set when threads have ended

private:
    std::string as_json(double seconds);
    std::string as_text(double seconds);
    std::uint64_t all_transfers() const;

    const std::uint64_t seed_;
    const bool json_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    std::atomic<std::uint64_t> failures_{0};
    std::mutex mutex_;
    std::vector<std::string> texts_, skips_;  // guarded by mutex_
};

}  // namespace pegaflow::soak
