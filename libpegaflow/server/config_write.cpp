// SPDX-License-Identifier: Apache-2.0
// A configuration as text: the values of a TOML file, a whole file, the reference page.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "server/config.hpp"

namespace pegaflow::server {
namespace {

std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') {
            out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
        } else {
            out += c;
        }
    }
    return out + '"';
}

std::string key_text(std::string_view key) {
    const bool bare = !key.empty() && std::ranges::all_of(key, [](unsigned char c) {
        return c < 0x80 && (std::isalnum(c) != 0 || c == '-' || c == '_');
    });
    return bare ? std::string(key) : quoted(key);
}

std::string section_line(const std::string& out, std::string_view section) {
    return fmt::format("{}[{}]\n", out.empty() ? "" : "\n", section);
}

}  // namespace

std::string Option::toml(const Config& config) const {
    const Parts parts = get(config);
    if (kind == Kind::kBoolean || kind == Kind::kInteger) return parts.front();
    if (kind != Kind::kList) return quoted(parts.front());
    std::vector<std::string> elements;
    for (const std::string& part : parts) elements.push_back(quoted(part));
    return fmt::format("[{}]", fmt::join(elements, ", "));
}

std::string to_toml(const Config& config) {
    std::string out;
    std::string section;
    for (const Option& option : options()) {
        const std::size_t dot = option.key.find('.');
        if (option.key.substr(0, dot) != section) {
            section = option.key.substr(0, dot);
            out += section_line(out, section);
        }
        out += fmt::format("{} = {}\n", option.key.substr(dot + 1), option.toml(config));
    }
    for (const auto& [module, values] : config.fabric.options) {
        out += section_line(out, "module." + key_text(module));
        for (const auto& [key, value] : values) out += fmt::format("{} = {}\n", key_text(key), quoted(value));
    }
    return out;
}

std::string config_reference() {
    std::string out =
        "# Configuration reference\n\n`pegaflow serve --config FILE` reads a TOML file; every key is also a flag, which wins. "
        "`pegaflow serve --print-config` prints what is in force, as such a file. Options of a back end or plug-in are in a "
        "section `[module.NAME]` and go to it as text: strings, integers, true or false.\n\n"
        "A value must have the type of its default. A size is a string with a unit (`\"1.5 GiB\"`, `\"30gb\"`, up to 1 EiB; "
        "units are powers of 1024), or an integer of bytes; a duration is a string with a unit, up to a million hours; a list "
        "is an array of strings. On the command line a list is separated by commas (`--ssd-paths /mnt/a,/mnt/b`): what "
        "contains a comma can only be named in a file.\n\n"
        "| key | flag | value | default | meaning |\n|---|---|---|---|---|\n";
    const Config defaults;
    for (const Option& o : options())
        out += fmt::format("| `{}` | `{}` | {} | `{}` | {} |\n", o.key, o.flag(), o.type, o.toml(defaults), o.help);
    return out;
}

}  // namespace pegaflow::server
