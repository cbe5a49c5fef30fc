// SPDX-License-Identifier: Apache-2.0
// fault.cpp - wraps a back end and makes it misbehave by rule and seed.
//
// Options: seed=N; fail=P[:STATUS], hang=P, stuck=P, drop=P, corrupt=P, reorder=P with P a probability from 0 to 1; stuck_ms=N
// is how long a stuck batch stays so; delay_us=N for every end; op=read|write limits the rules to one direction; after=N leaves
// the first N batches alone, times=N all that come when N have met a rule. Without rules it changes nothing.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <string>

#include "../forward/forward.hpp"

namespace interposer {
namespace {

constexpr std::uint64_t kLongestStuckMs = 3'600'000;

struct Rules {
    double fail = 0, hang = 0, stuck = 0, drop = 0, corrupt = 0, reorder = 0;
    std::int32_t status = PEGA_RETRY_OTHER_PATH;
    std::uint64_t delay_ns = 0, stuck_ns = 1'000'000'000, after = 0, times = UINT64_MAX, seed = 1;
    std::uint32_t op = 0;  // 0 = both
};

class Fault final : public Hooks {
public:
    explicit Fault(const Rules& rules) : rules_(rules), random_(rules.seed) {}

    Verdict decide(const pega_batch& batch) override {
        Verdict verdict;
        const std::lock_guard lock(mutex_);
        if (count_++ < rules_.after || (rules_.op != 0 && rules_.op != batch.op) || met_ >= rules_.times) return verdict;
        verdict.delay_ns = rules_.delay_ns;
        if (chance(rules_.hang)) {
            verdict.hang = true;
        } else if (chance(rules_.stuck)) {
            verdict.stuck_ns = rules_.stuck_ns;
        } else if (chance(rules_.fail)) {
            verdict.fail = rules_.status;
        } else if (chance(rules_.drop)) {
            verdict.drop = true;
        } else {
            verdict.corrupt = chance(rules_.corrupt);
            verdict.reorder = chance(rules_.reorder);
        }
        met_ += verdict.hang || verdict.stuck_ns != 0 || verdict.fail != PEGA_OK || verdict.drop || verdict.corrupt ||
                        verdict.reorder
                    ? 1
                    : 0;
        return verdict;
    }
    void ended(const pega_batch&, const pega_completion&, std::uint64_t) override {}
    bool corrupts() const override { return rules_.corrupt > 0; }

private:
    bool chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(random_) < p; }

    const Rules rules_;
    std::mutex mutex_;
    std::mt19937_64 random_;   // guarded by mutex_
    std::uint64_t count_ = 0;  // guarded by mutex_
    std::uint64_t met_ = 0;    // guarded by mutex_; batches that met a rule
};

bool parse_probability(const char* text, double* out) {
    char* end = nullptr;
    *out = std::strtod(text, &end);
    return end != text && (*end == '\0' || *end == ':') && *out >= 0 && *out <= 1;
}

bool parse_number(const char* text, std::uint64_t* out) {
    char* end = nullptr;
    *out = std::strtoull(text, &end, 10);
    return end != text && *end == '\0' && *text != '-';
}

bool parse_status(const char* text, std::int32_t* out) {
    static constexpr struct {
        const char* name;
        std::int32_t value;
    } kNames[] = {{"RETRY", PEGA_RETRY},         {"RETRY_OTHER_PATH", PEGA_RETRY_OTHER_PATH},
                  {"PEER_LOST", PEGA_PEER_LOST}, {"REGION_LOST", PEGA_REGION_LOST},
                  {"NO_MEMORY", PEGA_NO_MEMORY}, {"CORRUPT", PEGA_CORRUPT},
                  {"CANCELED", PEGA_CANCELED}};
    for (const auto& known : kNames) {
        if (std::strcmp(text, known.name) == 0) {
            *out = known.value;
            return true;
        }
    }
    return false;
}

bool apply(Rules& rules, const char* key, const char* value) {
    std::uint64_t number = 0;
    if (std::strcmp(key, "hang") == 0) return parse_probability(value, &rules.hang);
    if (std::strcmp(key, "stuck") == 0) return parse_probability(value, &rules.stuck);
    if (std::strcmp(key, "stuck_ms") == 0) {
        const bool good = parse_number(value, &number) && number > 0 && number <= kLongestStuckMs;
        rules.stuck_ns = number * 1'000'000;
        return good;
    }
    if (std::strcmp(key, "drop") == 0) return parse_probability(value, &rules.drop);
    if (std::strcmp(key, "corrupt") == 0) return parse_probability(value, &rules.corrupt);
    if (std::strcmp(key, "reorder") == 0) return parse_probability(value, &rules.reorder);
    if (std::strcmp(key, "seed") == 0) return parse_number(value, &rules.seed);
    if (std::strcmp(key, "times") == 0) return parse_number(value, &rules.times);
    if (std::strcmp(key, "after") == 0) return parse_number(value, &rules.after);
    if (std::strcmp(key, "delay_us") == 0) {
        const bool good = parse_number(value, &number);
        rules.delay_ns = number * 1000;
        return good;
    }
    if (std::strcmp(key, "fail") == 0) {
        const char* colon = std::strchr(value, ':');
        return parse_probability(value, &rules.fail) && (colon == nullptr || parse_status(colon + 1, &rules.status));
    }
    if (std::strcmp(key, "op") == 0) {
        rules.op = std::strcmp(value, "read") == 0 ? PEGA_OP_READ : PEGA_OP_WRITE;
        return rules.op == PEGA_OP_READ || std::strcmp(value, "write") == 0;
    }
    return std::strncmp(key, "inner", 5) == 0;
}

}  // namespace

const char* const kName = "fault";

std::unique_ptr<Hooks> make_hooks(const pega_host* host, const pega_option* options, std::uint32_t count) {
    Rules rules;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (apply(rules, options[i].key, options[i].value)) continue;
        pegaflow::backend::log(
            host, PEGA_LOG_ERROR, "fault",
            "option %s=%s is not valid; there are seed, after, times, delay_us, stuck_ms (numbers), hang, stuck, "
            "drop, corrupt, reorder (0 to 1), fail (0 to 1, then :STATUS), op (read or write)",
            options[i].key, options[i].value);
        return nullptr;
    }
    return std::make_unique<Fault>(rules);
}

}  // namespace interposer
