// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <cstdlib>
#include <cstring>

namespace nvme_backend {
namespace {

// A number with an optional suffix K, M or G.
bool parse_number(const char* text, std::uint64_t low, std::uint64_t high, std::uint64_t* out) {
    char* end = nullptr;
    if (*text < '0' || *text > '9') return false;
    std::uint64_t value = std::strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*end == 'k' || *end == 'K') shift = 10;
    if (*end == 'm' || *end == 'M') shift = 20;
    if (*end == 'g' || *end == 'G') shift = 30;
    if (end[shift != 0 ? 1 : 0] != '\0' || value > high >> shift) return false;
    value <<= shift;
    *out = value;
    return value >= low;
}

bool parse_switch(const char* text, bool* out) {
    *out = std::strcmp(text, "on") == 0;
    return *out || std::strcmp(text, "off") == 0;
}

struct Number {
    const char* key;
    std::uint64_t low, high;
    bool power_of_two;
};

constexpr Number kIoBytes = {"io_bytes", 4096, 16 << 20, true};
constexpr Number kStripeBytes = {"stripe_bytes", 4096, 1 << 30, true};
constexpr Number kDepth = {"depth", 1, 4096, false};
constexpr Number kDepthBytes = {"depth_bytes", 4096, std::uint64_t{1} << 32, false};
constexpr Number kHandles = {"handles", 1, 64, false};

bool take(const pega_option& option, const Number& rule, std::uint64_t* out, std::string* why) {
    if (parse_number(option.value, rule.low, rule.high, out) && (!rule.power_of_two || (*out & (*out - 1)) == 0)) return true;
    *why = std::string("option ") + rule.key + " is \"" + option.value + "\", expected a number" +
           (rule.power_of_two ? " that is a power of two" : "") + " from " + std::to_string(rule.low) + " to " +
           std::to_string(rule.high);
    return false;
}

bool take(const pega_option& option, bool* out, std::string* why) {
    if (parse_switch(option.value, out)) return true;
    *why = std::string("option ") + option.key + " is \"" + option.value + "\", expected on or off";
    return false;
}

bool take_ring(const pega_option& option, RingKind* out, std::string* why) {
    constexpr struct {
        const char* name;
        RingKind kind;
    } kNames[] = {{"auto", RingKind::kAuto}, {"deferred", RingKind::kDeferred}, {"shared", RingKind::kShared}};
    for (const auto& known : kNames) {
        if (std::strcmp(option.value, known.name) != 0) continue;
        *out = known.kind;
        return true;
    }
    *why = std::string("option ring is \"") + option.value + "\", expected auto, deferred or shared";
    return false;
}

bool parse_one(const pega_option& option, Options* out, std::string* why) {
    const auto is = [&](const char* key) { return std::strcmp(option.key, key) == 0; };
    std::uint64_t number = 0;
    if (is("directory")) {
        out->directory = option.value;
        return true;
    }
    if (is("io_bytes")) return take(option, kIoBytes, &out->io_bytes, why);
    if (is("stripe_bytes")) return take(option, kStripeBytes, &out->stripe_bytes, why);
    if (is("depth_bytes")) return take(option, kDepthBytes, &out->depth_bytes, why);
    if (is("depth") || is("handles")) {
        const bool good = take(option, is("depth") ? kDepth : kHandles, &number, why);
        (is("depth") ? out->depth : out->handles) = static_cast<std::uint32_t>(number);
        return good;
    }
    if (is("ring")) return take_ring(option, &out->ring, why);
    if (is("direct")) return take(option, &out->direct, why);
    if (is("poll")) return take(option, &out->poll, why);
    if (is("passthrough")) return take(option, &out->passthrough, why);
    if (is("fua")) return take(option, &out->fua, why);
    if (is("fixed")) return take(option, &out->fixed, why);
    *why = std::string("there is no option ") + option.key +
           "; there are directory, io_bytes, stripe_bytes, depth, depth_bytes, handles, ring, direct, poll, passthrough, fua "
           "and fixed";
    return false;
}

}  // namespace

bool parse_options(const pega_option* options, std::uint32_t count, Options* out, std::string* why) {
    for (std::uint32_t i = 0; i < count; ++i) {
        if (!parse_one(options[i], out, why)) return false;
    }
    return true;
}

}  // namespace nvme_backend
