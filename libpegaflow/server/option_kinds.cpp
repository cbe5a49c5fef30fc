// SPDX-License-Identifier: Apache-2.0
#include "server/option_kinds.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>

#include "pegaflow/bytes.hpp"

namespace pegaflow::server {
namespace {

using Kind = Option::Kind;

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 60;  // so that sums of some sizes are sizes
constexpr std::int64_t kMostHours = 1'000'000;                // so that sums with times of the clock are times
constexpr std::int64_t kMostMilliseconds = kMostHours * 3'600'000;

unexpected<Error> bad(std::string_view value, std::string_view expected) {
    return fail(Code::kInvalid, fmt::format("\"{}\" is not valid, expected {}", value, expected));
}

// An option of one text; the example is its default.
Option one_text(std::string key, Kind kind, std::string type, std::string help,
                const std::function<std::string(const Config&)>& get,
                const std::function<Result<void>(Config&, std::string_view)>& set) {
    return {std::move(key),
            kind,
            std::move(type),
            std::move(help),
            {get(Config())},
            [get](const Config& c) { return Parts{get(c)}; },
            [set](Config& c, const Parts& parts) { return set(c, parts.front()); }};
}

std::function<std::string(const Config&)> getter(const Member<std::string>& member) {
    return [member](const Config& c) { return member(const_cast<Config&>(c)); };
}

// A whole number with a unit; null when it is anything else, or more than `most` of the smallest unit.
struct Unit {
    std::string_view name;
    std::int64_t scale;
};
std::optional<std::int64_t> parse_units(std::string_view text, std::span<const Unit> units, std::int64_t most) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view name(end, static_cast<std::size_t>(text.data() + text.size() - end));
    const auto unit = std::ranges::find(units, name, &Unit::name);
    if (error != std::errc() || unit == units.end() || number <= 0 || number > most / unit->scale) return {};
    return number * unit->scale;
}

constexpr std::array<Unit, 4> kDurations{{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};

std::string format_duration(std::chrono::nanoseconds duration) {
    const std::int64_t milliseconds = duration / std::chrono::milliseconds(1);
    const auto unit =
        std::find_if(kDurations.rbegin(), kDurations.rend(), [&](const Unit& u) { return milliseconds % u.scale == 0; });
    return fmt::format("{}{}", milliseconds / unit->scale, unit->name);
}

// As people write it when that says it exactly.
std::string exact_size(std::uint64_t bytes) {
    std::string text = format_size(bytes);
    const auto read = parse_size(text);
    return read && *read == bytes ? text : fmt::format("{} B", bytes);
}

// A minute to 31 days, in whole minutes; 0 for anything else.
std::chrono::nanoseconds parse_window(std::string_view text) {
    constexpr std::array<Unit, 4> kUnits{{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}}};
    const std::int64_t seconds = parse_units(text, kUnits, 31 * 86400).value_or(0);
    return std::chrono::seconds(seconds % 60 == 0 ? seconds : 0);
}

}  // namespace

std::string format_window(std::chrono::nanoseconds window) {
    const std::int64_t minutes = window / std::chrono::minutes(1);
    if (minutes % (24 * 60) == 0) return fmt::format("{}d", minutes / (24 * 60));
    return minutes % 60 == 0 ? fmt::format("{}h", minutes / 60) : fmt::format("{}m", minutes);
}

Option text_option(std::string key, std::string help, std::string type, const Member<std::string>& member,
                   std::string example) {
    Option out = one_text(std::move(key), Kind::kText, std::move(type), std::move(help), getter(member),
                          [member](Config& c, std::string_view v) -> Result<void> {
                              member(c) = std::string(v);
                              return {};
                          });
    if (!example.empty()) out.example = {std::move(example)};
    return out;
}

Option choice_option(std::string key, std::string help, std::vector<std::string> choices, const Member<std::string>& member) {
    const std::string type = fmt::format("one of {}", fmt::join(choices, ", "));
    return one_text(std::move(key), Kind::kText, type, std::move(help), getter(member),
                    [member, choices = std::move(choices), type](Config& c, std::string_view v) -> Result<void> {
                        if (std::find(choices.begin(), choices.end(), v) == choices.end()) return bad(v, type);
                        member(c) = std::string(v);
                        return {};
                    });
}

Option address_option(std::string key, std::string help, const Member<std::string>& member) {
    constexpr const char* kType = "address:port, as 127.0.0.1:50055 or [::1]:50055";
    return one_text(std::move(key), Kind::kText, kType, std::move(help), getter(member),
                    [member](Config& c, std::string_view v) -> Result<void> {
                        const std::size_t colon = v.rfind(':');
                        unsigned port = 0;
                        const auto end = v.data() + v.size();
                        if (colon == std::string_view::npos || colon == 0) return bad(v, kType);
                        const auto [stop, error] = std::from_chars(v.data() + colon + 1, end, port);
                        if (error != std::errc() || stop != end || port > 65535) return bad(v, kType);
                        member(c) = std::string(v);
                        return {};
                    });
}

Option bool_option(std::string key, std::string help, const Member<bool>& member) {
    return one_text(
        std::move(key), Kind::kBoolean, "true or false", std::move(help),
        [member](const Config& c) { return std::string(member(const_cast<Config&>(c)) ? "true" : "false"); },
        [member](Config& c, std::string_view v) -> Result<void> {
            if (v != "true" && v != "false") return bad(v, "true or false");
            member(c) = v == "true";
            return {};
        });
}

Option size_option(std::string key, std::string help, std::uint64_t least, const Member<std::uint64_t>& member) {
    const std::string type = least == 0 ? "a size" : fmt::format("a size of at least {}", format_size(least));
    Option out = one_text(
        std::move(key), Kind::kSize, type, std::move(help),
        [member](const Config& c) { return exact_size(member(const_cast<Config&>(c))); },
        [member, least, type](Config& c, std::string_view v) -> Result<void> {
            PEGA_ASSIGN(const std::uint64_t size, parse_size(v));
            if (size < least) return bad(v, type);
            if (size > kMostBytes) return bad(v, fmt::format("at most {}", format_size(kMostBytes)));
            member(c) = size;
            return {};
        });
    if (out.example.front() == exact_size(0)) out.example = {"1 GiB"};
    return out;
}

Option integer_option(std::string key, std::string help, std::uint64_t least, std::uint64_t most,
                      const std::function<std::uint64_t(const Config&)>& get,
                      const std::function<void(Config&, std::uint64_t)>& set) {
    const std::string type = fmt::format("an integer from {} to {}", least, most);
    return one_text(
        std::move(key), Kind::kInteger, type, std::move(help), [get](const Config& c) { return std::to_string(get(c)); },
        [set, least, most, type](Config& c, std::string_view v) -> Result<void> {
            std::uint64_t number = 0;
            const auto [end, error] = std::from_chars(v.data(), v.data() + v.size(), number);
            if (error != std::errc() || end != v.data() + v.size() || number < least || number > most) return bad(v, type);
            set(c, number);
            return {};
        });
}

Option duration_option(std::string key, std::string help, const Member<std::chrono::nanoseconds>& member) {
    return one_text(
        std::move(key), Kind::kText, "a duration such as 500ms, 30s, 15m or 1h", std::move(help),
        [member](const Config& c) { return format_duration(member(const_cast<Config&>(c))); },
        [member](Config& c, std::string_view v) -> Result<void> {
            const auto milliseconds = parse_units(v, kDurations, kMostMilliseconds);
            if (!milliseconds)
                return bad(v, fmt::format("a duration such as 500ms, 30s, 15m or 1h, from 1ms to {}h", kMostHours));
            member(c) = std::chrono::milliseconds(*milliseconds);
            return {};
        });
}

Option list_option(std::string key, std::string help, const Member<std::vector<std::string>>& member, Parts example) {
    return {std::move(key),
            Kind::kList,
            "a list of texts",
            std::move(help),
            std::move(example),
            [member](const Config& c) { return member(const_cast<Config&>(c)); },
            [member](Config& c, const Parts& parts) -> Result<void> {
                for (const std::string& part : parts) {
                    if (part.empty()) return bad(part, "a list without empty entries");
                }
                member(c) = parts;
                return {};
            }};
}

Option wrap_option() {
    constexpr const char* kType = "a list of wrapper=backend";
    return {"modules.wrap",
            Kind::kList,
            kType,
            "Interposers around back ends, such as fault=host or trace=cuda; of several around one, the last is outermost.",
            {"fault=host"},
            [](const Config& c) {
                Parts parts;
                for (const auto& [wrapper, inner] : c.fabric.wrap) parts.push_back(wrapper + "=" + inner);
                return parts;
            },
            [](Config& c, const Parts& parts) -> Result<void> {
                std::vector<std::pair<std::string, std::string>> out;
                for (const std::string& part : parts) {
                    const std::size_t equals = part.find('=');
                    if (equals == std::string::npos || equals == 0 || equals + 1 == part.size()) return bad(part, kType);
                    out.emplace_back(part.substr(0, equals), part.substr(equals + 1));
                }
                c.fabric.wrap = std::move(out);
                return {};
            }};
}

Option windows_option() {
    constexpr const char* kType = "a list of different windows such as 15m, 1h or 1d, in whole minutes up to 31d";
    return {"metrics.distinct-windows",
            Kind::kList,
            kType,
            "Windows for which the different blocks that queries miss are estimated: what a cache that never evicts would hit. "
            "Empty = none.",
            {"15m", "1h"},
            [](const Config& c) {
                Parts parts;
                for (const auto window : c.engine.distinct_windows) parts.push_back(format_window(window));
                return parts;
            },
            [](Config& c, const Parts& parts) -> Result<void> {
                std::vector<std::chrono::nanoseconds> out;
                for (const std::string& part : parts) {
                    const auto window = parse_window(part);
                    if (window.count() == 0 || std::ranges::find(out, window) != out.end()) return bad(part, kType);
                    out.push_back(window);
                }
                c.engine.distinct_windows = std::move(out);
                return {};
            }};
}

}  // namespace pegaflow::server
