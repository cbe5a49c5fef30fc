// SPDX-License-Identifier: Apache-2.0
#include "pegaflow/bytes.hpp"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

namespace pegaflow {
namespace {

// The power of 1024 that a suffix stands for, or -1.
int suffix_power(std::string_view suffix) {
    std::string lower;
    for (const char c : suffix) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    constexpr std::string_view kLetters = "kmgt";
    if (lower.empty() || lower == "b") return 0;
    const auto power = kLetters.find(lower[0]);
    if (power == std::string_view::npos) return -1;
    const std::string_view rest = std::string_view(lower).substr(1);
    return rest.empty() || rest == "b" || rest == "ib" ? static_cast<int>(power) + 1 : -1;
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    const auto bad = [&](const char* why) {
        return fail(Code::kInvalid,
                    fmt::format("bad size \"{}\": {}; expected a number with an optional suffix such as 512, 4K, 30gb "
                                "or 1.5 GiB",
                                text, why));
    };
    const std::string_view body = trim(text);
    std::size_t digits = 0;
    while (digits < body.size() && (std::isdigit(static_cast<unsigned char>(body[digits])) || body[digits] == '.')) ++digits;
    if (body.starts_with('-')) return bad("negative");
    const std::string_view number = body.substr(0, digits);
    const int power = suffix_power(trim(body.substr(digits)));
    double rounded = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + digits, rounded);
    if (digits == 0 || end != number.data() + digits) return bad("not a number");
    if (power < 0) return bad("unknown suffix");
    if (error != std::errc()) return bad("too large");
    if (number.find('.') != std::string_view::npos) {
        const double bytes = rounded * std::pow(1024.0, power);
        if (bytes >= 18446744073709551616.0) return bad("too large");
        return static_cast<std::uint64_t>(bytes);
    }
    std::uint64_t whole = 0;
    const bool fits = std::from_chars(number.data(), number.data() + digits, whole).ec == std::errc();
    if (!fits || whole > (UINT64_MAX >> (10 * power))) return bad("too large");
    return whole << (10 * power);
}

std::string format_size(std::uint64_t bytes) {
    constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    std::size_t unit = 0;
    double value = static_cast<double>(bytes);
    while (value >= 1024.0 && unit + 1 < kUnits.size()) {
        value /= 1024.0;
        ++unit;
    }
    std::string number = fmt::format("{:.3f}", value);
    number.erase(number.find_last_not_of('0') + 1);
    if (number.back() == '.') number.pop_back();
    return fmt::format("{} {}", number, kUnits[unit]);
}

}  // namespace pegaflow
