// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <random>
#include <thread>

#include "pegaflow/bytes.hpp"
#include "tests/torture/tier_torture/verbs.hpp"

namespace pegaflow::torture {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kLookEvery = 4;  // blocks

void say(const std::string& line) {
    // One write a line: what is said is said, whatever happens next.
    if (::write(STDOUT_FILENO, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::_Exit(2);
}

// Reports saved blocks as they become durable, in any order; gives up on those that the tier did not take.
class Watch {
public:
    Watch(Setup& setup, std::uint64_t seed) : setup_(setup), seed_(seed) { say(fmt::format("begin {}\n", seed)); }
    void add(std::uint64_t number) { waiting_.push_back(number); }
    void look() {
        std::erase_if(waiting_, [&](std::uint64_t number) {
            if (!setup_.engine().stored(setup_.of(number).name(), hash_of(seed_, number))) return false;
            say(fmt::format("durable {} {}\n", seed_, number));
            ++durable_;
            return true;
        });
        if (waiting_.size() > 4000) waiting_.erase(waiting_.begin(), waiting_.begin() + 2000);
    }
    std::uint64_t durable() const { return durable_; }

private:
    Setup& setup_;
    std::uint64_t seed_;
    std::vector<std::uint64_t> waiting_;
    std::uint64_t durable_ = 0;
};

// Bursts and pauses, so that extents of all sizes are open when the end comes.
void pause(std::mt19937_64& random) {
    if (random() % 32 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 20'000));
}

}  // namespace

Result<void> write_blocks(const Place& place, std::uint64_t seed, double seconds, std::uint64_t most_bytes) {
    PEGA_ASSIGN(const auto setup, Setup::open(place));
    Watch watch(*setup, seed);
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    std::uint64_t bytes = 0;
    std::mt19937_64 random(seed);
    for (std::uint64_t number = 0; Clock::now() < end && bytes < most_bytes; ++number) {
        PEGA_TRY(setup->save(seed, number));
        bytes += setup->of(number).block_bytes();
        watch.add(number);
        if (number % kLookEvery == 0) watch.look();
        pause(random);
    }
    PEGA_TRY(setup->engine().flush_to_tier(Clock::now() + std::chrono::seconds(60)));
    watch.look();
    std::cerr << fmt::format("# {} written, {} blocks durable\n", format_size(bytes), watch.durable());
    return {};
}

Result<void> churn(const Place& place, std::uint64_t seed) {
    PEGA_ASSIGN(const auto setup, Setup::open(place));
    Watch watch(*setup, seed);
    std::mt19937_64 random(seed);
    // As far back as blocks have gone already: of five, four are small and one is twelve times as large.
    const std::uint64_t back = 2 * place.capacity_bytes / (16 * setup->of(0).block_bytes()) * 5;
    for (std::uint64_t number = 0;; ++number) {
        PEGA_TRY(setup->save(seed, number));
        watch.add(number);
        if (random() % 3 == 0) {
            const std::uint64_t older = number - random() % std::min(number + 1, back);
            PEGA_ASSIGN(const Found found, setup->read(seed, older));
            if (found == Found::kWrongBytes) return fail(Code::kCorrupt, fmt::format("wrong bytes: {} {}", seed, older));
            if (found == Found::kNothing) {
                PEGA_TRY(setup->save(seed, older));
                watch.add(older);
            }
        }
        if (number % kLookEvery == 0) watch.look();
        pause(random);
    }
}

}  // namespace pegaflow::torture
